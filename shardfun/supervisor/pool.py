"""Shard processes: started, warm, assigned, dead. A spare that has imported the application replaces a dead shard in milliseconds.

Processes are spawned, never forked: nng is not fork safe. Standard input is their lifeline, standard error their log.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable
from pathlib import Path

import cbor2
import msgspec
import trio

from shardfun.config.schema import Config
from shardfun.core.poison import Cause
from shardfun.errors import ChannelLossError, ProtocolError, UnavailableError
from shardfun.model.control import Heartbeat, ToShard, ToSupervisor, Warm, decode_to_supervisor, encode_control
from shardfun.ports import FrameChannel
from shardfun.sdk.launch import Launch
from shardfun.supervisor.machine import ChildProcess, Machine
from shardfun.telemetry.logs import forward_line
from shardfun.telemetry.node_log import NodeLog

CONTROL_BUFFER_FRAMES = 256
CONTROL_QUEUE_MAX = 1000
SPAWN_FAILURES_MAX = 5
REAP_TIMEOUT_S = 10.0
LAST_LOG_LINES_S = 0.5
LOG_LINE_BYTES_MAX = 1 << 20

log = NodeLog("shardfun.supervisor")


class ShardHandle:
    """One shard process, seen from the supervisor."""

    def __init__(self, process: ChildProcess, channel: FrameChannel, now: float) -> None:
        self.process = process
        self.shard: int | None = None
        self.warmed = trio.Event()
        self.heard_at = self.reset_at = now
        self.beat: Heartbeat | None = None
        self.kill_reason = ""
        self.kill_cause = Cause.EXPLAINED
        self._channel = channel
        self._queue: deque[bytes] = deque()

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def send(self, message: ToShard) -> None:
        """Send a control message; kept while the shard does not read."""
        self._queue.append(encode_control(message))
        self.flush()

    def flush(self) -> None:
        """Send what is kept."""
        try:
            while self._queue and self._channel.send(self._queue[0]):
                self._queue.popleft()
        except ChannelLossError:
            self._queue.clear()  # closed: its exit is being handled
        if len(self._queue) > CONTROL_QUEUE_MAX:
            self.kill("does not read its control socket", Cause.OUTSIDE)

    def kill(self, reason: str, cause: Cause = Cause.EXPLAINED) -> None:
        """SIGKILL: also ends a stopped process. Its exit is reported as every other.

        Args:
            cause: what that says of the messages that were under way.
        """
        if not self.kill_reason:
            self.kill_reason, self.kill_cause = reason, cause
        if self.process.returncode is None:
            self.process.kill()

    def exit_text(self) -> str:
        """How it ended, for people."""
        code = self.process.returncode
        text = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return f"{text}: {self.kill_reason}" if self.kill_reason else text

    def close(self) -> None:
        """Release the control socket, and the pipes of a process that has ended."""
        self._channel.close()
        for pipe in (self.process.stdin, self.process.stderr):
            if isinstance(pipe, trio.lowlevel.FdStream):
                pipe.close()

    async def messages(self, deliver: Callable[[ShardHandle, ToSupervisor], None]) -> None:
        """Deliver what the shard sends, until the socket is closed. A damaged message ends the process."""
        while True:
            try:
                raw = await self._channel.wait_frame()
            except ChannelLossError:
                return
            try:
                message = decode_to_supervisor(raw)
            except ProtocolError as error:
                self.kill(str(error))
                return
            self.heard_at = trio.current_time()
            deliver(self, message)


class Pool:
    """All shard processes of a node.

    Args:
        runtime_dir: for control sockets.
        deliver: gets every message of every process; ``died``: every exit, after the process is reaped.
        changed: called when a process was started or has ended (the list of pids is kept on disk).
        launch: how the processes find the application.
        machine: they run on.
    """

    def __init__(
        self,
        config: Config,
        runtime_dir: Path,
        deliver: Callable[[ShardHandle, ToSupervisor], None],
        died: Callable[[ShardHandle], None],
        changed: Callable[[], None],
        failed: Callable[[UnavailableError], None],
        launch: Launch,
        machine: Machine,
    ) -> None:
        self.handles: list[ShardHandle] = []
        self._config = config
        self._runtime_dir = runtime_dir
        self._deliver = deliver
        self._died = died
        self._changed = changed
        self._failed = failed
        self._launch = launch
        self._machine = machine
        self._serial = 0
        self._starting = 0
        self._wanted = 0
        self._warm: deque[ShardHandle] = deque()
        self._news = trio.Condition()
        self._spawn_failures = 0
        self._nursery: trio.Nursery | None = None
        self._closing = False
        self._spares_held = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the processes until cancelled; then every one is killed and reaped (see ``_live``)."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._closing = True  # others of the node may still want something in their last moments

    def hold_spares(self) -> None:
        """Start no new spare for now: importing an application takes the processor from shards that are recovering."""
        self._spares_held = True

    def release_spares(self) -> None:
        """The node is well: have spares again."""
        if self._spares_held:
            self._spares_held = False
            self._fill()

    @property
    def spares(self) -> int:
        """How many warm processes wait."""
        return len(self._warm)

    async def acquire(self) -> ShardHandle:
        """A warm process, out of the pool: a waiting spare, or the next one to become warm."""
        self._wanted += 1
        self._fill()
        async with self._news:
            while not self._warm:
                await self._news.wait()
            handle = self._warm.popleft()
        self._wanted -= 1
        self._fill()
        return handle

    def _fill(self) -> None:
        """Start processes until everybody who waits gets one and the spares are there."""
        if self._closing:
            return
        assert self._nursery is not None
        spares = 0 if self._spares_held else self._config.supervision.spares
        missing = self._wanted + spares - len(self._warm) - self._starting
        for _ in range(max(0, missing)):
            self._starting += 1
            self._nursery.start_soon(self._live)

    async def _live(self) -> None:
        """One process from start to exit."""
        self._serial += 1
        channel = self._machine.open_channel(CONTROL_BUFFER_FRAMES, lambda: None)
        try:
            url = channel.listen(f"ipc://{self._runtime_dir / f'c-{self._serial}.ipc'}")
            process = await self._machine.start_shard()
        except BaseException:  # cancelled, mostly; there is no process then
            channel.close()
            raise
        handle = ShardHandle(process, channel, trio.current_time())
        self.handles.append(handle)
        self._changed()
        try:
            async with trio.open_nursery() as nursery:
                log_ended = trio.Event()
                nursery.start_soon(self._forward_log, handle, log_ended)
                nursery.start_soon(handle.messages, self._receive)
                nursery.start_soon(self._limit_start, handle)
                await self._send_bootstrap(handle, url)
                await process.wait()
                self._forget(handle)
                self._died(handle)
                with trio.move_on_after(LAST_LOG_LINES_S):
                    await log_ended.wait()
                nursery.cancel_scope.cancel()
        finally:
            if handle in self.handles:
                self._closing = True
                handle.kill("the node stops")
                with trio.CancelScope(shield=True), trio.move_on_after(REAP_TIMEOUT_S):
                    await process.wait()
                self._forget(handle)
            handle.close()

    async def _limit_start(self, handle: ShardHandle) -> None:
        limit = self._config.supervision.start_timeout_s
        with trio.move_on_after(limit):
            await handle.warmed.wait()
            return
        handle.kill(f"not ready after {limit:g} s (supervision.start_timeout)")

    def _forget(self, handle: ShardHandle) -> None:
        self.handles.remove(handle)
        if handle in self._warm:
            self._warm.remove(handle)
        if self._closing:
            return
        self._changed()
        if not handle.warmed.is_set():
            self._starting -= 1
            self._spawn_failures += 1
            if self._spawn_failures > SPAWN_FAILURES_MAX or (handle.process.returncode or 0) > 0:
                self._failed(
                    UnavailableError(
                        f"a shard process ended before it was ready ({handle.exit_text()}), while it imported {self._config.app!r}; "
                        "look for its last words in the log, and for what ends the process in the application's imports"
                    )
                )
                return
        self._fill()

    def _receive(self, handle: ShardHandle, message: ToSupervisor) -> None:
        if isinstance(message, Warm):
            handle.warmed.set()
            self._starting -= 1
            self._spawn_failures = 0
            self._warm.append(handle)
            assert self._nursery is not None
            self._nursery.start_soon(self._tell)
            return
        if isinstance(message, Heartbeat):
            handle.beat = message
        self._deliver(handle, message)

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def _send_bootstrap(self, handle: ShardHandle, url: str) -> None:
        bootstrap = {
            "control": url,
            "runtime_dir": str(self._runtime_dir),
            "log_level": self._config.log.level,
            "config": self._config.to_dict(),
            "launch": msgspec.to_builtins(self._launch),
        }
        assert handle.process.stdin is not None
        try:
            await handle.process.stdin.send_all(cbor2.dumps(bootstrap).hex().encode() + b"\n")
        except trio.BrokenResourceError:
            return  # it is dead already: its exit tells more

    @staticmethod
    async def _forward_log(handle: ShardHandle, ended: trio.Event) -> None:
        assert handle.process.stderr is not None
        rest = b""
        async for chunk in handle.process.stderr:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                forward_line(line, handle.shard)
            if len(rest) > LOG_LINE_BYTES_MAX:
                forward_line(rest, handle.shard)
                rest = b""
        if rest:
            forward_line(rest, handle.shard)
        ended.set()
