"""The doors of a shard: reads ingresses while there is room, publishes egress records that may go out.

Reading happens on the loop, in batches, when the backlog allows it: the ingress is the only thing that is ever throttled.
Publishing happens in a worker per egress; a sink that fails is asked again after a pause, for ever, because its records are
safe in the checkpoints.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from shardfun.core.shard import ShardCore
from shardfun.errors import EgressError, IngressError, ShardfunError
from shardfun.failpoints import Point, reached
from shardfun.model.cbor import shown
from shardfun.model.doors import PublishedPosition
from shardfun.ports import REAL_CLOCK, Clock, EgressSink, IngressReader, Interruptible
from shardfun.shard.worker import Failed, TryAgain, Worker

PUBLISH_RECORDS = 10_000
PUBLISH_RETRY_S = 1.0
TROUBLE_CHARACTERS = 500  # of an error that the status shows
LINKS_FULL_FRAMES = 8  # no more input while this many frames wait for a peer, or that many messages here

log = structlog.get_logger("shardfun.doors")


class Ingress:
    """The readers of a shard, in one incarnation.

    Args:
        batch: records per read; ``high`` and ``low``: the backlog at which reading stops and goes on.
    """

    def __init__(self, core: ShardCore, readers: dict[str, IngressReader], batch: int, high: int, low: int) -> None:
        self._core = core
        self._readers = list(readers.items())
        self._batch = batch
        self._high = high
        self._low = low
        self._throttled = False
        self._held = False
        self._wake_at: float | None = None
        self._epoll: select.epoll | None = None
        self._heard: list[int] = []
        for name, reader in self._readers:
            _open_at(name, reader, core.positions.get(name))
            if reader.finished:
                core.ingress_finished(name)

    @property
    def wake_at(self) -> float | None:
        """When a reader has something again; ``None`` if not known or not wanted."""
        return None if self._throttled or self._held else self._wake_at

    def read(self, now: float) -> bool:
        """One batch from every reader that has one; whether any record came in."""
        if not self._open(self._core.backlog):
            return False
        busy = False
        wake: float | None = None
        for name, reader in self._readers:
            finished = reader.finished
            if finished:  # one that runs beside the loop ends at any time
                self._core.ingress_finished(name)
                continue
            batch = reader.read(self._batch, now)
            finished = reader.finished
            if batch is not None:
                self._core.ingest(name, batch)
                busy = True
            elif reader.wake_at is not None:
                wake = reader.wake_at if wake is None else min(wake, reader.wake_at)
            if finished:
                self._core.ingress_finished(name)
                busy = True
        self._wake_at = wake
        return busy

    def _open(self, backlog: int) -> bool:
        before = self._throttled
        if self._throttled:
            self._throttled = backlog > self._low or self._core.egress_full
        elif backlog > self._high or self._core.egress_full:
            self._throttled = True
        if before is not self._throttled:
            self.hear(self._epoll)
        return not self._throttled

    def hold(self, *, held: bool) -> None:
        """Whether there is no room for what would be read, so that readers shall not wake the loop."""
        if held is not self._held:
            self._held = held
            self.hear(self._epoll)

    def hear(self, epoll: select.epoll | None) -> None:
        """Let readers wake the loop through their ``wake_fd`` while nothing is throttled; ``None``: not at all.

        Nobody would take a ring back then, and it would wake the loop for ever.
        """
        for fd in self._heard:
            assert self._epoll is not None
            with suppress(OSError):  # the reader has closed it
                self._epoll.unregister(fd)
        self._epoll, self._heard = epoll, []
        if epoll is None or self._throttled or self._held:
            return
        for wake_fd in dict.fromkeys(getattr(reader, "wake_fd", None) for _, reader in self._readers):
            if wake_fd is not None:
                epoll.register(wake_fd, select.EPOLLIN)
                self._heard.append(wake_fd)


def _open_at(name: str, reader: IngressReader, position: Any | None) -> None:
    try:
        reader.open(position)
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        if position is None:
            raise
        reader.close()
        msg = (
            f"ingress {name!r}: its position in the checkpoint, {shown(position)}, is none of this kind of source "
            f"({type(error).__name__}: {error}); set its kind back, or start afresh with --fresh"
        )
        raise IngressError(msg) from error


@dataclass(slots=True)
class _Publisher:
    name: str
    sink: EgressSink
    worker: Worker
    busy: bool = False
    retry_at: float = 0.0
    trouble: str = ""
    waits_for_space: bool = False


class Egress:
    """The publishers of a shard; they live as long as the process, over incarnations.

    Args:
        fatal: called when a sink holds something else than was published: the node has to stop.
    """

    def __init__(
        self,
        sinks: dict[str, EgressSink],
        workers: dict[str, Worker],
        fatal: Callable[[ShardfunError], None],
        clock: Clock = REAL_CLOCK,
    ) -> None:
        self._monotonic = clock.monotonic
        self._publishers = [_Publisher(name, sink, workers[name]) for name, sink in sinks.items()]
        self._fatal = fatal
        self._core: ShardCore | None = None
        self._opening = 0

    @property
    def wake_at(self) -> float | None:
        """When a failed sink is asked again."""
        return min((p.retry_at for p in self._publishers if p.retry_at), default=None)

    @property
    def troubles(self) -> list[str]:
        """What the sinks fail with now."""
        return [publisher.trouble for publisher in self._publishers if publisher.trouble]

    @property
    def waits_for_space(self) -> bool:
        """Whether a sink cannot be opened until the disk is no longer full. May be asked by any thread."""
        return any(publisher.waits_for_space for publisher in self._publishers)

    @property
    def drained(self) -> bool:
        """Whether everything that may go out is out."""
        core = self._core
        return core is not None and not any(p.busy or core.egress[p.name].publishable(1) for p in self._publishers)

    def attach(self, core: ShardCore, ready: Callable[[], None]) -> None:
        """A new incarnation: reopen all sinks at what the checkpoint knows, behind anything still under way; then ``ready``."""
        self._core = core
        self._opening = len(self._publishers)
        if not self._publishers:
            ready()
        self.interrupt()
        for publisher in self._publishers:
            egress_log = core.egress[publisher.name]
            pending = egress_log.publishable(len(egress_log.pending))
            publisher.retry_at = 0.0
            publisher.busy = False
            publisher.worker.submit(
                lambda p=publisher, at=egress_log.published, pending=pending: self._reopen(core, p, at, pending),  # type: ignore[misc]
                lambda result, p=publisher: self._opened(core, p, result, ready),  # type: ignore[misc]
            )

    def _reopen(self, core: ShardCore, publisher: _Publisher, published: PublishedPosition, pending: list[bytes]) -> int:
        """In a thread. A full disk is waited for, as by the store that restores; all else is for people to look at."""
        publisher.waits_for_space = False
        publisher.sink.close()
        try:
            return publisher.sink.open(published, pending)
        except ShardfunError as error:
            if not error.disk_full or core is not self._core:
                raise
            publisher.waits_for_space = True
            log.warning("disk full, waiting for space to open an egress", egress=publisher.name, error=str(error))
            raise TryAgain(PUBLISH_RETRY_S) from error

    def _opened(self, core: ShardCore, publisher: _Publisher, result: Any, ready: Callable[[], None]) -> None:
        if core is not self._core:
            return
        if isinstance(result, Failed):
            error = (
                result.error if isinstance(result.error, ShardfunError) else EgressError(f"{publisher.name}: {result.error}")
            )
            self._fatal(error)
            return
        if result:
            core.found_published(publisher.name, result)
        self._opening -= 1
        if self._opening == 0:
            ready()

    def publish(self, now: float) -> bool:
        """Start publishing where records may go out and nothing is under way; whether any was started."""
        core = self._core
        if core is None or self._opening:
            return False
        started = False
        for publisher in self._publishers:
            if publisher.busy or now < publisher.retry_at:
                continue
            publisher.retry_at = 0.0
            records = core.egress[publisher.name].publishable(PUBLISH_RECORDS)
            if not records:
                continue
            publisher.busy = started = True
            publisher.worker.submit(
                lambda p=publisher, records=records: _publish(p.sink, records),  # type: ignore[misc]
                lambda result, p=publisher, records=records: self._published(core, p, len(records), result),  # type: ignore[misc]
            )
        return started

    def _published(self, core: ShardCore, publisher: _Publisher, count: int, result: Any) -> None:
        if core is not self._core:
            return
        publisher.busy = False
        if isinstance(result, Failed):
            publisher.trouble = f"{result.error}"[:TROUBLE_CHARACTERS]
            pause = getattr(result.error, "retry_s", None)
            publisher.retry_at = self._monotonic() + (PUBLISH_RETRY_S if pause is None else pause)
            log.warning("egress failed, will try again", egress=publisher.name, error=str(result.error), records=count)
            return
        publisher.trouble = ""
        core.published(publisher.name, count if result is None else result)
        reached(Point.SINK_PROGRESS)

    def interrupt(self) -> None:
        """End what waits for others: nobody is interested in its result any more."""
        for publisher in self._publishers:
            if publisher.busy and isinstance(publisher.sink, Interruptible):
                publisher.sink.interrupt()

    def close(self) -> None:
        """Close the sinks."""
        for publisher in self._publishers:
            publisher.sink.close()


def _publish(sink: EgressSink, records: Sequence[bytes]) -> int | None:
    reached(Point.PUBLISHING)
    found = sink.publish(records)
    reached(Point.PUBLISHED)
    return found
