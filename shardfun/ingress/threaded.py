"""An ingress of a class that a user wrote (``shardfun.sources.Ingress``): it runs in a thread, since it may block.

Each time reading begins there is a new object in a new thread. A thread cannot be stopped from outside: the one before is asked
to end and waited for a while; if it still waits for its source then, it is left alone, and what it reads is thrown away.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import structlog

from shardfun.errors import IngressError
from shardfun.ingress.feed import FEED_RECORDS, Feed, Host, restart_pause
from shardfun.ports import IngressBatch
from shardfun.sources import Ingress

JOIN_S: Final = 5.0
"""So long the next thread waits for the one before."""

log = structlog.get_logger("shardfun.ingress")


class ThreadedReader:
    """One partition of a user's source.

    Args:
        make: a new object of the user's class.
    """

    def __init__(self, name: str, make: Callable[[], Ingress], host: Host) -> None:
        self._name = name
        self._make = make
        self._host = host
        self._run: _Run | None = None

    def open(self, position: Any | None) -> None:
        """Start a thread that reads behind ``position``, as soon as the one before has ended."""
        self.close()
        before = None if self._run is None else self._run.thread
        self._run = _Run(self._name, self._make, position, self._host, before)
        self._run.thread.start()

    def read(self, limit: int, now: float) -> IngressBatch | None:  # noqa: ARG002 - same for all
        """Up to ``limit`` records that the source has given.

        Raises:
            IngressError: it raised that, or gave something that is no pair.
        """
        assert self._run is not None, "open() comes first"
        return self._run.feed.take(limit)

    @property
    def wake_at(self) -> float | None:
        """Never: the thread wakes the loop."""
        return None

    @property
    def trouble(self) -> str:
        """What it fails with now, if it does."""
        return "" if self._run is None else self._run.feed.trouble

    @property
    def finished(self) -> bool:
        """Whether the source is at its end, and all was read."""
        return self._run is not None and self._run.feed.finished

    def close(self) -> None:
        """Ask the thread to end. Safe to call twice."""
        if self._run is not None:
            self._run.stop()


class _Run:
    """The source from one ``open`` to the next ``close``, opened again after errors."""

    def __init__(
        self, name: str, make: Callable[[], Ingress], position: Any | None, host: Host, before: threading.Thread | None
    ) -> None:
        self._changed = threading.Event()  # set: there may be room, or it is to stop
        self.feed = Feed(f"ingress {name!r}", position, host.wake, self._changed.set)
        self.thread = threading.Thread(target=self._main, name=f"ingress {name}", daemon=True)
        self._name = name
        self._make = make
        self._before = before
        self._source: Ingress | None = None

    def stop(self) -> None:
        """Called on the loop."""
        if self.feed.stopped:
            return
        self.feed.stopped = True
        self._changed.set()
        source = self._source
        if source is not None:
            with suppress(Exception):  # a user's code
                source.interrupt()

    # ---- in the thread --------------------------------------------------------------------------------------------------
    def _main(self) -> None:
        if self._before is not None:
            self._before.join(JOIN_S)
            if self._before.is_alive():
                log.warning("the thread of a source does not end: it needs 'interrupt'", ingress=self._name)
            self._before = None
        failures = 0
        while not self.feed.stopped:
            position = self.feed.position
            try:
                self._once()
            except IngressError as error:
                self.feed.fail(error)
                return
            except BaseException as error:
                if self._is_stopped():
                    return
                failures = 1 if self.feed.position != position else failures + 1
                pause = restart_pause(failures)
                what = f"{type(error).__name__}: {error}"
                self.feed.trouble = f"ingress {self._name!r}: {what:.500}"
                log.warning(
                    "ingress failed, is read again behind its last record",
                    ingress=self._name,
                    error=what,
                    failures=failures,
                    pause_s=pause,
                    exc_info=error,
                )
                self._wait(pause)
            else:
                return

    def _once(self) -> None:
        """Until the source is at its end, or reading is stopped."""
        source = self._source = self._make()
        try:
            source.open(self.feed.position)
            while not self.feed.stopped:
                found = source.read(FEED_RECORDS)
                if found is None:
                    self.feed.end()
                    return
                any_given = False
                for item in found:
                    if not self._put(item):
                        return
                    any_given = True
                if not any_given:
                    self._wait(source.idle_s)
        finally:
            self._source = None
            with suppress(Exception):  # nobody can do anything about it
                source.close()

    def _put(self, item: Any) -> bool:
        """Wait for room; whether it was put."""
        while self.feed.full and not self.feed.stopped:
            self._changed.clear()
            if self.feed.full and not self.feed.stopped:
                self._changed.wait()
        if self.feed.stopped:
            return False
        self.feed.put(item)
        return True

    def _is_stopped(self) -> bool:
        return self.feed.stopped

    def _wait(self, seconds: float) -> None:
        """For so long, or until reading is stopped."""
        until = time.monotonic() + seconds
        while not self.feed.stopped and (left := until - time.monotonic()) > 0:
            self._changed.clear()
            if not self.feed.stopped:
                self._changed.wait(left)
