"""A shard of a local node: a real ``ShardCore`` over a store in memory, driven in small steps that the node picks.

Each step does one thing and tells whether there was anything to do. Between any two of them another shard may act, or this one
may fall back to a checkpoint.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

from shardfun.core.cell_keys import stored_addresses
from shardfun.core.effects import ApplyDelta, DeleteDelta, SendControl, StartCall, WriteDelta
from shardfun.core.limits import Limits
from shardfun.core.participant import ShardIdentity
from shardfun.core.shard import Program, ShardCore, StartPoint
from shardfun.core.snapshot import EMPTY_QUEUES, decode_queues
from shardfun.errors import StorageError
from shardfun.model.control import Abort, Changed, Complete, Ready, Reset, Start, ToShard, ToSupervisor, Trigger
from shardfun.model.delta import RecordBlock, checkpoint_name
from shardfun.state.memory import MemoryStore
from shardfun.testing.calls import LocalCalls
from shardfun.testing.inputs import Inputs
from shardfun.testing.outputs import Outputs
from shardfun.testing.program import Encoder, open_egresses
from shardfun.testing.trace import Trace

JOB = "7e57" * 8
READ_MAX = 8  # records in one step
RUN_MAX = 16  # messages in one step
QUARTER_MS = 0.25  # a time in the middle of its millisecond stays in it, however it is rounded


@dataclass(slots=True)
class Surroundings:
    """What the shards of a node share.

    Args:
        frames: by sender and receiver.
        open_egresses: any name is an egress.
        started_ms: when the node's time began; ``now_ms`` is now. Unix milliseconds.
    """

    program: Program
    limits: Limits
    chance: random.Random
    trace: Trace
    inputs: Inputs
    outputs: Outputs
    calls: LocalCalls
    frames: dict[tuple[int, int], deque[bytes]]
    open_egresses: bool
    encode: Encoder | None
    seed: int
    started_ms: int
    now_ms: int

    @property
    def now_s(self) -> float:
        """Unix seconds."""
        return (self.now_ms + QUARTER_MS) / 1000

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start of the node."""
        return (self.now_ms - self.started_ms) / 1000


class LocalShard:
    """See the module.

    Args:
        report: tells the supervisor.
    """

    def __init__(self, around: Surroundings, shard: int, shards: int, report: Callable[[int, ToSupervisor], None]) -> None:
        self.shard = shard
        self.store = MemoryStore(job=JOB, shard=shard, shards=shards, keep_objects=True)
        self.controls: deque[ToShard] = deque()
        """What the supervisor has sent."""
        self.running = False
        self._around = around
        self._identity = ShardIdentity(JOB, shard, shards)
        self._report = report
        self._core: ShardCore | None = None
        self._previous: ShardCore | None = None
        self._jobs: deque[Callable[[], Callable[[], None]]] = deque()
        self._reported_cut = -1
        self.steps: Sequence[Callable[[], bool]] = (
            self.take_control,
            self._receive,
            self._fill,
            self._be_on_time,
            self._execute,
            self._read,
            self._send,
            self._checkpoint,
            self._store_step,
            self._run_blocking,
            self._hear_of_call,
        )

    @property
    def core(self) -> ShardCore:
        """The core of the present incarnation."""
        assert self._core is not None
        return self._core

    def _note(self, event: str) -> None:
        self._around.trace.note(f"{self._around.now_ms} shard {self.shard} {event}")

    # ---- control --------------------------------------------------------------------------------------------------------
    def take_control(self) -> bool:
        """Handle the next message of the supervisor."""
        if not self.controls:
            return False
        message = self.controls.popleft()
        match message:
            case Reset():
                self._reset(message)
            case Start():
                self.running = True
            case Trigger() | Abort() | Complete():
                if self.running:
                    self._note(f"{type(message).__name__.lower()} {checkpoint_name(message.checkpoint)}")
                    self.core.on_control(message)
                    self._perform()
            case _:  # Assign and Finish are for processes
                pass
        return True

    def _reset(self, message: Reset) -> None:
        around = self._around
        self.running = False
        self._jobs.clear()
        around.calls.reset(self.shard)
        previous = self._previous if self._core is None else self._core
        delta = self.store.recover(message.complete, message.digest)
        queues = EMPTY_QUEUES if delta is None else decode_queues(delta.queues)
        core = ShardCore(
            self._identity,
            StartPoint(message.incarnation, message.complete, message.digest, queues),
            around.program,
            around.limits,
            self.store,
            previous,
            random.Random(f"{around.seed} {self.shard} {message.incarnation}"),  # noqa: S311 - a seed is the point
        )
        if previous is not None:
            previous.retire()
        self._core, self._previous = core, None
        if around.open_egresses:
            open_egresses(core, around.encode)
        core.advance(around.now_s)
        around.outputs.restored(core)
        self._reported_cut = -1
        self._announce_end()
        self._note(f"ready in {message.incarnation} at {checkpoint_name(message.complete)}, {core.dispatcher.waiting} waiting")
        self._report(self.shard, Ready(message.incarnation, {}, []))

    def report_changed(self) -> None:
        """Tell the supervisor, once per cut, that a checkpoint would have something to keep."""
        core = self.core
        cut = core.participant.cut
        if core.changed and self._reported_cut != cut:
            self._reported_cut = cut
            urgent = core.table.dirty_bytes >= core.limits.dirty_soft_bytes
            self._report(self.shard, Changed(core.incarnation, urgent))

    # ---- channels -------------------------------------------------------------------------------------------------------
    def _receive(self) -> bool:
        frames = self._around.frames
        waiting = [link.peer for link in self.core.links if frames[link.peer, self.shard]]
        if not waiting:
            return False
        peer = self._around.chance.choice(waiting)
        raw = frames[peer, self.shard].popleft()
        self.core.receive(peer, raw)
        self._note(f"received {len(raw)} bytes from {peer}")
        self._perform()
        return True

    def _fill(self) -> bool:
        return self.core.fill_mailboxes()

    def _send(self) -> bool:
        for link in self.core.links:
            raw = self.core.next_frame(link.peer, flush=True)
            if raw is not None:
                self._around.frames[self.shard, link.peer].append(raw)
                return True
        return False

    # ---- work -----------------------------------------------------------------------------------------------------------
    def _be_on_time(self) -> bool:
        due = self.core.wake_at_ms
        if due is None or due > self._around.now_ms:
            return False
        busy = self.core.advance(self._around.now_s)
        self._collect()
        if busy:
            self._note("was on time")
        return self.core.expire() or busy

    def _execute(self) -> bool:
        core = self.core
        if not core.may_execute:
            return False
        before = core.dispatcher.invocations
        busy = core.advance(self._around.now_s)
        target = core.run(self._around.chance.randint(1, RUN_MAX))
        if target is None:
            self._collect()
            return busy
        self._note(f"ran {core.dispatcher.invocations - before} of {target.typename}")
        self._collect()
        core.check_backlog(core.backlog)
        core.sweep()
        return True

    def _collect(self) -> None:
        found = self._around.outputs.collect(self.core)
        if found:
            self._note(f"emitted {found}")
        self._perform()

    def _hear_of_call(self) -> bool:
        results = self._around.calls.results[self.shard]
        if not results:
            return False
        self.core.advance(self._around.now_s)
        results.popleft()()
        self._collect()
        return True

    def _run_blocking(self) -> bool:
        return self._around.calls.run_blocking(self.shard)

    # ---- doors ----------------------------------------------------------------------------------------------------------
    def _read(self) -> bool:
        core, inputs = self.core, self._around.inputs
        for name, position in ((name, core.positions.get(name)) for name in core.finished):
            unread = inputs.unread(name, self.shard, position)
            if unread:
                count = self._around.chance.randint(1, min(READ_MAX, unread))
                core.advance(self._around.now_s)
                core.ingest(name, inputs.batch(name, self.shard, position, count))
                self._note(f"read {count} of {name}")
                return True
        return self._announce_end()

    def _announce_end(self) -> bool:
        core, inputs = self.core, self._around.inputs
        if not inputs.ended or all(core.finished.values()):
            return False
        if any(inputs.unread(name, self.shard, core.positions.get(name)) for name in core.finished):
            return False
        for name in core.finished:
            core.ingress_finished(name)
        return True

    def publish(self) -> bool:
        """The sinks take what may go out."""
        return self._around.outputs.publish(self.core)

    # ---- storage --------------------------------------------------------------------------------------------------------
    def _checkpoint(self) -> bool:
        core = self.core
        if not core.undecided:
            return False
        phase = core.participant.phase
        more = core.checkpoint_work()
        self._perform()
        return more or core.participant.phase is not phase

    def _store_step(self) -> bool:
        if not self._jobs:
            return False
        self._jobs.popleft()()()
        self._perform()
        return True

    def _perform(self) -> None:
        core = self.core
        for effect in core.take_effects():
            match effect:
                case SendControl(message):
                    self._note(f"{type(message).__name__.lower()} {checkpoint_name(getattr(message, 'checkpoint', 0))}")
                    self._report(self.shard, message)
                case WriteDelta():
                    self._jobs.append(lambda effect=effect: self._write(core, effect))  # type: ignore[misc]
                case DeleteDelta(checkpoint):
                    self._jobs.append(lambda number=checkpoint: self._delete(number))  # type: ignore[misc]
                case ApplyDelta(checkpoint, blocks, end):
                    self._jobs.append(lambda n=checkpoint, b=blocks, e=end: self._apply(core, n, b, e))  # type: ignore[misc]
                case StartCall():
                    self._note(f"began a call of {effect.what}")
                    self._around.calls.start(self.shard, effect, core.call_done)
                case _:
                    assert_never(effect)

    def _write(self, core: ShardCore, effect: WriteDelta) -> Callable[[], None]:
        checkpoint = effect.header.checkpoint
        try:
            summary = self.store.write_delta(effect.header, effect.blocks, effect.queues)
        except StorageError as error:
            reason = str(error)
            return lambda: core.delta_failed(checkpoint, reason)
        return lambda: core.delta_written(checkpoint, summary, 0.0)

    def _delete(self, checkpoint: int) -> Callable[[], None]:
        self.store.delete_delta(checkpoint)
        return lambda: None

    def _apply(self, core: ShardCore, checkpoint: int, blocks: list[RecordBlock], end: bool) -> Callable[[], None]:  # noqa: FBT001 - an effect's own field
        self.store.apply_delta(checkpoint, blocks)
        stored = stored_addresses(key for key, _ in self.store.scan()) if end else {}
        self.store.maintain()
        return lambda: core.delta_applied(checkpoint, stored)

    # ---- the end --------------------------------------------------------------------------------------------------------
    def kill(self) -> None:
        """The process dies. Its disk may have done one thing more of which nobody has heard."""
        if self._jobs and self._around.chance.random() < 0.5:
            self._jobs[0]()
        self._jobs.clear()
        self.controls.clear()
        self.running = False
        self._around.calls.reset(self.shard)
        self.store.crash()
        if self._core is not None:
            self._core.retire()
            self._core = None
        self._note("died")

    def close(self) -> None:
        """The node is closed."""
        self.store.close()
