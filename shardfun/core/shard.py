"""One shard in one incarnation: the parts of the core put together, with the interface that drivers use.

A driver (a real process, or the simulator) brings what happens: frames, control messages, ingress batches, results of the storage.
It asks for work in bounded pieces (``run``, ``fill_mailboxes``, ``checkpoint_work``, ``sweep``), takes frames with ``next_frame``
and what shall be done outside with ``take_effects``. A new incarnation is a new object: nothing of the old one can leak into it,
except records that are as in the store (``previous``).

A little long: it is all that a driver can ask of a shard, most of it in a few lines that hand on to the part whose matter it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from random import Random
from typing import Any, Literal

from shardfun.core import letters
from shardfun.core.careful import CAREFUL_CHECKPOINTS, CAREFUL_CHECKPOINTS_MAX, Breadcrumb
from shardfun.core.cells import Stored
from shardfun.core.dead_letters import describe_error
from shardfun.core.dispatch import Dispatcher, InvocationContext, Router
from shardfun.core.effects import Effect
from shardfun.core.egress import EgressLog
from shardfun.core.expiry import Sweeper
from shardfun.core.frame_maker import FrameMaker
from shardfun.core.function import CompiledFunction
from shardfun.core.function_type import FunctionType
from shardfun.core.limits import Limits
from shardfun.core.link import Link
from shardfun.core.parked import Parked
from shardfun.core.participant import Participant, ShardIdentity
from shardfun.core.records import RecordTable
from shardfun.core.runner import Runner
from shardfun.core.snapshot import Cut, Queues, waiting_messages
from shardfun.core.totals import Totals
from shardfun.errors import BacklogLimitError, ConfigurationError, InvocationError
from shardfun.model.control import Abort, Complete, Trigger
from shardfun.model.delta import DeltaSummary
from shardfun.model.doors import IngressBatch, PublishedPosition
from shardfun.model.frames import Barrier, Data, decode_frame, encode_frame

RETRIES_PER_PIECE = 100


@dataclass(frozen=True, slots=True)
class IngressRoute:
    """How the records of an ingress become messages.

    Args:
        routers: of the application; each gives 0 or more messages ``(typename, id, value)``.
        target: a typename to send each record to instead, at the id that the record's field ``id_field`` holds.
        holds: a run does not end before this ingress does.
    """

    routers: tuple[Router, ...] = ()
    target: str | None = None
    id_field: str | None = None
    holds: bool = True


@dataclass(frozen=True, slots=True)
class Program:
    """What a shard runs: the same in every shard and incarnation.

    Args:
        egresses: name to the encoder of one record.
        context: makes the context that invocations of a dispatcher share.
    """

    functions: Sequence[CompiledFunction]
    runners: Sequence[Runner]
    routes: dict[str, IngressRoute]
    egresses: dict[str, Callable[[Any], bytes]]
    context: Callable[[Dispatcher], InvocationContext]


@dataclass(frozen=True, slots=True)
class StartPoint:
    """Where an incarnation starts: its number, the complete checkpoint to restore, its digest and its queues."""

    incarnation: int
    complete: int
    digest: bytes
    queues: Queues


class ShardCore:
    """See the module.

    Args:
        store: what is stored as of the last applied checkpoint.
        previous: the same shard in an earlier incarnation of this process, whose clean records may be kept.
        chance: the randomness that functions may use; by default the same in every run.
        breadcrumb: begin in careful mode.
    """

    def __init__(
        self,
        identity: ShardIdentity,
        start: StartPoint,
        program: Program,
        limits: Limits,
        store: Stored,
        previous: ShardCore | None = None,
        chance: Random | None = None,
        breadcrumb: Breadcrumb | None = None,
    ) -> None:
        self.identity = identity
        self.incarnation = start.incarnation
        self.limits = limits
        self.program = program
        self.table = RecordTable(list(program.functions), store, limits)
        if previous is not None:
            self.table.adopt(previous.table)
        self.dispatcher: Dispatcher = Dispatcher(
            identity.shard,
            identity.shards,
            self.table,
            program.functions,
            program.runners,
            program.egresses,
            program.context,
            limits,
            chance or Random(identity.shard),  # noqa: S311 - not for secrets
            breadcrumb,
            None if previous is None else previous.dispatcher,
        )
        self.totals: Totals = self.dispatcher.totals
        peers = [peer for peer in range(identity.shards) if peer != identity.shard]
        self.links = [Link(peer, start.incarnation, limits.window_frames, limits.frame_messages) for peer in peers]
        self.link_of = {link.peer: link for link in self.links}
        self._frames = FrameMaker(self.dispatcher, limits)
        self.participant = Participant(identity, start.incarnation, start.complete, start.digest, self, limits.encode_records)
        self.egress: dict[str, EgressLog] = {}
        self.positions: dict[str, Any] = {}
        self.finished: dict[str, bool] = {name: False for name, route in program.routes.items() if route.holds}
        self.records_in = 0
        self.ended = False
        self.notes: list[str] = []
        """What could not be restored, for people."""
        self.changed = True
        """Whether anything has happened since the last cut that a checkpoint would have to keep. True after a recovery."""
        self._restore(start.queues)
        self._filled_at = self.dispatcher.invocations
        self._completed = 0
        self._sweeper = Sweeper(self.dispatcher)

    # ---- restore --------------------------------------------------------------------------------------------------------
    def _restore(self, queues: Queues) -> None:
        """Own mailbox first, then what was on the way to it, channel by channel, then the outboxes."""
        dispatcher = self.dispatcher
        dispatcher.letters.begin_cut(self.participant.cut)
        dispatcher.letters.count = queues.dead_letters
        dispatcher.invocations = queues.invocations
        self.records_in = queues.records_in
        dispatcher.operations.created = queues.operations_created
        dispatcher.operations.restore()
        parked = Parked()
        dispatcher.timers.restore(queues.timers_made, queues.timers_pending, queues.timers_lowest)
        dispatcher.timers.park_gone(dispatcher, parked)
        dispatcher.accept_blocks(queues.mailbox, parked)
        for raw in queues.inbox:
            self._accept_raw(raw, parked)
        for peer in sorted(queues.logs):
            for raw in queues.logs[peer]:
                self._accept_raw(raw, parked)
        for peer in sorted(queues.outboxes):
            for block in queues.outboxes[peer]:
                dispatcher.accept_block(peer, block, parked)
        self.notes = parked.notes()
        if dispatcher.breadcrumb is not None:
            dispatcher.calls.suspect_all()
        self.positions = dict(queues.positions)
        self.ended = queues.ended
        for name in self.program.egresses:
            records, size, pending = queues.egress.get(name, (0, 0, []))
            self.egress[name] = EgressLog(PublishedPosition(records, size), list(pending))

    def _accept_raw(self, raw: bytes, parked: Parked) -> None:
        body = decode_frame(raw).body
        assert type(body) is Data
        self.dispatcher.accept_blocks(body.blocks, parked)

    def retire(self) -> None:
        """Another incarnation has taken over: break the reference cycles, so that the memory is free at once.

        Drivers freeze the garbage collector's view of the heap, after which it would never find them.
        """
        self.participant.retire()
        self._sweeper.retire()
        self.dispatcher.retire()

    # ---- channels -------------------------------------------------------------------------------------------------------
    def hello(self, nonce: str) -> bytes:
        """The first frame to send on every channel."""
        return encode_frame(self.incarnation, 0, 0, ["hello", self.identity.shard, nonce])

    def receive(self, peer: int, raw: bytes) -> None:
        """A frame has arrived. Barriers may cut here and now: call only between two pieces of work.

        Raises:
            ChannelLossError: a frame of this channel is missing.
            ProtocolError: it is no frame.
        """
        frame = decode_frame(raw)
        if not self.accepts(frame.incarnation):
            return
        link = self.link_of[peer]
        body = link.receive(frame)
        if type(body) is Data:
            self.changed = True
            self.participant.on_data(link, frame.cut, body)
        elif type(body) is Barrier:
            self.participant.on_barrier(link, body)

    def accepts(self, incarnation: int) -> bool:
        """Nothing from another incarnation has an effect."""
        return incarnation == self.incarnation

    def next_frame(self, peer: int, *, flush: bool) -> bytes | None:
        """The next frame for a peer: a barrier or credit at once, messages when a frame is full or ``flush`` is set."""
        letters = self.dispatcher.letters.count
        raw = self._frames.next_frame(self.link_of[peer], self.participant.cut, flush=flush)
        if self.dispatcher.letters.count != letters:
            self.changed = True
        return raw

    def fill_mailboxes(self) -> bool:
        """Move received frames into the mailboxes while there is room, a frame from each channel in turn; whether any moved.

        Messages that this shard's functions send to each other for ever may keep the mailboxes full. So that they do not shut out
        the peers, a frame of each is moved anyway after as many messages as the mailboxes are filled up to.
        """
        dispatcher, refill = self.dispatcher, self.limits.mailbox_refill
        room = refill - dispatcher.waiting
        if room <= 0 and dispatcher.invocations - self._filled_at >= refill:
            room = 1
        if room > 0:
            self._filled_at = dispatcher.invocations
        moved = False
        while room > 0:
            before = room
            for link in self.links:
                data = link.take(self.participant.cut)
                if data is not None:
                    dispatcher.accept_blocks(data.blocks)
                    room -= max(1, data.messages)
                    moved = True
            if room == before:
                break
        return moved

    # ---- time -----------------------------------------------------------------------------------------------------------
    def advance(self, now_s: float) -> bool:
        """The wall clock is at ``now_s`` (unix seconds): do some of what is due. Called before each piece of work.

        Returns:
            Whether anything was done; there may be more then.

        Raises:
            FunctionRestartError: a function has failed for good, and its policy is to restart.
        """
        self.dispatcher.now_ms = int(now_s * 1000)
        self.dispatcher.letters.now = now_s
        retried = self.dispatcher.calls.retry(RETRIES_PER_PIECE) > 0
        if retried:
            self.changed = True
            self._collect()
        return self._fire_timers() or retried

    def _fire_timers(self) -> bool:
        timers = self.dispatcher.timers
        before = timers.count
        busy = self.may_execute and timers.fire(self.dispatcher, self._timers_until_ms)
        if timers.count != before:
            self.changed = True
        return busy

    @property
    def _timers_until_ms(self) -> int | None:
        return self.dispatcher.timers.until_ms(self.dispatcher.now_ms, at_end=self.at_end, ended=self.ended)

    @property
    def wake_at_ms(self) -> int | None:
        """When ``advance`` or ``expire`` has something to do: unix milliseconds; ``None``: not before something else happens."""
        times = [self.dispatcher.calls.wake_at_ms]
        if self.may_execute:
            times += [self.dispatcher.timers.wake_at_ms(self.dispatcher, self._timers_until_ms), self._sweeper.wake_at_ms]
        return min((at for at in times if at is not None), default=None)

    def expire(self) -> bool:
        """Look at some of what is stored, if that is due (``wake_at_ms``), and remove what has expired; whether it was due.

        Raises:
            StorageError: the store cannot be read.
        """
        before = self._sweeper.expired
        worked = self.may_execute and self._sweeper.work()
        if self._sweeper.expired != before:
            self.changed = True
        return worked

    def call_done(self, number: int, value: Any, error: BaseException | None) -> None:
        """A call has ended, see ``StartCall``. To be called between two pieces of work.

        Args:
            value: what an operation returned.
            error: what the code raised, or ``FunctionTimeoutError``.

        Raises:
            FunctionRestartError: as above.
        """
        self.changed = True
        self.dispatcher.calls.done(number, value, error)
        self.dispatcher.operations.begin()
        self._collect()

    # ---- execution ------------------------------------------------------------------------------------------------------
    @property
    def may_execute(self) -> bool:
        """False while too many changes wait for a checkpoint to be applied."""
        return self.table.dirty_bytes < self.limits.dirty_hard_bytes

    def run(self, limit: int) -> FunctionType | None:
        """Run up to ``limit`` waiting messages of one function type; that type, ``None`` when nothing waits."""
        target = self.dispatcher.run(limit)
        if target is not None:
            self.changed = True
            self._collect()
        return target

    def _collect(self) -> None:
        if self.table.cells.failure is not None:  # whatever the function made of it
            raise self.table.cells.failure
        if self.dispatcher.operations.fresh:
            self.dispatcher.operations.collect()
        if self.dispatcher.timers.fresh:
            self.dispatcher.timers.collect()
        for buffer in self.dispatcher.egresses.values():
            if buffer.fresh:
                self.egress[buffer.name].add(buffer.fresh)
                buffer.fresh.clear()

    @property
    def backlog(self) -> int:
        """Messages that wait here: mailbox, busy addresses, inboxes, outboxes."""
        outgoing = sum(self.dispatcher.outgoing(link.peer) for link in self.links)
        return (
            self.dispatcher.waiting + self.dispatcher.calls.waiting + outgoing + sum(link.inbox_messages for link in self.links)
        )

    def check_backlog(self, backlog: int) -> None:
        """Raise BacklogLimitError, naming the fullest targets, if ``backlog`` is beyond the hard limit."""
        if backlog <= self.limits.backlog_limit:
            return
        sizes = {target.typename: size for target in self.dispatcher.order if (size := sum(map(len, target.queues)))}
        top = ", ".join(f"{name} ({size})" for name, size in sorted(sizes.items(), key=lambda item: -item[1])[:3])
        msg = f"{backlog} messages wait in shard {self.identity.shard}, more than flow.backlog_limit = {self.limits.backlog_limit}"
        msg += f"; most for: {top or 'frames from peers'}. The application sends more than it can process"
        raise BacklogLimitError(msg)

    @property
    def egress_full(self) -> bool:
        """Whether an egress has so much waiting for its sink that no more ingress records should come in."""
        return any(log.pending_bytes > self.limits.egress_pending_bytes for log in self.egress.values())

    # ---- ingress --------------------------------------------------------------------------------------------------------
    def ingest(self, ingress: str, batch: IngressBatch) -> None:
        """Route a batch of records and move the ingress's position, in one step.

        Raises:
            ConfigurationError: ready columns do not fit the target in the configuration.
        """
        self.changed = True
        read = len(batch.records) + len(batch.ids or ()) + len(batch.rejects)
        self.records_in += read
        self.totals.records[ingress] += read
        dispatcher = self.dispatcher
        route = self.program.routes[ingress]
        records = batch.records
        if batch.ids is not None:
            assert batch.values is not None
            if route.target is not None:
                try:
                    dispatcher.ingest_columns(route.target, batch.ids, batch.values)
                except InvocationError as error:  # all of them are alike, so this is no matter of one record
                    raise ConfigurationError(f"ingress.{ingress}: what it reads does not fit its target: {error}") from error
            else:
                records = [{"id": id, "value": value} for id, value in zip(batch.ids, batch.values, strict=True)]

        def park(number: int, record: Any, error: BaseException) -> None:
            where = f"{batch.place or f'before {batch.position!r:.200}'} (this shard's record {number + 1} of these)"
            reason, trace = describe_error(error, self.limits.traceback_bytes)
            dispatcher.letters.park_ingress(ingress, where, reason, repr(record)[:2000].encode(errors="replace"), trace)

        if records:
            dispatcher.ingest_records(_messages_of(route), records, park)
            dispatcher.route()
        for reject in batch.rejects:
            dispatcher.letters.park_ingress(ingress, reject.position, reject.reason, reject.raw)
        self.positions[ingress] = batch.position

    @property
    def at_end(self) -> bool:
        """Whether all ingresses are bounded and at their end."""
        return bool(self.finished) and all(self.finished.values())

    def ingress_finished(self, ingress: str) -> None:
        """A bounded ingress is at its end."""
        if not self.finished[ingress]:
            self.finished[ingress] = True
            self.changed = True

    # ---- dead letters ---------------------------------------------------------------------------------------------------
    def change_letters(self, action: Literal["replay", "drop"], keys: Sequence[bytes]) -> list[str]:
        """Send dead letters again or delete them; what became of each (see ``core.letters``). Part of the next cut."""
        self.changed = True
        outcomes = letters.replay(self.dispatcher, keys) if action == "replay" else letters.drop(self.dispatcher, keys)
        self._collect()
        return outcomes

    # ---- checkpoints ----------------------------------------------------------------------------------------------------
    def on_control(self, message: Trigger | Abort | Complete) -> None:
        """A checkpoint message of the coordinator; other incarnations are ignored.

        Raises:
            LocalProtocolError: it does not fit what this shard has done.
        """
        if not self.accepts(message.incarnation):
            return
        match message:
            case Trigger(_, checkpoint):
                self.participant.on_trigger(checkpoint)
            case Abort(_, checkpoint):
                self.participant.on_abort(checkpoint)
                self.changed = True
            case Complete(_, checkpoint, end):
                self.participant.on_complete(checkpoint, end=end)

    def take_cut(self, checkpoint: int) -> Cut:
        """Everything that waits, by reference. Part of the cut: no message runs in between."""
        dispatcher = self.dispatcher
        assert not dispatcher.effects, "a cut inside an invocation"
        dispatcher.letters.begin_cut(checkpoint)
        dispatcher.timers.cut()
        self.changed = False
        return Cut(
            checkpoint=checkpoint,
            mailbox=waiting_messages(dispatcher, self.identity.shard),
            outboxes={link.peer: waiting_messages(dispatcher, link.peer) for link in self.links},
            inbox=[data.raw for link in self.links for _, data in link.inbox],
            positions=dict(self.positions),
            egress={name: log.snapshot() for name, log in self.egress.items()},
            emitted={name: log.emitted for name, log in self.egress.items()},
            at_end=self.at_end,
            ended=self.ended,
            dead_letters=dispatcher.letters.count,
            records_in=self.records_in,
            invocations=dispatcher.invocations,
            operations_created=dispatcher.operations.created,
            operations_pending=dispatcher.operations.pending,
            timers_made=dispatcher.timers.made,
            timers_pending=dict(dispatcher.timers.pending),
            timers_lowest=dispatcher.timers.lowest,
            timers_awaited=dispatcher.timers.awaited,
            suspects=dispatcher.calls.suspects > 0 or self._waits_for_poison,
            parked=[] if dispatcher.breadcrumb is None else list(dispatcher.breadcrumb.parked),
        )

    @property
    def _waits_for_poison(self) -> bool:
        breadcrumb = self.dispatcher.breadcrumb
        return breadcrumb is not None and breadcrumb.waits_for_poison and self._completed < CAREFUL_CHECKPOINTS_MAX

    def committed(self, cut: Cut) -> None:
        """The cut's checkpoint is complete."""
        self._completed += 1
        if self._completed >= CAREFUL_CHECKPOINTS and not cut.suspects:
            self.dispatcher.end_careful_mode()
        for name, emitted in cut.emitted.items():
            self.egress[name].commit(emitted)

    def checkpoint_work(self) -> bool:
        """One bounded piece of encoding; whether another may follow now."""
        return self.participant.work()

    def delta_written(self, checkpoint: int, summary: DeltaSummary, loop_s: float) -> None:
        """See ``WriteDelta``. ``loop_s``: seconds of the loop that this checkpoint took here."""
        self.participant.on_delta_written(checkpoint, summary, loop_s)

    def delta_failed(self, checkpoint: int, reason: str) -> None:
        """See ``WriteDelta``."""
        self.participant.on_delta_failed(checkpoint, reason)

    def delta_applied(self, checkpoint: int, stored: dict[str, list[str]]) -> None:
        """See ``ApplyDelta``. ``stored``: with ``end``, the ids that have state now, by typename."""
        end = self.participant.on_delta_applied(checkpoint)
        self.dispatcher.timers.applied()
        if not end or self.ended:
            return
        self.ended = self.changed = True
        for typename, ids in stored.items():
            self.dispatcher.send_end(typename, ids)

    def published(self, egress: str, count: int) -> None:
        """The sink of an egress has its next ``count`` records durably."""
        self.totals.published[egress] += count
        self.found_published(egress, count)

    def found_published(self, egress: str, count: int) -> None:
        """The same of records that it had already before this incarnation."""
        self.egress[egress].note_published(count)
        self.changed = True

    @property
    def undecided(self) -> int:
        """The checkpoint in work here; 0 if there is none."""
        return self.participant.undecided

    def sweep(self) -> bool:
        """Forget some records that nobody has used for long; whether there is more to do."""
        return self.table.sweep()

    def take_effects(self) -> list[Effect]:
        """What the driver shall do, in order; each effect is given out once."""
        effects, self.participant.effects = self.participant.effects, []
        calls = self.dispatcher.calls
        if calls.effects:
            effects += calls.effects
            calls.effects = []
        return effects


def _messages_of(route: IngressRoute) -> Router:
    """Gives the messages of one record, as ``(typename, id, value)``."""
    if route.target is not None:
        return lambda record: ((route.target, str(record[route.id_field]), record),)
    if len(route.routers) == 1:
        return route.routers[0]
    return lambda record: chain.from_iterable(router(record) for router in route.routers)
