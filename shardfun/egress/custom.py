"""A sink that a user wrote, as the port that shards know: from the number of records it holds to those it still has to get.

A sink that cannot be reached does not keep a shard from starting: its records wait in the checkpoints, and it is asked again when
there is something to publish.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final

import structlog

from shardfun.errors import EgressError
from shardfun.ports import PublishedPosition
from shardfun.sinks import Egress

CLOSE_S: Final = 5.0

log = structlog.get_logger("shardfun.egress")


class CustomSink:
    """One partition of a user's sink."""

    def __init__(self, name: str, sink: Egress) -> None:
        self._label = f"egress {name!r}"
        self._sink = sink
        # Not in those of Trio: many libraries want to be used in the thread that they were opened in.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"egress {name}")
        self._opened = False
        self._known = 0
        """How many records the shard knows to be published."""
        self._end = 0
        """How many can have been published when it was opened."""
        self._held: int | None = None
        """How many the sink has; ``None`` until it was asked."""

    def encode(self, value: Any) -> bytes:
        """The record as bytes.

        Raises:
            TypeError: it cannot be encoded, or the user's code did something else.
        """
        record = self._sink.encode(value)
        if type(record) is not bytes:
            msg = f"{self._label}: expected bytes from {type(self._sink).__qualname__}.encode, got {type(record).__qualname__}"
            raise TypeError(msg)
        return record

    def open(self, published: PublishedPosition, pending: Sequence[bytes]) -> int:
        """Connect, and find how many of the ``pending`` records are there already; 0 if it cannot be reached now.

        Raises:
            EgressError: the sink says that it cannot be used, or holds less or more than can be.
        """
        self.close()
        self._known, self._end = published.records, published.records + len(pending)
        try:
            found = self._thread.submit(self._connect).result() - published.records
        except EgressError:
            self.close()
            raise
        except BaseException as error:  # noqa: BLE001 - a user's code and its libraries raise anything
            self.close()
            what = f"{type(error).__name__}: {error}"
            log.warning("sink cannot be opened, will be tried again", egress=self._label, error=what)
            return 0
        self._known += found
        return found

    def publish(self, records: Sequence[bytes]) -> int:
        """Store records, or find that they are there; how many of them.

        After an error the sink is opened anew: a connection may be broken, and it may have stored what it could not confirm.

        Raises:
            EgressError: as ``open``.
            Exception: whatever the user's code raises; they are given again.
        """
        self._end = max(self._end, self._known + len(records))
        try:
            held = self._thread.submit(self._store, records).result()
        except Exception:
            self.close()
            raise
        except BaseException as error:
            self.close()
            msg = f"{self._label}: {type(error).__name__}: {error}"
            raise RuntimeError(msg) from error  # user code must not take the shard down
        done = min(held - self._known, len(records))
        self._known += done
        return done

    def close(self) -> None:
        """Disconnect. Safe to call twice."""
        if self._opened:
            self._opened = False
            self._held = None
            with suppress(Exception):  # nobody can do anything about it
                self._thread.submit(self._sink.close).result(CLOSE_S)

    # ---- in the thread --------------------------------------------------------------------------------------------------
    def _store(self, records: Sequence[bytes]) -> int:
        held = self._connect() if self._held is None else self._held
        if held == self._known and records:
            self._sink.publish(records, held)
            held += len(records)
        self._held = held
        return held

    def _connect(self) -> int:
        """Open the sink and ask it."""
        self._opened = True
        held = self._sink.open()
        if held is not None and (type(held) is not int or held < 0):
            msg = f"{self._label}: expected a number of records or None from {type(self._sink).__qualname__}.open, got {held!r:.80}"
            raise EgressError(msg)
        self._held = self._known if held is None else held
        has = f"{self._label}: the sink holds {held} records of partition {self._sink.partition.index}"
        if self._held < self._known:
            msg = f"{has}, but {self._known} were published to it; put its data back, or start afresh with --fresh"
            raise EgressError(msg)
        if self._held > self._end:
            msg = f"{has}, more than the {self._end} of this data directory; remove what another one has published, or keep them apart by partition.job"
            raise EgressError(msg)
        return self._held
