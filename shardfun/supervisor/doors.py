"""The door's process: started when ``[http]`` is configured, and again when it dies; the node goes on meanwhile.

The listening socket belongs to the supervisor and is inherited. So a port that is taken is found before anything starts, a client
that connects while the door is being replaced waits instead of being refused, and port 0 stays the same port.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import cbor2
import msgspec
import trio

from shardfun.config.schema import Config, HttpConfig
from shardfun.mesh.listening import check_files, open_listener, url_of
from shardfun.sdk.launch import Launch
from shardfun.supervisor.pool import LAST_LOG_LINES_S, LOG_LINE_BYTES_MAX, REAP_TIMEOUT_S
from shardfun.telemetry.logs import forward_line
from shardfun.telemetry.node_log import NodeLog

BACKOFF_MIN_S: Final = 0.1
BACKOFF_MAX_S: Final = 10.0
STABLE_S: Final = 10.0
"""A door that has lived so long is started again at once."""
END_S: Final = 2.0
"""Time to end after its lifeline was cut, before it is killed: longer than the door's own grace."""

log = NodeLog("shardfun.supervisor")


class DoorKeeper:
    """See the module.

    Args:
        changed: called when the process was started or has ended (the list of pids is kept on disk).
    """

    def __init__(self, config: Config, changed: Callable[[], None], launch: Launch) -> None:
        assert config.http is not None
        self._config = config
        self._http: HttpConfig = config.http
        self._changed = changed
        self._launch = launch
        self._listener: socket.socket | None = None
        self._process: trio.Process | None = None
        self.restarts = 0

    def open(self) -> None:
        """Listen. Nothing is answered before ``run``.

        Raises:
            UnavailableError: the address is taken.
            ConfigurationError: the token file, certificate or key will not do.
        """
        check_files(self._http)
        self._listener = open_listener(self._http)

    def close(self) -> None:
        """Listen no more."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    @property
    def address(self) -> str:
        """What clients use, such as ``http://127.0.0.1:8484``."""
        return "" if self._listener is None else url_of(self._http, self._listener)

    @property
    def pids(self) -> list[int]:
        """The living process."""
        return [] if self._process is None else [self._process.pid]

    async def run(self, runtime_dir: Path, url: str) -> None:
        """Keep a door alive until cancelled; then it ends.

        Args:
            runtime_dir: of the node; the door's sockets are in it.
            url: where the node answers questions.
        """
        backoff_s = BACKOFF_MIN_S
        while True:
            started = trio.current_time()
            try:
                code = await self._live(runtime_dir, url)
            except OSError as error:
                log.warning("the HTTP door cannot be started, trying again", error=str(error), in_s=backoff_s)
                await trio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)
                continue
            if trio.current_time() - started > STABLE_S:
                backoff_s = BACKOFF_MIN_S
            self.restarts += 1
            ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            log.warning("the HTTP door died, starting another", ended=ended, in_s=backoff_s)
            await trio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)

    async def _live(self, runtime_dir: Path, url: str) -> int:
        """One process from start to exit; its exit code."""
        assert self._listener is not None
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "shardfun.door"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[self._listener.fileno()],
            start_new_session=True,
        )
        self._process = process
        try:
            self._changed()
            async with trio.open_nursery() as nursery:
                ended = trio.Event()
                nursery.start_soon(_forward_log, process, ended)
                await self._send_bootstrap(process, runtime_dir, url)
                await process.wait()
                with trio.move_on_after(LAST_LOG_LINES_S):
                    await ended.wait()
                nursery.cancel_scope.cancel()
        finally:
            await self._end(process)
        assert process.returncode is not None
        return process.returncode

    async def _end(self, process: trio.Process) -> None:
        """Whatever happens, no process is left."""
        assert process.stdin is not None
        assert process.stderr is not None
        with trio.CancelScope(shield=True):
            await process.stdin.aclose()
            with trio.move_on_after(END_S):
                await process.wait()
            if process.returncode is None:
                process.kill()
                with trio.move_on_after(REAP_TIMEOUT_S):
                    await process.wait()
            await process.stderr.aclose()
        self._process = None

    async def _send_bootstrap(self, process: trio.Process, runtime_dir: Path, url: str) -> None:
        assert self._listener is not None
        assert process.stdin is not None
        bootstrap = {
            "url": url,
            "runtime_dir": str(runtime_dir),
            "listener": self._listener.fileno(),
            "public": self.address,
            "log_level": self._config.log.level,
            "config": self._config.to_dict(),
            "launch": msgspec.to_builtins(self._launch),
        }
        try:
            await process.stdin.send_all(cbor2.dumps(bootstrap).hex().encode() + b"\n")
        except trio.BrokenResourceError:
            return  # it is dead already: its exit tells more


async def _forward_log(process: trio.Process, ended: trio.Event) -> None:
    assert process.stderr is not None
    rest = b""
    try:
        async for chunk in process.stderr:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                forward_line(line, None)
            if len(rest) > LOG_LINE_BYTES_MAX:
                forward_line(rest, None)
                rest = b""
    except trio.ClosedResourceError:
        pass
    if rest:
        forward_line(rest, None)
    ended.set()
