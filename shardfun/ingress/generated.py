"""An ingress declared with ``@app.ingress``: an async generator that runs as a task in the loop of the shard."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, cast

import structlog
import trio

from shardfun.errors import IngressError
from shardfun.ingress.feed import Feed, Host, restart_pause
from shardfun.ports import IngressBatch, Partition

log = structlog.get_logger("shardfun.ingress")


class GeneratedReader:
    """One partition of an async generator.

    A generator without a parameter ``partition`` runs in one shard only, which its name decides.

    Args:
        function: ``(position)`` or ``(position, partition)`` to an async generator of ``(position, record)``.
    """

    def __init__(self, name: str, function: Callable[..., AsyncIterator[Any]], partition: Partition, host: Host) -> None:
        self._name = name
        self._function = function
        self._partition = partition
        self._host = host
        takes_partition = "partition" in inspect.signature(function).parameters
        self._arguments: dict[str, Any] = {"partition": partition} if takes_partition else {}
        self._serves = takes_partition or partition.owns(name)
        self._run: _Run | None = None

    def open(self, position: Any | None) -> None:
        """Start the generator behind ``position``, as soon as the one before has ended."""
        self.close()
        before = self._run
        feed = Feed(f"ingress {self._name!r}", position, self._host.wake, lambda: None)
        self._run = run = _Run(self._name, self._generator, feed)
        if self._serves:
            self._host.spawn(run.run, before)
        else:
            run.feed.ended = True
            run.done.set()

    def _generator(self, position: Any | None) -> AsyncGenerator[Any, None]:
        return cast("AsyncGenerator[Any, None]", self._function(position, **self._arguments))  # what @app.ingress has checked

    def read(self, limit: int, now: float) -> IngressBatch | None:  # noqa: ARG002 - same for all
        """Up to ``limit`` records that the generator has given.

        Raises:
            IngressError: it raised that, or gave something that is no pair.
        """
        assert self._run is not None, "open() comes first"
        batch = self._run.feed.take(limit)
        self._run.make_room()
        return batch

    @property
    def wake_at(self) -> float | None:
        """Never: the generator wakes the loop."""
        return None

    @property
    def trouble(self) -> str:
        """What it fails with now, if it does."""
        return "" if self._run is None else self._run.feed.trouble

    @property
    def finished(self) -> bool:
        """Whether the generator has ended, and all was read."""
        return self._run is not None and self._run.feed.finished

    def close(self) -> None:
        """Cancel the generator. Safe to call twice."""
        if self._run is not None:
            self._run.scope.cancel()


class _Run:
    """The generator from one ``open`` to the next ``close``, opened again after errors."""

    def __init__(self, name: str, make: Callable[[Any], AsyncGenerator[Any, None]], feed: Feed) -> None:
        self.feed = feed
        self.scope = trio.CancelScope()
        self.done = trio.Event()
        self._name = name
        self._make = make
        self._room: trio.Event | None = None

    def make_room(self) -> None:
        """Let the generator go on if there is room."""
        if self._room is not None and not self.feed.full:
            self._room.set()
            self._room = None

    async def run(self, before: _Run | None) -> None:
        """Until the generator ends for good, or the scope is cancelled."""
        try:
            if before is not None:
                with trio.CancelScope(shield=True):  # also if this one is cancelled: who comes next waits for this one only
                    await before.done.wait()
            with self.scope:
                await self._repeat()
        finally:
            self.done.set()

    async def _repeat(self) -> None:
        failures = 0
        while True:
            position = self.feed.position
            try:
                await self._once()
            except IngressError as error:
                self.feed.fail(error)
                return
            except (Exception, SystemExit) as error:
                permanent = _permanent(error)
                if permanent is not None:
                    self.feed.fail(permanent)
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
                await trio.sleep(pause)
            else:
                self.feed.end()
                return

    async def _once(self) -> None:
        generator = self._make(self.feed.position)
        try:
            async with aclosing(generator):
                async for item in generator:
                    self.feed.put(item)
                    while self.feed.full:
                        self._room = trio.Event()
                        await self._room.wait()
        except BaseExceptionGroup as group:
            cancelled, rest = group.split(trio.Cancelled)
            if cancelled is None:  # a nursery of the generator has failed while it waited at a ``yield``: see the rest
                _, failed = group.split(GeneratorExit)
                raise group if failed is None else failed from None
            if rest is None:
                raise
            log.warning("ingress failed while it was stopped", ingress=self._name, exc_info=rest)
            raise cancelled from None


def _permanent(error: BaseException) -> IngressError | None:
    """The ``IngressError`` in a group, which a nursery of the generator has made."""
    if isinstance(error, IngressError):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next((found for inner in error.exceptions if (found := _permanent(inner)) is not None), None)
    return None
