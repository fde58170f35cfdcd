"""The simulated supervisor process: drives a real ``Coordinator``; each effect is a step of its own, so it can die between two."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import assert_never

from shardfun.core.coordinator import (
    Coordinator,
    Effect,
    FillVacancy,
    Finished,
    RaiseIncarnation,
    Send,
    State,
    WriteManifest,
)
from shardfun.core.poison import Death
from shardfun.errors import StorageError
from shardfun.model.control import (
    Abort,
    Applied,
    Changed,
    Complete,
    Fatal,
    Found,
    Heartbeat,
    LettersDone,
    Loss,
    Prepared,
    Ready,
    Refused,
    ToShard,
    Trigger,
    Warm,
    decode_to_supervisor,
    encode_control,
)
from shardfun.model.delta import checkpoint_name
from shardfun.simulation.disk import JOB, StoredManifest
from shardfun.simulation.file_store import AnyStore
from shardfun.simulation.network import Late, News
from shardfun.simulation.operator import Desks
from shardfun.simulation.reasons import has_reason
from shardfun.simulation.surroundings import Surroundings

WHO = "supervisor"
TEND_SHARE = 0.3
POISON_DEATHS = 1_000_000
"""Nobody is parked for deaths here: all of them come from outside, and no message that is under way has a part in them."""


class Supervisor:
    """See the module.

    Args:
        spawn: makes a process serve a shard, after killing what served it.
    """

    def __init__(self, around: Surroundings, stores: Sequence[AnyStore], spawn: Callable[[int], None]) -> None:
        self._around = around
        self._stores = stores
        self._spawn = spawn
        self._pending: deque[Effect] = deque()
        self._writing: StoredManifest | None = None
        self._exited: list[int] = []
        self.finished: Finished | None = None
        self.asleep_until = 0.0
        """Until then it is stopped; virtual seconds."""
        shards = around.options.shards
        self._disk_until = 0.0
        around.disk.begin(around.faults.trouble("boot"))
        newest = around.disk.newest()
        if newest is not None:
            around.checker.committed(newest, stores)
        complete = newest.checkpoint if newest is not None else 0
        digests = newest.digests if newest is not None else [b""] * shards
        around.note(WHO, "boot", f"at {checkpoint_name(complete)}")
        self.coordinator = Coordinator(shards, around.options.timing, complete, digests, JOB, poison_deaths=POISON_DEATHS)
        self.desks = Desks(self.coordinator, shards, self._ask)
        self.coordinator.start(around.trace.now)
        view = around.checker.view
        self._keeper = None if around.intake is None else around.intake.keeper([] if view is None else view.positions)
        self._tending = False
        self._collect()

    @property
    def recovering(self) -> bool:
        """Whether the world is being brought back."""
        return self.coordinator.state is State.RECOVERING

    @property
    def all_exited(self) -> bool:
        """Whether every shard has ended in order."""
        return len(self._exited) == self._around.options.shards

    @property
    def wake_at(self) -> float:
        """When there is something to do although nothing happens."""
        return self.coordinator.wake_at if self._writing is None else min(self._disk_until, self.coordinator.wake_at)

    def _ask(self, shard: int, message: ToShard) -> None:
        """A desk asks a shard, behind all that the coordinator has sent it."""
        self._pending.append(Send(shard, message))

    def _collect(self) -> None:
        self._pending += self.coordinator.take_effects()
        self.desks.wake()

    # ---- what happens ---------------------------------------------------------------------------------------------------
    def tick(self) -> bool:
        """Look at the clock."""
        coordinator, now = self.coordinator, self._around.trace.now
        before = coordinator.state
        if before is State.IDLE and self._around.faults.rushes:
            coordinator.trigger(now)
        else:
            coordinator.tick(now)
        self._collect()
        if before is State.ALIGNING and coordinator.state is State.IDLE:
            self._around.note(WHO, "aborted", coordinator.statistics.last_fault)
        return coordinator.state is not before

    def take_control(self) -> bool:
        """Handle the next message of one of the shards that sent some."""
        inboxes = self._around.controls.to_supervisor
        waiting = [shard for shard, inbox in enumerate(inboxes) if inbox]
        if not waiting:
            return False
        shard = self._around.chance.choice(waiting)
        self.handle(shard, inboxes[shard].popleft())
        return True

    def handle(self, shard: int, raw: bytes) -> None:
        """Handle one control message."""
        coordinator, now = self.coordinator, self._around.trace.now
        message = decode_to_supervisor(raw)
        match message:
            case Ready():
                coordinator.on_ready(shard, message, now)
            case Prepared():
                coordinator.on_prepared(shard, message)
            case Refused():
                coordinator.on_refused(shard, message, now)
            case Applied():
                coordinator.on_applied(shard, message, now)
            case Changed():
                coordinator.on_changed(message)
            case Loss():
                coordinator.on_loss(message, now)
            case LettersDone() | Found():
                self.desks.hear(shard, message)
            case Heartbeat() | Warm() | Fatal():
                raise AssertionError("simulated processes send none of these")
            case _:
                assert_never(message)
        kind = type(message).__name__
        event = f"{kind.lower()} heard" if isinstance(message, Prepared | Applied) else "heard"
        self._around.note(WHO, event, f"{kind} of {shard}, {coordinator.state.name}")
        self._collect()

    def died(self, shard: int, reason: str, death: Death) -> None:
        """A shard's process is gone, or taken for it."""
        self._around.note(WHO, "death", f"of {shard}: {reason}")
        self.coordinator.suspicion.died(shard, death)
        for gone in [*self._exited, shard]:  # those that had exited in order are needed again
            self.coordinator.failure(gone, reason, self._around.trace.now)
        self._exited = []
        self.finished = None
        self._collect()

    def exited(self, shard: int, death: Death) -> None:
        """A shard's process has ended in order."""
        if self.coordinator.state is State.FINISHING:
            self._exited.append(shard)
        else:
            self.died(shard, "ended before the others", death)

    def die(self) -> None:
        """The process is killed, perhaps in the middle of what the disk does."""
        around = self._around
        if self._writing is not None:
            around.disk.die_in(self._writing, around.chance)
        elif self._pending and isinstance(self._pending[0], RaiseIncarnation):
            around.disk.die_in(None, around.chance)
        self.desks.close()
        if self._keeper is not None:
            self._keeper.die(around.chance, tending=self._tending)

    # ---- what is done ---------------------------------------------------------------------------------------------------
    def perform(self) -> bool:
        """The next effect, or the second half of writing a manifest."""
        if self._writing is not None:
            if self._around.trace.now < self._disk_until:
                return False
            if not self._around.faults.power_fails("manifest"):
                self._manifest_durable(self._writing)
        elif self._tending and self._around.chance.random() < TEND_SHARE:
            self._tend()
        elif self._pending:
            self._perform(self._pending.popleft())
        else:
            return False
        self._collect()
        return True

    def _tend(self) -> None:
        """The intake log is told how far complete checkpoints have read."""
        assert self._keeper is not None
        self._tending = False
        self._around.note(WHO, "trimmed", f"{self._keeper.tend(self._around.faults)} segments")

    def _perform(self, effect: Effect) -> None:
        around = self._around
        match effect:
            case Send(shard, message):
                raw = encode_control(message)
                if isinstance(message, Trigger) and message.incarnation == self.coordinator.incarnation and shard == 0:
                    around.checker.triggered(message.checkpoint, self._stores)
                elif isinstance(message, Abort):
                    around.checker.aborted(message.checkpoint)
                around.controls.to_shard[shard].append(raw)
                around.network.wake(shard, News.CONTROL)
                if isinstance(message, Trigger | Abort | Complete) and around.faults.arrives_again:
                    around.controls.late.append(Late(to_shard=True, shard=shard, raw=raw))
                checkpoint = getattr(message, "checkpoint", None)
                named = "" if checkpoint is None else f"{checkpoint_name(checkpoint)} "
                around.note(WHO, f"{type(message).__name__.lower()} sent", f"{named}to {shard}")
            case RaiseIncarnation():
                around.disk.begin(around.faults.trouble("incarnation"))
                try:
                    incarnation = around.disk.raise_incarnation()
                except StorageError as error:
                    if not self._disk_full(error):
                        raise
                    self._pending.appendleft(effect)
                    around.note(WHO, "disk full", "incarnation")
                    return
                around.network.forget_before(incarnation - 1)
                around.checker.incarnation_began()
                around.note(WHO, "incarnation", str(incarnation))
                self.coordinator.incarnation_raised(incarnation)
            case FillVacancy(shard):
                if effect not in self._pending:  # the vacancy is filled once, however often that was asked for meanwhile
                    self._spawn(shard)
                    self.coordinator.assigned(shard)
            case WriteManifest(checkpoint, parent, parts, end):
                self._writing = StoredManifest(checkpoint, parent, [part.digest for part in parts], end)
                around.disk.rename(self._writing)
                self._disk_until = around.trace.now + around.faults.slow_s
                around.note(WHO, "manifest named", checkpoint_name(checkpoint))
            case Finished():
                self.finished = effect
                around.note(WHO, "finished", "all done" if effect.ended else "stopped")
            case _:
                assert_never(effect)

    def _disk_full(self, error: StorageError) -> bool:
        """Whether it is waited for: the disk is full, and not without a reason."""
        machine = self._around.disk.machine
        return error.disk_full and machine is not None and has_reason(error, machine)

    def _manifest_durable(self, manifest: StoredManifest) -> None:
        self._around.disk.begin(self._around.faults.trouble("manifest"))
        try:
            self._around.disk.make_durable(manifest)
        except StorageError as error:
            if not self._disk_full(error):
                raise
            self._around.note(WHO, "disk full", "manifest")
            return
        self._writing = None
        self._around.checker.committed(manifest, self._stores)
        self._around.note(WHO, "manifest durable", checkpoint_name(manifest.checkpoint))
        view = self._around.checker.view
        if self._keeper is not None and view is not None:
            self._tending = self._keeper.completed(view.positions) or self._tending
        self.coordinator.manifest_durable(manifest.checkpoint, self._around.trace.now)
