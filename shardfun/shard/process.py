"""A shard process from start to end: warm, assigned, then one incarnation after the other.

Every shard process begins as a spare: it imports the application and waits. ``Assign`` makes it a shard; ``Reset`` starts an
incarnation by restoring a complete checkpoint; ``Start`` connects it and lets it run. All state of an incarnation is in objects
that are made anew, and results of jobs of an older one find that theirs is no longer the current core.

A little long: the order of a process's life is read best in one place.
"""

from __future__ import annotations

import select
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any, assert_never

import msgspec
import structlog
import trio

from shardfun.config.schema import Config
from shardfun.core.careful import Breadcrumb
from shardfun.core.effects import ApplyDelta, DeleteDelta, SendControl, StartCall, WriteDelta
from shardfun.core.participant import ShardIdentity
from shardfun.core.shard import ShardCore, StartPoint
from shardfun.errors import (
    ChannelLossError,
    CorruptionError,
    FunctionRestartError,
    LocalProtocolError,
    ProtocolError,
    ShardfunError,
    StorageError,
)
from shardfun.failpoints import ON, Point, reached
from shardfun.ingress.feed import Host
from shardfun.intake.bells import Bell
from shardfun.mesh.fabric import Endpoint, Fabric
from shardfun.model.control import (
    Abort,
    Assign,
    Changed,
    Complete,
    Fatal,
    Finish,
    Heartbeat,
    Letters,
    LettersDone,
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
from shardfun.model.exits import EXIT_THREADS_STUCK
from shardfun.model.keyspace import owner_of, slot_range
from shardfun.ports import EgressSink, FrameChannel, IngressReader, Partition
from shardfun.shard.calls import Calls
from shardfun.shard.crumbs import open_crumbs
from shardfun.shard.doors import Egress, Ingress
from shardfun.shard.heartbeat import LongRuns, figures_of, resident_bytes
from shardfun.shard.intake import INTERNAL_EGRESSES, internal_readers, internal_sinks
from shardfun.shard.loop import HotLoop, Spent
from shardfun.shard.machine import Machine
from shardfun.shard.news import News
from shardfun.shard.program import Application, limits_of
from shardfun.shard.queries import Queries
from shardfun.shard.storage import Place, Storage
from shardfun.shard.watched import WatchedCore
from shardfun.shard.worker import Completions, Failed, Worker
from shardfun.state.options import StoreOptions
from shardfun.telemetry.logs import open_log_context

FREEZE_EVERY_BYTES = 64 << 20
LAST_FIGURES_S = 0.03  # nng sends in the background; the last figures should arrive before the process is gone
STUCK_WAIT_S = 30.0  # for a checkpoint, before a process without free threads is replaced
AWAY_BEATS = 3  # heartbeats after which a loop that was not seen is held up
LAST_WORDS_S = 5.0  # time for a fatal message to arrive; the supervisor ends the process when it has it

log = structlog.get_logger("shardfun.shard")


class ShardProcess:
    """See the module.

    Args:
        control: the channel to the supervisor, connected.
        endpoint: where channels to peers listen.
        machine: it runs on; by default the real one.
    """

    def __init__(
        self,
        application: Application,
        control: FrameChannel,
        endpoint: Endpoint,
        machine: Machine | None = None,
    ) -> None:
        machine = Machine() if machine is None else machine
        self._machine = machine
        self._monotonic = machine.clock.monotonic
        self._application = application
        self._config: Config = application.config
        self._limits = limits_of(application.config)
        self._control = control
        self._control_out: deque[bytes] = deque()
        self._endpoint = endpoint
        self._completions = Completions()
        self._storage_worker = Worker(self._completions, machine.run_in_thread)
        self._storage = Storage(
            self._storage_worker,
            StoreOptions(write_buffer_bytes=self._config.state.write_buffer_bytes),
            application.types_with_end,
        )
        self._queries = Queries(self._storage, self.send, machine.clock.wall)
        self._publishing = {
            name: Worker(self._completions, machine.run_in_thread) for name in (*self._config.egress, *INTERNAL_EGRESSES)
        }
        self._calls = Calls(self._completions, self._config.calls.threads, machine.run_abandonable)
        self._epoll = select.epoll()
        self._epoll.register(control.receive_fd, select.EPOLLIN)
        self._epoll.register(self._completions.fd, select.EPOLLIN)
        self._nursery: trio.Nursery | None = None
        self._place: Place | None = None
        self._bell: Bell | None = None
        self._readers: dict[str, IngressReader] = {}
        self._ingress: Ingress | None = None
        self._sinks: dict[str, EgressSink] = {}
        self._egress: Egress | None = None
        self._reset: Reset | None = None
        self._core: ShardCore | None = None
        self._fabric: Fabric | None = None
        self._loop: HotLoop | None = None
        self._spent = Spent()
        self._running = False
        self._finishing = False
        self._done = False
        self._news = News()
        self._frozen_at_bytes = 0
        self._stuck_since: tuple[float, int] | None = None
        self._seen_at = self._monotonic()
        self._long_runs = LongRuns()
        self._context = open_log_context()

    # ---- the task -------------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Until told to finish.

        Raises:
            LocalProtocolError, AssertionError: a bug; the process has to go, recovery brings the shard back.
        """
        self._machine.tune()
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._storage_worker.run)
            for worker in self._publishing.values():
                nursery.start_soon(worker.run)
            asyncio = self._application.needs_asyncio
            await nursery.start(lambda task_status: self._calls.run(asyncio=asyncio, task_status=task_status))
            try:
                while not self._done:
                    if self._iterate():
                        await trio.lowlevel.checkpoint()
                    else:
                        await self._park()
            finally:
                self._storage.give_up()
                for reader in self._readers.values():
                    reader.close()
                if self._bell is not None:
                    self._bell.close()
            self.send(self.sample())
            await trio.sleep(LAST_FIGURES_S)
            nursery.cancel_scope.cancel()
        if self._egress is not None:
            self._egress.close()
        self._storage.close()

    def _iterate(self) -> bool:
        self._seen_at = self._monotonic()
        self._completions.clear()
        busy = self._completions.drain()
        busy |= self._receive_control()
        loop = self._loop
        if self._finishing:
            busy |= self._publish_rest()
        elif loop is not None and self._running:
            try:
                busy |= loop.iterate()
            except LocalProtocolError:
                raise
            except (ChannelLossError, ProtocolError, FunctionRestartError) as error:
                self._report_loss(str(error), -1)
            except ShardfunError as error:
                self._stop_node(error)
            if self._fabric is not None and self._fabric.lost_peer is not None:
                self._report_loss("the connection is gone", self._fabric.lost_peer)
            if self._core is not None:
                self._watch_threads(self._core)
            self._report_changed()
        self._flush_control()
        return busy or self._done

    def _publish_rest(self) -> bool:
        """After ``Finish``: nothing runs any more, and peers that have ended are no loss."""
        assert self._egress is not None
        started = self._egress.publish(self._monotonic())
        self._done = self._egress.drained
        return started

    async def _park(self) -> None:
        wake_at = None
        if self._finishing and self._egress is not None:
            wake_at = self._egress.wake_at
        elif self._running and self._loop is not None:
            wake_at = self._loop.rest()
            if (due_at := self._news.due_at) is not None:
                wake_at = due_at if wake_at is None else min(wake_at, due_at)
        if wake_at is None:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            return
        with trio.move_on_after(max(0.0, wake_at - self._monotonic())):
            await trio.lowlevel.wait_readable(self._epoll.fileno())

    # ---- control --------------------------------------------------------------------------------------------------------
    def send(self, message: ToSupervisor) -> None:
        """Queue a message to the supervisor; sent as soon as there is room."""
        self._control_out.append(encode_control(message))
        self._flush_control()

    def _flush_control(self) -> None:
        while self._control_out and self._control.send(self._control_out[0]):
            self._control_out.popleft()

    def _receive_control(self) -> bool:
        busy = False
        while (raw := self._control.receive()) is not None:
            busy = True
            message = decode_to_shard(raw)
            match message:
                case Assign():
                    self._assign(message)
                case Reset():
                    self._begin_reset(message)
                case Start():
                    self._start(message)
                case Trigger() | Abort() | Complete():
                    if self._core is not None and self._running:
                        self._core.on_control(message)
                        self._perform()
                case Letters():
                    self._letters(message)
                case LookAt() | ListIds():
                    self._query(message)
                case Finish():
                    self._finishing = self._core is not None and message.incarnation == self._core.incarnation
                    self._hear(wanted=self._running and not self._finishing)
                    reached(Point.FINISH)
                case _:
                    assert_never(message)
        return busy

    def _letters(self, message: Letters) -> None:
        """Without an answer: who asks begins again with the next incarnation."""
        core = self._core
        if core is None or not self._running or self._finishing or message.incarnation != core.incarnation:
            return
        if message.action in {"replay", "drop"}:
            outcomes = core.change_letters(message.action, message.keys)
            self.send(LettersDone(core.incarnation, message.request, [], 0, outcomes, core.participant.cut, ""))
        else:
            slots = slot_range(core.identity.shard, core.identity.shards)
            self._storage.find_letters(slots, message, lambda result: self._letters_found(core, message, result))

    def _query(self, message: LookAt | ListIds) -> None:
        """Without an answer, as above: a shard that restores knows nothing yet."""
        core = self._core
        if core is not None and self._running and not self._finishing and message.incarnation == core.incarnation:
            self._queries.ask(core, message)

    def _letters_found(self, core: ShardCore, message: Letters, result: Any) -> None:
        if isinstance(result, Failed):
            answer = LettersDone(core.incarnation, message.request, [], 0, [], 0, str(result.error))
        else:
            found, total, applied = result
            answer = LettersDone(core.incarnation, message.request, found, total, [], applied, "")
        self.send(answer)

    def _assign(self, message: Assign) -> None:
        identity = ShardIdentity(message.job, message.shard, message.shards)
        self._place = Place(identity, Path(message.directory))
        self._context.shard = identity.shard
        partition = Partition(
            identity.shard,
            identity.shards,
            lambda key: owner_of(key, identity.shards) == identity.shard,
            identity.job,
            self._config.data_dir,
        )
        self._bell = Bell(self._endpoint.folder, identity.shard)
        internal = internal_readers(self._place.directory.parent, identity.shard, identity.shards, self._bell)
        assert self._nursery is not None
        host = Host(self._completions.wake, self._nursery.start_soon)
        self._readers = self._application.readers(partition, host) | internal
        try:
            self._sinks = self._application.sinks(partition) | internal_sinks(self._endpoint.folder)
        except ShardfunError as error:
            self._fatal(error)
            return
        self._egress = Egress(self._sinks, self._publishing, self._fatal, self._machine.clock)

    # ---- incarnations ---------------------------------------------------------------------------------------------------
    def _begin_reset(self, message: Reset) -> None:
        """Stop everything of the old incarnation and restore; the storage worker does it behind what it still has to write."""
        self._reset = message
        reached(Point.RESET)
        if self._egress is None:
            return  # it could not be assigned; the supervisor stops the node
        self._pause()
        self._finishing = False
        self._context.incarnation = message.incarnation
        self._context.checkpoint = message.complete
        self._loop = None
        self._calls.reset()
        if self._fabric is not None:
            self._fabric.close()
            self._fabric = None
        assert self._place is not None
        self._storage.restore(self._place, message.complete, message.digest, lambda result: self._restored(message, result))

    def _unwatch(self, channel: FrameChannel) -> None:
        for fd in (channel.receive_fd, channel.send_fd):
            try:
                self._epoll.unregister(fd)
            except (FileNotFoundError, OSError):
                continue  # the send side is watched only now and then

    def _restored(self, message: Reset, result: Any) -> None:
        if message is not self._reset:
            return
        if isinstance(result, Failed):
            if not isinstance(result.error, ShardfunError):
                raise result.error
            self._fatal(result.error)
            return
        assert self._place is not None
        assert self._egress is not None
        start = StartPoint(message.incarnation, message.complete, message.digest, result)
        program = self._application.program(self._sinks)
        previous, self._core = self._core, None
        crumb = self._breadcrumb(message)
        core = (WatchedCore if ON else ShardCore)(
            self._place.identity,
            start,
            program,
            self._limits,
            self._storage.stored,
            previous,
            chance=self._machine.chance(),
            breadcrumb=crumb,
        )
        if previous is not None:
            previous.retire()
        self._core = core
        self._news = News()
        for reader in self._readers.values():
            reader.close()
        flow = self._config.flow
        try:  # before the sinks: a missing input must not leave empty outputs
            ingress = Ingress(core, self._readers, flow.ingress_batch, flow.backlog_high, flow.backlog_low)
        except ShardfunError as error:
            self._fatal(error)
            return
        self._ingress = ingress
        self._egress.attach(core, lambda: self._ready(core, ingress))

    def _breadcrumb(self, message: Reset) -> Breadcrumb | None:
        if not message.careful:
            return None
        log.info("careful mode: the last process of this shard died and nothing explains it", poison=len(message.poison))
        return Breadcrumb(open_crumbs(self._endpoint.folder, self._machine.pid), message.poison, message.suspects)

    def _ready(self, core: ShardCore, ingress: Ingress) -> None:
        """Store, readers and sinks are where the checkpoint says: listen for peers."""
        assert self._egress is not None
        assert self._reset is not None
        if core.incarnation != self._reset.incarnation:
            return  # a newer reset is under way, whose address is not this core's to listen on
        try:
            fabric = Fabric(
                core.identity.shard,
                core.identity.shards,
                self._reset.nonce,
                self._endpoint,
                self._completions.wake,
                self._machine.open_channel,
            )
        except ShardfunError as error:
            self._fatal(error)
            return
        self._fabric = fabric
        self._loop = HotLoop(core, fabric, ingress, self._egress, self._perform, self._epoll, self._spent, self._machine.clock)
        self.send(Ready(core.incarnation, fabric.listening, core.notes))
        reached(Point.READY_SENT)

    def _start(self, message: Start) -> None:
        if self._core is None or self._fabric is None or message.incarnation != self._core.incarnation:
            return
        self._fabric.connect(message.peers, self._core.hello(self._fabric.nonce))
        self._running = True
        self._hear(wanted=True)
        self._machine.settle()
        self._frozen_at_bytes = self._core.table.cached_bytes
        reached(Point.STARTED)

    def _pause(self) -> None:
        """Nothing runs any more."""
        self._running = False
        self._hear(wanted=False)

    def _hear(self, *, wanted: bool) -> None:
        """Whether readers and peers may wake the loop. While nothing runs, nobody takes what they have: it would not sleep again."""
        if self._ingress is not None:
            self._ingress.hear(self._epoll if wanted else None)
        for channel in () if self._fabric is None else self._fabric.channels.values():
            if not wanted:
                self._unwatch(channel)
                continue
            with suppress(FileExistsError):
                self._epoll.register(channel.receive_fd, select.EPOLLIN)

    # ---- losses, failures, news -----------------------------------------------------------------------------------------
    def _report_loss(self, reason: str, peer: int) -> None:
        """The incarnation is over for this shard; the supervisor will send ``Reset``."""
        assert self._core is not None
        self._pause()
        log.info("channel lost", peer=peer, reason=reason)
        self.send(Loss(self._core.incarnation, peer, reason))

    def _report_changed(self) -> None:
        core = self._core
        if core is None:
            return
        urgent = core.table.dirty_bytes > self._limits.dirty_soft_bytes or self._stuck_since is not None
        if self._news.are_due(core, self._monotonic(), urgent=urgent):
            self.send(Changed(core.incarnation, urgent))

    def _watch_threads(self, core: ShardCore) -> None:
        """Blocking code that was given up may hold all threads, and nothing gets them back: the process has to be replaced.

        Not before a checkpoint has what became of these invocations: else they would run again, and be stuck again.
        """
        if not self._calls.stuck:
            self._stuck_since = None
            return
        now = self._monotonic()
        if self._stuck_since is None:
            self._stuck_since = (now, core.participant.cut)
        since, cut = self._stuck_since
        if core.participant.applied > cut or now > since + STUCK_WAIT_S:
            log.error("all threads are held by blocking code that has passed its timeout; the shard is replaced")
            self._machine.end(EXIT_THREADS_STUCK)

    def _stop_node(self, error: ShardfunError) -> None:
        """An error while running that would come again after a recovery. A start looks closer at damage than a recovery can."""
        if isinstance(error, CorruptionError):
            hint = "start the node again, and if that does not repair it, restore the data directory from a backup"
            error = CorruptionError(f"{error}; {hint}", errno=error.errno)
        self._fatal(error)

    def _fatal(self, error: ShardfunError) -> None:
        """The node has to stop: say why, and wait to be ended."""
        self._pause()
        detail = repr(error.__cause__) if error.__cause__ is not None else ""
        self.send(Fatal(error.code, error.exit_code, str(error), detail))

    # ---- effects --------------------------------------------------------------------------------------------------------
    def _perform(self) -> None:
        """Do what the core asks for."""
        core = self._core
        assert core is not None
        for effect in core.take_effects():
            match effect:
                case SendControl(message):
                    self.send(message)
                case WriteDelta():
                    checkpoint = effect.header.checkpoint
                    self._context.checkpoint = checkpoint
                    self._storage.write(effect, lambda result, n=checkpoint: self._delta_written(core, n, result))  # type: ignore[misc]
                case DeleteDelta():
                    self._take_checkpoint_seconds()
                    self._storage.delete(effect)
                case ApplyDelta():
                    self._storage.apply(effect, lambda result, n=effect.checkpoint: self._delta_applied(core, n, result))  # type: ignore[misc]
                case StartCall():
                    self._calls.start(effect, lambda number, value, error: self._call_done(core, number, value, error))
                case _:
                    assert_never(effect)

    def _call_done(self, core: ShardCore, number: int, value: Any, error: BaseException | None) -> None:
        if not self._is_current(core) or not self._running or self._finishing:
            return
        try:
            core.call_done(number, value, error)
        except FunctionRestartError as restart:
            self._report_loss(str(restart), -1)
        except ShardfunError as failure:
            self._stop_node(failure)
        self._perform()

    def _is_current(self, core: ShardCore) -> bool:
        """Whether a result for ``core`` still means something: no reset has come since."""
        return core is self._core and self._reset is not None and core.incarnation == self._reset.incarnation

    def _delta_written(self, core: ShardCore, checkpoint: int, result: Any) -> None:
        if not self._is_current(core):
            return
        if isinstance(result, Failed):
            if isinstance(result.error, CorruptionError):
                self._stop_node(result.error)
                return
            if not isinstance(result.error, StorageError):
                raise result.error
            log.warning("checkpoint cannot be written", checkpoint=checkpoint, error=str(result.error))
            core.delta_failed(checkpoint, str(result.error))
        else:
            core.delta_written(checkpoint, result, self._take_checkpoint_seconds())
        self._perform()
        reached(Point.PREPARED_SENT)

    def _take_checkpoint_seconds(self) -> float:
        if self._loop is None:
            return 0.0
        seconds, self._loop.checkpoint_s = self._loop.checkpoint_s, 0.0
        return seconds

    def _delta_applied(self, core: ShardCore, checkpoint: int, result: Any) -> None:
        if not self._is_current(core):
            return
        if isinstance(result, Failed):
            if not isinstance(result.error, CorruptionError):
                raise result.error
            self._stop_node(result.error)
            return
        core.delta_applied(checkpoint, result)
        if core.table.cached_bytes > self._frozen_at_bytes + FREEZE_EVERY_BYTES:
            self._machine.settle()  # a full collection over a million records takes 0.1 s
            self._frozen_at_bytes = core.table.cached_bytes
        self._perform()

    # ---- heartbeat ------------------------------------------------------------------------------------------------------
    def sample(self) -> Heartbeat:
        """The figures of the heartbeat. Called from its thread: only reads, and any value may be a moment old."""
        core, loop = self._core, self._loop
        if core is None:
            age_s = self._monotonic() - self._seen_at
            return Heartbeat(0, age_s, "", 0, 0, 0, 0, 0, 0, 0, resident_bytes(), 0.0, waits_for_space=self._waits_for_space)
        away_s = 0.0
        if core.dispatcher.calls.running:  # a task may compute instead of awaiting: look whether the loop still comes round
            away_s = self._monotonic() - self._seen_at
            self._completions.wake()
        if away_s < AWAY_BEATS * self._config.supervision.heartbeat_interval_s:
            away_s = 0.0
        figures = figures_of(core, self._long_runs, 0.0 if loop is None else loop.resumed_at, away_s, self._monotonic())
        troubles = [trouble for reader in self._readers.values() if (trouble := getattr(reader, "trouble", ""))]
        if self._egress is not None:
            troubles += self._egress.troubles
        return msgspec.structs.replace(
            figures,
            troubles=troubles,
            running_s=self._spent.running_s,
            waits_for_space=self._waits_for_space,
        )

    @property
    def _waits_for_space(self) -> bool:
        return self._storage.waits_for_space or (self._egress is not None and self._egress.waits_for_space)
