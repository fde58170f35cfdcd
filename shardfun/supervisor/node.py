"""The supervisor of one node: performs what the coordinator decides, and tells it what happens.

Everything on one Trio loop. The coordinator is only ever called from here, in callbacks that do not wait; what touches the disk
(incarnation, manifests) runs in one disk task, in order.

Longer than other modules on purpose: it is the one place where decisions meet processes, and reads best as a whole.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Final, assert_never

import msgspec
import trio

from shardfun import errors
from shardfun.config.schema import Config
from shardfun.core.coordinator import (
    Coordinator,
    FillVacancy,
    Finished,
    RaiseIncarnation,
    Send,
    State,
    Timing,
    WriteManifest,
)
from shardfun.core.membership import Change, Member
from shardfun.egress.registry import find_kind as find_egress
from shardfun.errors import ShardfunError, StorageError, UnavailableError
from shardfun.failpoints import Point, reached
from shardfun.intake.desk import Intake
from shardfun.intake.entries import LOCAL
from shardfun.intake.targets import Targets
from shardfun.mesh.door import ANSWER_BYTES_MAX
from shardfun.model.control import (
    Applied,
    Assign,
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
    Reset,
    Start,
    ToShard,
    ToSupervisor,
    Trigger,
    Warm,
)
from shardfun.model.delta import checkpoint_name
from shardfun.model.questions import (
    STATUS,
    AskQuestion,
    LettersAnswer,
    LettersQuestion,
    QueryAnswer,
    Question,
    Refusal,
    ReplyAnswer,
    SendQuestion,
    SentAnswer,
    decode_question,
)
from shardfun.model.status import NodeStatus
from shardfun.sdk.launch import Launch
from shardfun.state.directory import DataDirectory, JobIdentity, NodeRecord
from shardfun.state.files import storage_error
from shardfun.state.filesystem import DIRECTORY_MODE
from shardfun.supervisor.disk import Disk, manifest_of
from shardfun.supervisor.doors import DoorKeeper
from shardfun.supervisor.entrance import BACKLOG_BYTES, ENTRY_BYTES_MAX, Entrance
from shardfun.supervisor.intake import INTAKE_FOLDER, INTERNAL_INGRESSES, IntakeKeeper
from shardfun.supervisor.leftovers import RUNTIME_PREFIX, clean_up, mark_of, runtime_parent
from shardfun.supervisor.letters import LetterDesk
from shardfun.supervisor.liveness import overdue
from shardfun.supervisor.machine import Machine
from shardfun.supervisor.pool import Pool, ShardHandle
from shardfun.supervisor.postmortem import examine
from shardfun.supervisor.queries import QueryDesk
from shardfun.supervisor.status import finished_status, node_status, shard_status
from shardfun.telemetry.node_log import NodeLog

TICK_S = 0.25
RUNTIME_NAME_BYTES = 6
LOSS_GRACE_S = 0.05

_SENT: Final = MappingProxyType(
    {Trigger: Point.TRIGGER_SENT, Complete: Point.COMPLETE_SENT, Reset: Point.RESET_SENT, Start: Point.START_SENT}
)

log = NodeLog("shardfun.supervisor")


class Node:
    """Runs one node.

    Args:
        fresh: begin anew: delete the state in the data directory and the outputs of the egresses.
        accept_loss: if the newest manifest is damaged, go back to an older checkpoint.
        launch: how its processes find the application, if not by importing it by name.
        targets: its functions, if this process has imported the application.
        machine: it runs on; by default the real one.
    """

    def __init__(
        self,
        config: Config,
        *,
        fresh: bool = False,
        accept_loss: bool = False,
        launch: Launch | None = None,
        targets: Targets | None = None,
        machine: Machine | None = None,
    ) -> None:
        self.config = config
        self._machine = Machine() if machine is None else machine
        self.running = trio.Event()
        """Set when all shards run for the first time."""
        self._launch = Launch() if launch is None else launch
        self._targets = targets
        self.entrance: Entrance | None = None
        """Where messages come in; from before ``running`` is set."""
        self._fresh = fresh
        self._accept_loss = accept_loss
        self._directory = DataDirectory(config.data_dir)
        self._identity: JobIdentity | None = None
        self._first_use = False
        self._runtime_dir = Path()
        self._coordinator: Coordinator | None = None
        self._pool: Pool | None = None
        self._serving: dict[int, ShardHandle] = {}
        self._filling: set[int] = set()
        self._notes: dict[int, list[str]] = {}
        self._finished_shards: dict[int, ShardHandle] = {}
        self._nursery: trio.Nursery | None = None
        self._end = trio.Event()
        self._tick_now = trio.Event()
        self._disk: Disk | None = None
        self._letters: LetterDesk | None = None
        self._queries: QueryDesk | None = None
        self._intake = IntakeKeeper(config.data_dir / INTAKE_FOLDER, {})
        self._door = None if config.http is None else DoorKeeper(config, self._write_node, self._launch)
        self._started_at = time.monotonic()
        self._outcome = ""
        self._ended = False
        self._error: ShardfunError | None = None
        self._stop_requested = False
        self._stop_deadline: float | None = None
        self._final: NodeStatus | None = None

    # ---- life -----------------------------------------------------------------------------------------------------------
    async def run(self) -> NodeStatus:
        """Run until the input is used up, somebody stops the node, or it has to give up.

        Returns:
            The last status; its ``state`` is ``finished`` or ``stopped``.

        Raises:
            ShardfunError: why the node could not start or go on.
        """
        self._directory.acquire()
        try:
            await self._prepare()
            try:
                await self._serve()
            finally:
                shutil.rmtree(self._runtime_dir, ignore_errors=True)
                self._directory.remove_node()
            if self._error is not None:
                raise self._error
        except ShardfunError:
            self._undo_first_use()
            raise
        finally:
            if self._door is not None:
                self._door.close()
            self._directory.release()
        assert self._final is not None
        return self._final

    async def _prepare(self) -> None:
        directory = self._directory
        left = await self._machine.run_in_thread(lambda: clean_up(directory.read_node()))
        if left:
            log.warning("killed processes that an earlier run left behind", processes=left)
        self._first_use = directory.identity() is None
        if self._door is not None:
            self._door.open()
        if self._fresh:
            directory.erase()
            for entry in self.config.egress.values():
                find_egress(entry.kind).remove_outputs(entry.options, self.config.shards)
        self._first_use = directory.identity() is None
        self._identity = directory.prepare(app=self.config.app, shards=self.config.shards)
        manifest = directory.manifests.newest(self._identity.job, accept_loss=self._accept_loss)
        if manifest is not None:
            self._intake = IntakeKeeper(self.config.data_dir / INTAKE_FOLDER, manifest.ingress)
        self._make_runtime_dir()
        checkpoint = self.config.checkpoint
        timing = Timing(
            interval=checkpoint.interval_s,
            timeout=checkpoint.timeout_s,
            idle_interval=checkpoint.idle_interval_s,
            loop_share=checkpoint.loop_share,
        )
        complete = 0 if manifest is None else manifest.checkpoint
        digests = [b""] * self.config.shards if manifest is None else [part.digest for part in manifest.shards]
        self._coordinator = Coordinator(
            self.config.shards, timing, complete, digests, self._identity.job, poison_deaths=self.config.failure.poison_deaths
        )
        if complete:
            log.info("continuing", checkpoint=checkpoint_name(complete))

    def _make_runtime_dir(self) -> None:
        """A folder for sockets, recorded before it exists: whenever this process is killed, the next start can remove it."""
        self._runtime_dir = runtime_parent() / f"{RUNTIME_PREFIX}{secrets.token_hex(RUNTIME_NAME_BYTES)}"
        self._write_node()
        try:
            self._runtime_dir.mkdir(mode=DIRECTORY_MODE)
        except OSError as error:
            self._directory.remove_node()
            raise storage_error("create", self._runtime_dir, error) from error

    def _undo_first_use(self) -> None:
        """A first start that came to nothing leaves nothing: the next may name another application or number of shards."""
        with suppress(StorageError):  # there is a reason to report already
            taken_in = (self.config.data_dir / INTAKE_FOLDER).exists()  # and acknowledged
            if self._first_use and not taken_in and not self._directory.manifests.checkpoints():
                self._directory.discard()

    async def _serve(self) -> None:
        assert self._coordinator is not None
        self._disk = Disk(self._fail, self._machine.run_in_thread)
        self._letters = LetterDesk(self._coordinator, self.config.shards, self._send, self._perform)
        self._queries = QueryDesk(self._coordinator, self.config.shards, self._send, self._perform)
        self._pool = Pool(
            self.config,
            self._runtime_dir,
            self._receive,
            self._died,
            self._write_node,
            self._fail,
            self._launch,
            self._machine,
        )
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await nursery.start(self._pool.run)
                await nursery.start(self._open_entrance)
                nursery.start_soon(self._machine.answer, self._status_url, self._answer)
                if self._door is not None:
                    nursery.start_soon(self._door.run, self._runtime_dir, self._status_url)
                nursery.start_soon(self._disk.run)
                self._write_node()
                self._coordinator.start(trio.current_time())
                self._perform()
                nursery.start_soon(self._watch)
                await self._end.wait()
                self._final = self.status()
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            cause = _shardfun_error(group)
            if cause is None:
                raise
            raise cause from group
        finally:
            self._queries.close()
            self._letters.close()

    async def _open_entrance(self, *, task_status: trio.TaskStatus[None]) -> None:
        folder = self._directory.path / INTAKE_FOLDER / LOCAL
        intake = Intake(
            LOCAL,
            folder,
            self._runtime_dir,
            self.config.shards,
            backlog_bytes=BACKLOG_BYTES,
            entry_bytes_max=ENTRY_BYTES_MAX,
        )
        self.entrance = Entrance(intake, self._targets)
        await intake.run(task_status=task_status)

    def request_stop(self) -> None:
        """Take one more checkpoint, publish what it holds, and stop. The next run continues there."""
        self._stop_requested = True
        if self._coordinator is not None and not self._coordinator.stopping:
            self._coordinator.stop()
            self._stop_deadline = trio.current_time() + self.config.supervision.stop_timeout_s
            self._tick_now.set()

    def stop_now(self) -> None:
        """End all processes at once. The next run continues from the last complete checkpoint."""
        self._outcome = self._outcome or "stopped"
        self._end.set()

    @property
    def ending(self) -> bool:
        """Whether its parts are being ended, some before others."""
        return self._end.is_set() or (self._nursery is not None and self._nursery.cancel_scope.cancel_called)

    def _fail(self, error: ShardfunError) -> None:
        if self._error is None:
            self._error = error
        self.stop_now()

    # ---- what the coordinator wants -------------------------------------------------------------------------------------
    def _perform(self) -> None:
        coordinator, disk = self._coordinator, self._disk
        assert coordinator is not None
        assert disk is not None
        assert self._identity is not None
        if self._end.is_set():
            return  # the node is ending: nothing may be started any more
        for effect in coordinator.take_effects():
            match effect:
                case Send(shard, message):
                    self._send(shard, message)
                case RaiseIncarnation():
                    disk.submit(self._directory.next_incarnation, self._incarnation_raised)
                case FillVacancy(shard):
                    if shard not in self._filling:
                        self._filling.add(shard)
                        assert self._nursery is not None
                        self._nursery.start_soon(self._fill_vacancy, shard)
                case WriteManifest():
                    manifest = manifest_of(
                        effect, self._identity.job, coordinator.incarnation, (*self.config.ingress, *INTERNAL_INGRESSES)
                    )
                    disk.submit(
                        lambda manifest=manifest: self._directory.manifests.write(manifest),  # type: ignore[misc]
                        lambda _, effect=effect: self._manifest_durable(effect),  # type: ignore[misc]
                    )
                case Finished(ended):
                    self._ended = ended
                    self._finished_shards = {}
                case _:
                    assert_never(effect)
        self._tick_now.set()
        if self._letters is not None:
            self._letters.wake()
        if self._queries is not None:
            self._queries.wake()

    def _send(self, shard: int, message: ToShard) -> None:
        handle = self._serving.get(shard)
        if handle is not None:
            if isinstance(message, Reset):
                handle.reset_at = trio.current_time()
            handle.send(message)
            point = _SENT.get(type(message))
            if point is not None:
                reached(point)

    def _incarnation_raised(self, incarnation: int) -> None:
        log.debug("incarnation raised", incarnation=incarnation)
        reached(Point.INCARNATION_RAISED)
        assert self._coordinator is not None
        self._coordinator.incarnation_raised(incarnation)
        self._perform()

    def _manifest_durable(self, effect: WriteManifest) -> None:
        assert self._coordinator is not None
        assert self._disk is not None
        self._coordinator.manifest_durable(effect.checkpoint, trio.current_time())
        self._perform()
        if self._intake.completed([part.positions for part in effect.parts]):
            self._disk.submit(self._intake.tend, lambda _: None)

    async def _fill_vacancy(self, shard: int) -> None:
        """A process for a shard that has none. What served it before is dead and reaped: deaths are only reported then."""
        assert self._pool is not None
        assert self._identity is not None
        assert self._coordinator is not None
        handle = await self._pool.acquire()
        handle.shard = shard
        log.debug("process assigned", shard=shard, pid=handle.pid)
        self._serving[shard] = handle
        self._filling.discard(shard)
        handle.send(Assign(shard, self.config.shards, self._identity.job, str(self._directory.shard(shard))))
        reached(Point.ASSIGN_SENT)
        self._coordinator.assigned(shard)
        self._perform()

    # ---- what happens ---------------------------------------------------------------------------------------------------
    def _receive(self, handle: ShardHandle, message: ToSupervisor) -> None:
        coordinator, shard, now = self._coordinator, handle.shard, trio.current_time()
        assert coordinator is not None
        if isinstance(message, Fatal):
            self._fail(errors.error_of(message.code, message.reason, message.exit_code))
            return
        if shard is None or self._serving.get(shard) is not handle:
            return
        match message:
            case Ready():
                log.debug("shard ready", shard=shard, incarnation=message.incarnation)
                if message.notes:  # a recovery from a checkpoint that holds the letters has nothing to say any more
                    self._notes[shard] = message.notes
                for note in message.notes:
                    log.warning(note, shard=shard)
                coordinator.on_ready(shard, message, now)
                if coordinator.state is State.IDLE and coordinator.statistics.last_recovery is not None:
                    self._log_running()
            case Prepared():
                coordinator.on_prepared(shard, message)
            case Refused():
                coordinator.on_refused(shard, message, now)
                log.warning("checkpoint aborted", shard=shard, reason=message.reason)
            case Applied():
                coordinator.on_applied(shard, message, now)
                if self._pool is not None and coordinator.state is State.IDLE:
                    self._pool.release_spares()
            case Changed():
                coordinator.on_changed(message)
            case LettersDone():
                assert self._letters is not None
                self._letters.on_done(shard, message)
            case Found():
                assert self._queries is not None
                self._queries.on_found(shard, message)
            case Loss():
                assert self._nursery is not None
                self._nursery.start_soon(self._on_loss, message)
            case Heartbeat() | Warm():
                pass
            case _:
                assert_never(message)
        self._perform()

    async def _on_loss(self, message: Loss) -> None:
        """A broken channel is mostly the first sign of a death: wait for that, or the world would be reset twice."""
        await trio.sleep(LOSS_GRACE_S)
        assert self._coordinator is not None
        self._coordinator.on_loss(message, trio.current_time())
        self._perform()

    def _log_running(self) -> None:
        coordinator = self._coordinator
        assert coordinator is not None
        self.running.set()
        took_ms = round((coordinator.statistics.last_recovery or 0) * 1000)
        if coordinator.statistics.recoveries:
            log.info(
                "recovered",
                took_ms=took_ms,
                incarnation=coordinator.incarnation,
                checkpoint=checkpoint_name(coordinator.complete),
            )
        else:
            log.info("running", took_ms=took_ms, incarnation=coordinator.incarnation, shards=self.config.shards)
        if self._stop_requested and not coordinator.stopping:
            self.request_stop()

    def _died(self, handle: ShardHandle) -> None:
        coordinator, shard = self._coordinator, handle.shard
        if coordinator is None or shard is None or self._end.is_set() or self._serving.get(shard) is not handle:
            return
        del self._serving[shard]
        if coordinator.state is State.FINISHING and handle.process.returncode == 0:
            self._finished_shards[shard] = handle
            if len(self._finished_shards) == self.config.shards:
                self._outcome = "finished" if self._ended else "stopped"
                self._end.set()
            return
        for finished in sorted(self._finished_shards):
            coordinator.membership.change(finished, Change.DIE)
        self._finished_shards = {}
        reason = f"shard {shard} died ({handle.exit_text()})"
        event = f"{reason}, recovering"
        log.warning(event, checkpoint=checkpoint_name(coordinator.complete), pid=handle.pid)
        assert self._pool is not None
        self._pool.hold_spares()
        poison = coordinator.suspicion.died(shard, examine(handle, self._runtime_dir))
        if poison is not None:
            log.error("a message kills its process: it will be parked", address=poison.address, shard=shard)
        coordinator.failure(shard, reason, trio.current_time())
        limit = self.config.supervision.restarts_without_checkpoint
        if coordinator.membership.deaths_without_checkpoint > limit:
            self._fail(
                UnavailableError(
                    f"{limit + 1} deaths of shards without a complete checkpoint in between "
                    f"(supervision.restarts_without_checkpoint); the last: {reason}"
                )
            )
        self._perform()

    async def _watch(self) -> None:
        """Time: triggers, time-outs, heartbeats."""
        coordinator = self._coordinator
        assert coordinator is not None
        looked_at = trio.current_time()
        while True:
            now = trio.current_time()
            coordinator.tick(now)
            self._perform()
            self._check_processes(now, max(0.0, now - looked_at - TICK_S))
            looked_at = now
            self._tick_now = trio.Event()
            if self._stop_deadline is not None and now > self._stop_deadline:
                log.warning("no clean stop in time; stopping at the last complete checkpoint")
                self.stop_now()
            with trio.move_on_after(min(TICK_S, max(0.0, coordinator.wake_at - now))):
                await self._tick_now.wait()

    def _check_processes(self, now: float, held_up_s: float) -> None:
        """Kill what is stopped or stuck.

        Args:
            held_up_s: how long the supervisor itself has not run (stopped, or starved): that is nobody's silence.
        """
        assert self._pool is not None
        for handle in self._pool.handles:
            handle.flush()
            handle.heard_at += held_up_s
            if handle.beat is not None and handle.beat.waits_for_space:
                handle.reset_at = now
            found = overdue(handle, self.config.supervision, now, restoring=self._restoring(handle))
            if found is not None:
                handle.kill(found.reason, found.cause)

    def _restoring(self, handle: ShardHandle) -> bool:
        assert self._coordinator is not None
        return handle.shard is not None and self._coordinator.membership.members[handle.shard] is Member.RESTORING

    # ---- what it says of itself -----------------------------------------------------------------------------------------
    @property
    def _status_url(self) -> str:
        return f"ipc://{self._runtime_dir / 'status.ipc'}"

    async def _answer(self, question: bytes) -> bytes:
        if question == STATUS:
            return msgspec.json.encode(self.status())
        try:
            raw = msgspec.json.encode(await self.answer(decode_question(question)))
            if len(raw) > ANSWER_BYTES_MAX:
                raise UnavailableError(f"the answer has {len(raw)} bytes, more than {ANSWER_BYTES_MAX}; ask for less at once")
        except ShardfunError as error:
            return msgspec.json.encode(Refusal(code=error.code, message=str(error), exit_code=error.exit_code))
        return raw

    async def answer(self, question: Question) -> LettersAnswer | QueryAnswer | SentAnswer | ReplyAnswer:
        """Answer a question about dead letters or state, take a checkpoint or a message, while the node runs.

        Raises:
            UnavailableError: it does not run, or cannot answer in time.
            ShardfunError: why there is no answer, see ``LetterDesk.answer`` and ``QueryDesk.answer``.
        """
        if self._letters is None or self._queries is None or self.entrance is None:
            raise UnavailableError("the node has not started yet")
        if isinstance(question, LettersQuestion):
            return await self._letters.answer(question)
        if isinstance(question, (SendQuestion, AskQuestion)):
            return await self.entrance.answer(question)
        return await self._queries.answer(question)

    def _write_node(self) -> None:
        """Keep on disk who runs here, for ``status`` and for the clean-up of the next start."""
        pids = [] if self._pool is None else [handle.pid for handle in self._pool.handles]
        marks = [mark_of(pid) for pid in [*pids, *([] if self._door is None else self._door.pids)]]
        record = NodeRecord(pid=os.getpid(), url=self._status_url, runtime_dir=str(self._runtime_dir), processes=marks)
        try:
            self._directory.write_node(record)
        except StorageError as error:
            if self._pool is None or not error.disk_full:
                raise
            log.warning("disk full: the processes of this node are not on record", error=str(error))

    @property
    def door_pid(self) -> int:
        """The process of the HTTP door; 0: there is none."""
        return next(iter([] if self._door is None else self._door.pids), 0)

    def status(self) -> NodeStatus:
        """The node's figures now; any time."""
        coordinator = self._coordinator
        if coordinator is None:
            coordinator = Coordinator(self.config.shards, Timing(), 0, [b""] * self.config.shards, "0" * 8)
        now = trio.current_time()
        shards = [
            finished_status(shard, self._finished_shards[shard], coordinator, now)
            if shard in self._finished_shards
            else shard_status(shard, self._serving.get(shard), coordinator, now)
            for shard in range(self.config.shards)
        ]
        uptime_s = time.monotonic() - self._started_at
        spares = 0 if self._pool is None else self._pool.spares
        status = node_status(self.config, coordinator, shards, spares, self._outcome, uptime_s, now)
        notes = [f"shard {shard}: {note}" for shard, told in sorted(self._notes.items()) for note in told]
        http = "" if self._door is None else self._door.address
        return msgspec.structs.replace(status, intake=dict(self._intake.consumed), http=http, notes=notes)


def _shardfun_error(group: BaseExceptionGroup[BaseException]) -> ShardfunError | None:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            found = _shardfun_error(error)
            if found is not None:
                return found
        elif isinstance(error, ShardfunError):
            return error
    return None
