"""The doors of a simulated shard: reads ingresses while there is room, publishes what may go out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from shardfun.core.shard import ShardCore
from shardfun.simulation.publisher import Publisher
from shardfun.simulation.surroundings import Surroundings
from shardfun.simulation.workloads.orders import HTTP_INGRESS

LOG_SHARE = 0.5
"""Of the turns in which the intake log is asked first."""


class Doors:
    """See the module."""

    def __init__(self, around: Surroundings, shard: int) -> None:
        self._around = around
        self._shard = shard
        self._publishers = [Publisher(around, name, shard) for name in around.workload.egresses]
        self._throttled = False
        self._hands = None if around.intake is None else around.intake.machine.process()
        self._log = None if self._hands is None or around.intake is None else around.intake.reader(shard, self._hands)

    def attach(self, core: ShardCore) -> None:
        """A new incarnation: go on where its checkpoint was."""
        self._throttled = False
        if self._log is not None:
            with self._reading():
                self._log.open(core.positions.get(HTTP_INGRESS))
        self._announce_finished(core)
        for publisher in self._publishers:
            publisher.attach(core)

    def open_step(self, core: ShardCore) -> bool:
        """A step of opening one of the sinks; whether there was one.

        Raises:
            EgressError: a sink cannot be opened.
        """
        return any(publisher.open_step(core) for publisher in self._publishers)

    @property
    def opening(self) -> bool:
        """Whether there are sinks that are not open yet."""
        return any(publisher.opening for publisher in self._publishers)

    def read(self, core: ShardCore) -> bool:
        """Read a batch from one of the ingresses, while there is room."""
        around = self._around
        if self._log is not None and around.chance.random() < LOG_SHARE and not self._closed(core):
            with self._reading():
                batch = self._log.read(around.chance.randint(1, around.options.batch), around.trace.now)
            if batch is not None:
                core.ingest(HTTP_INGRESS, batch)
                around.note(f"shard {self._shard}", "ingested", f"{len(batch.records)} entries up to {batch.position}")
                return True
        names = [name for name in core.finished if name != HTTP_INGRESS and self._readable(core, name)]
        if not names or self._closed(core):
            return False
        name = around.chance.choice(names)
        start = int(core.positions.get(name) or 0)
        stop = start + around.chance.randint(1, min(around.options.batch, self._readable(core, name)))
        core.ingest(name, around.workload.read(name, self._shard, start, stop))
        around.note(f"shard {self._shard}", "ingested", f"{name} {start} to {stop}")
        self._announce_finished(core)
        return True

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """The intake log is read, and that may fail."""
        assert self._hands is not None
        self._hands.begin_job(self._around.faults.trouble("read"))
        try:
            yield
        finally:
            self._hands.begin_job()

    def _readable(self, core: ShardCore, ingress: str) -> int:
        """Records that may be read by now and were not."""
        allowed = int(self._around.workload.records(ingress, self._shard) * self._around.open_share)
        return max(0, allowed - int(core.positions.get(ingress) or 0))

    def _announce_finished(self, core: ShardCore) -> None:
        for name in core.finished:
            if name == HTTP_INGRESS:
                continue
            if int(core.positions.get(name) or 0) >= self._around.workload.records(name, self._shard):
                core.ingress_finished(name)

    def _closed(self, core: ShardCore) -> bool:
        backlog = core.backlog
        core.check_backlog(backlog)
        around = self._around
        options = around.options
        if self._throttled:
            self._throttled = backlog > options.backlog_low or core.egress_full
        elif backlog > options.backlog_high or core.egress_full:
            self._throttled = True
            if core.egress_full:
                around.note(f"shard {self._shard}", "egress is full")
        return self._throttled

    def publish(self, core: ShardCore) -> bool:
        """A step of one of the publishers; whether there was one."""
        return any(publisher.step(core) for publisher in self._publishers)

    def drained(self, core: ShardCore) -> bool:
        """Whether everything that may go out is out."""
        return all(publisher.drained(core) for publisher in self._publishers)

    def kill(self) -> None:
        """The process dies."""
        for publisher in self._publishers:
            publisher.kill()
        if self._log is not None:
            self._log.close()
