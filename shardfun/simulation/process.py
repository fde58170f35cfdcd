"""A simulated shard process: drives a real ``ShardCore`` as the real driver does, but in steps that the world picks one by one.

Each method that the world picks does one thing and tells whether there was anything to do. Between any two of them another process
may act, or this one may die.

A little long, like the real driver, whose steps it has one for one.
"""

from __future__ import annotations

from typing import Any, assert_never

from shardfun.core.cell_keys import stored_addresses
from shardfun.core.effects import ApplyDelta, DeleteDelta, SendControl, StartCall, WriteDelta
from shardfun.core.participant import ShardIdentity
from shardfun.core.shard import ShardCore, StartPoint
from shardfun.core.snapshot import EMPTY_QUEUES, decode_queues
from shardfun.errors import FunctionRestartError
from shardfun.model.control import (
    Abort,
    Assign,
    Changed,
    Complete,
    Finish,
    Letters,
    ListIds,
    LookAt,
    Loss,
    Ready,
    Reset,
    Start,
    ToSupervisor,
    Trigger,
    decode_to_shard,
    encode_control,
)
from shardfun.model.delta import StoredDelta, checkpoint_name
from shardfun.simulation.channels import Channels
from shardfun.simulation.crumbs import ProcessCrumbs
from shardfun.simulation.disk import JOB
from shardfun.simulation.doors import Doors
from shardfun.simulation.execution import Execution
from shardfun.simulation.file_store import AnyStore, FileStore
from shardfun.simulation.looks import Looks
from shardfun.simulation.network import Late
from shardfun.simulation.storage import Job, StorageThread
from shardfun.simulation.surroundings import Surroundings
from shardfun.simulation.truth import cells_now, records_in_memory
from shardfun.simulation.violation import wrong

ANYTHING = -1
LOOP_S = 0.001  # said to be the share of the loop that a checkpoint took


class ShardProcess:
    """See the module.

    Args:
        store: the shard's disk; outlives the process.
    """

    def __init__(self, around: Surroundings, shard: int, store: AnyStore) -> None:
        self.shard = shard
        self.name = f"shard {shard}"
        self.core: ShardCore | None = None
        self.running = False
        self.exited = False
        """In order, after ``Finish``."""
        self.asleep_until = 0.0
        """Until then the loop does nothing; virtual seconds."""
        self.silent_since: float | None = None
        """When it was stopped: it gives no sign of life."""
        self.awake = ANYTHING
        """A bit for each kind of work that may have something to do (see ``world``)."""
        self.disk_until: float | None = None
        """When the disk will have done what it is doing."""
        self._disk_begins = False
        self._around = around
        self._store = store
        self.crumbs = ProcessCrumbs(around, shard)
        self._storage = StorageThread(store)
        self._identity = ShardIdentity(JOB, shard, around.options.shards)
        self._previous: ShardCore | None = None
        self._reset: Reset | None = None
        self._channels = Channels(around, shard, self.send_control)
        self._doors = Doors(around, shard)
        self._reported_cut = -1
        self._urgent_cut = -1
        self._finishing = False
        self._ready = False
        self._looks = Looks(
            store,
            lambda run, done: self._storage.submit(Job("read", run, done)),
            self.send_control,
            lambda: around.clock.now_s,
            around.checker.queries,
        )
        self._execution = Execution(around, shard, store, self._restart, self._perform)

    def note(self, event: str, detail: str = "") -> None:
        """Write down an event of this process."""
        self._around.note(self.name, event, detail)

    @property
    def running_core(self) -> ShardCore | None:
        """The core, if the world runs here."""
        return self.core if self.running else None

    # ---- control --------------------------------------------------------------------------------------------------------
    def take_control(self) -> bool:
        """Handle the next message of the supervisor."""
        inbox = self._around.controls.to_shard[self.shard]
        if not inbox:
            return False
        self.handle(inbox.popleft())
        return True

    def handle(self, raw: bytes) -> None:
        """Handle one control message."""
        message = decode_to_shard(raw)
        match message:
            case Reset():
                self._begin_reset(message)
            case Start():
                self._start(message)
            case Trigger() | Abort() | Complete():
                if self.running_core is not None:
                    self._checkpoint_message(message)
            case Finish():
                if self.running_core is not None and message.incarnation == self.running_core.incarnation:
                    self._finishing = True
                    self.note("finish")
            case Letters() | LookAt() | ListIds():
                self._question(message)
            case Assign():
                raise AssertionError("simulated processes are assigned when they are made")
            case _:
                assert_never(message)

    def _question(self, message: Letters | LookAt | ListIds) -> None:
        """Without an answer, if it is for another incarnation: who asks begins again."""
        core = self.running_core
        if core is None or self._finishing or message.incarnation != core.incarnation:
            return
        if isinstance(message, Letters):
            self.note("letters", message.action)
            self._looks.letters(core, message)
            self._perform()
        else:
            self._looks.look(core, message)

    def _checkpoint_message(self, message: Trigger | Abort | Complete) -> None:
        core = self.core
        assert core is not None
        self.note(type(message).__name__.lower(), f"{checkpoint_name(message.checkpoint)} in {message.incarnation}")
        stale = message.incarnation != core.incarnation
        before = self._observable(core) if stale or isinstance(message, Abort) else None
        cut = core.participant.cut
        core.on_control(message)
        if before is not None and self._observable(core) != before:
            wrong(f"{self.name}: {message} changed what can be observed")
        if stale and core.participant.cut != cut:
            wrong(f"{self.name}: {message} of another incarnation made a cut")
        self._after_event(cut)

    def _after_event(self, cut_before: int) -> None:
        """A cut may have been made: write down the truth before anything else happens."""
        core = self.core
        assert core is not None
        cut = core.participant.cut
        if cut != cut_before:
            empty = core.undecided != cut
            if not empty:
                self._around.checker.cut(core)
            self.note("cut", checkpoint_name(cut) + (" empty" if empty else f" at {core.dispatcher.invocations}"))
        self._perform()

    def send_control(self, message: ToSupervisor) -> None:
        """To the supervisor; some messages arrive once more, later."""
        raw = encode_control(message)
        self._around.controls.to_supervisor[self.shard].append(raw)
        if self._around.faults.arrives_again:
            self._around.controls.late.append(Late(to_shard=False, shard=self.shard, raw=raw))

    def report_changed(self) -> bool:
        """Tell the supervisor, once per cut, that a checkpoint would have something to keep."""
        core = self.running_core
        if core is None:
            return False
        cut = core.participant.cut
        urgent = core.table.dirty_bytes >= core.limits.dirty_soft_bytes
        if (not core.changed or self._reported_cut == cut) and (not urgent or self._urgent_cut == cut):
            return False
        self._reported_cut = cut
        if urgent:
            self._urgent_cut = cut
        self.send_control(Changed(core.incarnation, urgent))
        return True

    # ---- incarnations ---------------------------------------------------------------------------------------------------
    def _begin_reset(self, message: Reset) -> None:
        if self._reset is not None and message.incarnation <= self._reset.incarnation:
            return
        self.note("reset", f"to {checkpoint_name(message.complete)} in {message.incarnation}")
        self._reset = message
        self._previous = self.core or self._previous
        self._execution.reset()
        self.core = None
        self.running = self._finishing = False
        self._submit("recover", lambda: self._recover(message), self._recovered, message)

    def _recover(self, message: Reset) -> StoredDelta | None:
        """Only one process may have the store of a shard open: what served it before is dead and reaped."""
        if self._around.holders.setdefault(self.shard, self) is not self:
            wrong(f"{self.name}: its store is opened while another process that serves it lives")
        return self._store.recover(message.complete, message.digest)

    def _recovered(self, message: Reset, delta: StoredDelta | None) -> None:
        if message is not self._reset:
            return
        around = self._around
        queues = EMPTY_QUEUES if delta is None else decode_queues(delta.queues)
        start = StartPoint(message.incarnation, message.complete, message.digest, queues)
        core = ShardCore(
            self._identity,
            start,
            around.program,
            around.options.limits,
            self._store,
            self._previous,
            breadcrumb=self.crumbs.breadcrumb(message),
        )
        around.checker.restored(core, self._store, queues)
        if self._previous is not None:
            self._previous.retire()
        self.core = core
        self._previous = None
        self._reported_cut = self._urgent_cut = -1
        self._doors.attach(core)
        self._ready = False
        self._become_ready(core)

    def open_sinks(self) -> bool:
        """A step of opening the sinks, behind which the process is ready."""
        core = self.core
        if core is None or self._ready:
            return False
        worked = self._doors.open_step(core)
        self._become_ready(core)
        return worked

    def _become_ready(self, core: ShardCore) -> None:
        if self._doors.opening:
            return
        self._ready = True
        self._channels.attach()
        self.send_control(Ready(core.incarnation, {}, []))
        self.note("ready", f"in {core.incarnation} with {core.dispatcher.waiting} messages")

    def _start(self, message: Start) -> None:
        if self.core is None or self.core.incarnation != message.incarnation or self.running:
            return
        self.running = True
        self.note("started", f"in {message.incarnation}")

    # ---- channels -------------------------------------------------------------------------------------------------------
    def receive(self) -> bool:
        """Take a frame from one of the channels that have some."""
        core = self.running_core
        if core is None:
            return False
        cut = core.participant.cut
        if not self._channels.receive(core):
            return False
        self._after_event(cut)
        return True

    def send(self) -> bool:
        """Put the next frame into one of the channels that have room, if there is a full one, or a barrier or credit."""
        core = self.running_core
        return core is not None and self._channels.send(core, flush=False)

    def flush(self) -> bool:
        """The same, and a frame need not be full."""
        core = self.running_core
        return core is not None and self._channels.send(core, flush=True)

    def lose(self, peer: int) -> None:
        """The connection to a peer is gone."""
        if self.core is not None:
            self._channels.report_loss(self.core, peer, "the connection is gone")

    # ---- work -----------------------------------------------------------------------------------------------------------
    def fill(self) -> bool:
        """Move received frames into the mailboxes."""
        core = self.running_core
        if core is None or not any(link.inbox for link in core.links):
            return False
        before = [[cut for cut, _ in link.inbox] for link in core.links]
        if not core.fill_mailboxes():
            return False
        for link, cuts in zip(core.links, before, strict=True):
            if any(cut > core.participant.cut for cut in cuts[: len(cuts) - len(link.inbox)]):
                wrong(f"{self.name} executes a frame from behind a cut of {link.peer} that it has not made")
        return True

    def execute(self) -> bool:
        """Run some messages."""
        core = self.running_core
        return core is not None and core.may_execute and self._execution.execute(core)

    def pass_time(self) -> bool:
        """Do what is due: timers, further attempts, expiry."""
        core = self.running_core
        return core is not None and self._execution.pass_time(core)

    def call_step(self) -> bool:
        """A call goes on."""
        return self.running_core is not None and self._execution.call_step()

    def call_result(self) -> bool:
        """The loop hears of the end of a call."""
        core = self.running_core
        return core is not None and self._execution.call_result(core)

    def _restart(self, core: ShardCore, error: FunctionRestartError) -> None:
        """A function wants the world to fall back to the last checkpoint."""
        self.running = False
        self.send_control(Loss(core.incarnation, -1, str(error)))
        self.note("restart", str(error))

    def forget(self) -> bool:
        """Drop records that nobody uses."""
        core = self.running_core
        return core is not None and core.sweep()

    def checkpoint(self) -> bool:
        """One piece of checkpoint work."""
        core = self.running_core
        if core is None or not core.undecided:
            return False
        phase = core.participant.phase
        more = core.checkpoint_work()
        if more or core.participant.phase is not phase:
            self.note("encoded", core.participant.phase.name)
        self._perform()
        return more or core.participant.phase is not phase

    # ---- doors ----------------------------------------------------------------------------------------------------------
    def ingest(self) -> bool:
        """Read a batch from one of the ingresses, while there is room."""
        core = self.running_core
        return core is not None and self._doors.read(core)

    def publish(self) -> bool:
        """A step of one of the publishers; after ``Finish``, the process ends when they have nothing left."""
        core = self.running_core
        if core is None:
            return False
        if self._doors.publish(core):
            return True
        if not self._finishing or not self._doors.drained(core):
            return False
        self.exited = True
        self._store.close()
        self._let_go()
        self.note("exit")
        return True

    # ---- storage --------------------------------------------------------------------------------------------------------
    def store_step(self) -> bool:
        """The disk works."""
        kind = self._storage.next_kind
        if kind is None:
            return False
        if isinstance(self._store, FileStore):
            if not self._disk_is_done():
                return self._disk_begins
            if self._around.faults.power_fails(kind):
                return True
            done = self._storage.work(self._around.faults.trouble(kind))
        else:
            if kind == "write":
                self._around.faults.before_write(self._store)
            elif kind in {"apply", "recover"}:
                self._around.faults.before_apply(self._store)
            done = self._storage.work()
        events = {"write": "delta written", "apply": "applied", "recover": "recovered"}
        self.note(events.get(kind, kind) if done == kind else str(done))
        return True

    def _disk_is_done(self) -> bool:
        """Whether a slow disk has had its time for the next job."""
        now = self._around.trace.now
        self._disk_begins = self.disk_until is None
        if self.disk_until is None:
            self.disk_until = now + self._around.faults.slow_s
        if now < self.disk_until:
            return False
        self.disk_until = None
        return True

    def store_result(self) -> bool:
        """The loop hears of what the disk did."""
        return self._storage.report() is not None

    def _perform(self) -> None:
        core = self.core
        assert core is not None
        for effect in core.take_effects():
            match effect:
                case SendControl(message):
                    self.send_control(message)
                    self.note(type(message).__name__.lower(), checkpoint_name(getattr(message, "checkpoint", 0)))
                case WriteDelta(header, blocks, queues):
                    write = lambda h=header, b=blocks, q=queues: self._store.write_delta(h, b, q)  # noqa: E731
                    self._submit("write", write, self._written, (core, header.checkpoint))
                case DeleteDelta(checkpoint):
                    self._submit("delete", lambda n=checkpoint: self._store.delete_delta(n), self._ignored, None)
                case ApplyDelta(checkpoint, blocks, end):
                    apply = lambda n=checkpoint, b=blocks, e=end: self._apply(n, b, e)  # noqa: E731
                    self._submit("apply", apply, self._applied, (core, checkpoint))
                    self._submit("maintain", self._store.maintain, self._ignored, None)
                case StartCall():
                    self._execution.start_call(effect)
                case _:
                    assert_never(effect)

    def _submit(self, kind: str, run: Any, done: Any, about: Any) -> None:
        self._storage.submit(Job(kind, run, lambda result: done(about, result)))

    def _ignored(self, _about: Any, _result: Any) -> None:
        """Nobody waits for this job."""

    def _written(self, about: tuple[ShardCore, int], result: Any) -> None:
        core, checkpoint = about
        if core is not self.core:
            return
        if isinstance(result, Exception):
            core.delta_failed(checkpoint, str(result))
        else:
            core.delta_written(checkpoint, result, LOOP_S)
        self._perform()

    def _apply(self, checkpoint: int, blocks: Any, end: bool) -> dict[str, list[str]]:  # noqa: FBT001 - an effect's own field
        self._around.checker.applies(self.shard, checkpoint, self._around.disk.newest_durable)
        self._store.apply_delta(checkpoint, blocks)
        return stored_addresses(key for key, _ in self._store.scan()) if end else {}

    def _applied(self, about: tuple[ShardCore, int], stored: dict[str, list[str]]) -> None:
        core, checkpoint = about
        if core is not self.core:
            return
        core.delta_applied(checkpoint, stored)
        self._perform()

    def _observable(self, core: ShardCore) -> tuple[Any, ...]:
        """What functions and peers can tell of a shard."""
        dispatcher = core.dispatcher
        return (
            records_in_memory(core),
            cells_now(core, dict(self._store.scan())),
            core.dispatcher.calls.waiting,
            dispatcher.waiting,
            [dispatcher.outgoing(link.peer) for link in core.links],
            dict(core.positions),
            core.participant.cut,
            {name: log.emitted for name, log in core.egress.items()},
        )

    def _let_go(self) -> None:
        if self._around.holders.get(self.shard) is self:
            del self._around.holders[self.shard]

    # ---- the end --------------------------------------------------------------------------------------------------------
    def kill(self) -> None:
        """The process is gone, whatever it was doing."""
        around = self._around
        self._execution.reset()
        outcome = self._storage.kill(around.chance)
        self._let_go()
        self._doors.kill()
        around.network.process_ended(self.shard, around.chance, around.options.rates.stale)
        around.controls.to_shard[self.shard].clear()
        around.trace.note(self.name, "killed", outcome)
