"""What is outside of a simulated node that takes messages in: the door, its clients, the disk of the log; and what shards read of it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from typing import Any

from shardfun.errors import StorageError
from shardfun.intake.reader import LogReader
from shardfun.intake.replies import REPLIES, ReplyStream
from shardfun.model.keyspace import slot_range
from shardfun.simulation.checker import Checker
from shardfun.simulation.clients import Clients
from shardfun.simulation.door import FOLDER, WHO, Door, SimulatedBell
from shardfun.simulation.faults import Faults
from shardfun.simulation.file_store import JOB_STEPS
from shardfun.simulation.files import ProcessDeath, ProcessFiles, SimulatedDisk
from shardfun.simulation.inodes import Folder
from shardfun.simulation.sinks import Sink
from shardfun.simulation.trace import Trace
from shardfun.simulation.view import CheckpointView
from shardfun.simulation.workloads.orders import HTTP_INGRESS, Orders
from shardfun.supervisor.intake import IntakeKeeper
from shardfun.telemetry.node_log import log_to

LENGTH_BYTES = 4


class Intake:
    """See the module.

    Args:
        orders: of the clients.
    """

    def __init__(
        self, orders: Orders, shards: int, chance: random.Random, trace: Trace, faults: Faults, checker: Checker
    ) -> None:
        self._shards = shards
        self._chance = chance
        self._trace = trace
        self._faults = faults
        self._checker = checker
        self.machine = SimulatedDisk()
        """A disk of its own, on which no bits flip."""
        self._bells = [SimulatedBell() for _ in range(shards)]
        self.orders = orders
        self.clients = Clients(orders, chance, lambda: trace.now, lambda: checker.view)
        self._door: Door | None = None
        self.trimmed = 0
        """Segments that were removed."""

    # ---- the door -------------------------------------------------------------------------------------------------------
    def work(self, share: float) -> str | None:
        """The door or a client does something; what it was that is worth a note, empty for anything else."""
        door = self._door
        if door is None:
            if self._chance.random() < 0.9:
                return None
            self._door = Door(self.machine, self._bells, self._faults, self._trace)
            return "door starts"
        if self._chance.random() < 0.3 and self.clients.act(door, share):
            return ""
        return door.work()

    def kill_door(self) -> bool:
        """SIGKILL to the door; whether there was one."""
        door, self._door = self._door, None
        if door is None:
            return False
        posts = door.kill()
        self._trace.note(WHO, "killed", f"{len(posts)} posts are not answered")
        self.clients.unanswered(posts)
        return True

    @property
    def segments(self) -> int:
        """How many files the log has."""
        folder = self.machine.find(FOLDER)
        return sum(name.startswith("segment-") for name in folder.names) if isinstance(folder, Folder) else 0

    def power_loss(self, chance: random.Random) -> None:
        """What the log had not fsynced may be gone."""
        self.kill_door()
        self.machine.power_loss(chance)

    @property
    def figures(self) -> dict[str, float]:
        """What the clients have done, and how many files of the log are gone."""
        return {**self.clients.counts, "trimmed_segments": self.trimmed}

    def wake_times(self) -> Iterator[float]:
        """When a client does something again."""
        return self.clients.wake_times()

    def is_read(self, view: CheckpointView) -> bool:
        """Whether a checkpoint has read all of the log: also copies of requests that were answered long ago."""
        end = None if self._door is None else self._door.log_end
        return end is not None and all(view.position(HTTP_INGRESS, shard) >= end for shard in range(self._shards))

    # ---- for the shards -------------------------------------------------------------------------------------------------
    def reader(self, shard: int, hands: ProcessFiles) -> LogReader:
        """The real reader of the log, for a process of a shard."""
        return LogReader(FOLDER, slot_range(shard, self._shards), self._bells[shard], hands)

    def deliver(self, record: bytes) -> None:
        """A reply leaves a shard: to the door, if it lives."""
        if self._door is None:
            return
        stream = ReplyStream()
        for reply in stream.feed(len(record).to_bytes(LENGTH_BYTES, "big") + record):
            self.clients.replied(reply)

    # ---- for the supervisor ---------------------------------------------------------------------------------------------
    def keeper(self, positions: Sequence[Mapping[str, Any]]) -> Keeper:
        """The real keeper of the log, for a process of the supervisor.

        Args:
            positions: of the shards in the newest complete checkpoint.
        """
        return Keeper(self, positions)


class _Nowhere:
    """Takes log lines."""

    def write(self, level: int, event: str, fields: dict[str, Any]) -> None:
        """See ``Destination``."""


class Keeper:
    """Tends the log for a supervisor."""

    def __init__(self, intake: Intake, positions: Sequence[Mapping[str, Any]]) -> None:
        self._intake = intake
        self._hands = intake.machine.process()
        names = {name for part in positions for name in part}
        by_name = {name: [part.get(name) for part in positions] for name in sorted(names)}
        self._keeper = IntakeKeeper(FOLDER.parent, by_name, self._hands)

    def completed(self, positions: Sequence[Mapping[str, Any]]) -> bool:
        """See ``IntakeKeeper``."""
        return self._keeper.completed(positions)

    def tend(self, faults: Faults) -> int:
        """Write the mark and remove segments; how many are gone. Perhaps only a part of it is done."""
        before = self._intake.segments
        self._hands.begin_job(faults.log_trouble("tend"))
        copy_context().run(self._tend_quietly)
        self._hands.begin_job()
        gone = before - self._intake.segments
        self._intake.trimmed += gone
        return gone

    def _tend_quietly(self) -> None:
        """A refusal is logged; here it is expected."""
        log_to(_Nowhere())
        self._keeper.tend()

    def die(self, chance: random.Random, *, tending: bool) -> None:
        """The supervisor dies, perhaps in the middle of it."""
        if tending:
            self._hands.begin_job(dies_at=chance.randint(1, JOB_STEPS["tend"]))
            with suppress(ProcessDeath, StorageError):
                copy_context().run(self._tend_quietly)
        self._hands.kill()


class ReplySink(Sink):
    """Hands replies over, and remembers them as any sink does. ``intake``: once there is one."""

    intake: Intake | None = None

    def _append(self, records: Sequence[bytes]) -> None:
        super()._append(records)
        if self.intake is not None:
            for record in records:
                self.intake.deliver(record)


def is_reply(egress: str) -> bool:
    """Whether this egress goes to the door."""
    return egress == REPLIES
