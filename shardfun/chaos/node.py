"""A node as a user starts it, in a process group of its own, whose processes and files can all be found.

Every process that comes from it carries a mark in its environment, and its temporary folder is private: so it can be shown that
nothing is left of it, and whoever gives up can end what was started and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec

from shardfun.errors import UnavailableError
from shardfun.model.status import NodeStatus
from shardfun.supervisor import query_status
from shardfun.supervisor.leftovers import RUNTIME_PREFIX

MARK: Final = "SHARDFUN_CHAOS_NODE"
SETTINGS_PREFIX: Final = "SHARDFUN_"
TEMPORARY_PREFIX: Final = "chaos-"
ANSWER_S: Final = 1.0
POLL_S: Final = 0.02
START_S: Final = 60.0
LINE_MAX: Final = 500
TAIL_LINES: Final = 12


class NodeFailedError(Exception):
    """The node has ended by itself, or does not do in time what it has to: what the runner looks for."""


class NodeFinishedError(NodeFailedError):
    """It has come to its regular end, while something else was expected of it."""


class Node:
    """One configuration, started as often as wanted, always with the same command.

    Args:
        config: the TOML text.
        folder: gets configuration and log.
        data_dir: of the configuration.
        environ: more variables for its processes.
    """

    def __init__(
        self, folder: Path, config: str, data_dir: Path | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.config = folder / "node.toml"
        self.data_dir = folder / "data" if data_dir is None else data_dir
        self.log = folder / "node.log"
        self.temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX))  # not in ``folder``: socket addresses are short
        self.process: subprocess.Popen[bytes] | None = None
        self._mark = uuid.uuid4().hex
        # What the user's environment says is in the configuration already, and would overrule what was redirected there.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS_PREFIX)}
        self._environment = {**inherited, **(environ or {}), MARK: self._mark, "TMPDIR": str(self.temporary)}
        self.config.write_text(config)

    # ---- life ------------------------------------------------------------------------------------------------------------
    @property
    def command(self) -> list[str]:
        """What starts it."""
        return [sys.executable, "-m", "shardfun", "run", str(self.config), "--no-progress", "--log-json", "--json"]

    def start(self) -> None:
        """Start it."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment, start_new_session=True
            )

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the supervisor alone."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, timeout_s: float) -> int:
        """The supervisor's exit code.

        Raises:
            NodeFailedError: it has not ended in time.
        """
        assert self.process is not None
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            msg = f"the node has not come to its end within {timeout_s:.0f} s; the last status: {self.status()}\n{self.log_tail()}"
            raise NodeFailedError(msg) from None

    @property
    def ended(self) -> bool:
        """Whether the supervisor has ended."""
        return self.process is None or self.process.poll() is not None

    def close(self) -> None:
        """End whatever is left, and remove the temporary folder."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
        shutil.rmtree(self.temporary, ignore_errors=True)

    def raise_ended(self) -> NoReturn:
        """It has ended, and nobody did that.

        Raises:
            NodeFinishedError: with exit code 0.
            NodeFailedError: with another one.
        """
        code = self.wait(0)
        msg = f"the node has ended by itself, with exit code {code}\n{self.log_tail()}"
        raise NodeFailedError(msg) if code else NodeFinishedError(msg)

    # ---- what can be seen ------------------------------------------------------------------------------------------------
    def status(self) -> NodeStatus | None:
        """What it says of itself; ``None`` if it does not answer (just starting, dead, stopped)."""
        try:
            return query_status(self.data_dir, ANSWER_S)
        except UnavailableError:
            return None

    def until(self, reached: Callable[[NodeStatus], bool], timeout_s: float = START_S) -> NodeStatus:
        """Ask for the status until it is as wanted.

        Raises:
            NodeFailedError: the node has ended, or it takes too long.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            status = self.status()
            if status is not None and reached(status):
                return status
            if self.ended:
                self.raise_ended()
            if time.monotonic() > deadline:
                msg = f"the node does not run again within {timeout_s:g} s; the last status: {status}\n{self.log_tail()}"
                raise NodeFailedError(msg)
            time.sleep(POLL_S)

    def processes(self) -> list[int]:
        """The pids of all live processes that come from this node, restarts included."""
        mark = f"{MARK}={self._mark}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):  # gone meanwhile
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
        return found

    def leftovers(self, *, strict: bool = True) -> list[str]:
        """What a node that has ended cleanly may not leave behind.

        Args:
            strict: nothing at all; else only the node's own: an application's functions may start processes and make temporary files.
        """
        left = [f"process {pid}" for pid in self.processes() if strict or _is_shardfun(pid)]
        left += [str(path) for path in sorted(self.temporary.rglob("*" if strict else f"{RUNTIME_PREFIX}*"))]
        if (self.data_dir / "node.json").exists():
            left.append(str(self.data_dir / "node.json"))
        return left

    def events(self) -> list[dict[str, Any]]:
        """The log lines of all starts, as objects, and the summaries of those that came to their end."""
        found = []
        lines = self.log.read_bytes().splitlines() if self.log.exists() else []
        for line in lines:
            if line.startswith(b'{"'):
                with contextlib.suppress(msgspec.DecodeError):  # torn by a death
                    found.append(msgspec.json.decode(line))
        return found

    def log_tail(self, lines: int = TAIL_LINES) -> str:
        """The end of the log, for messages."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(line[:LINE_MAX] for line in text.splitlines()[-lines:])


def _is_shardfun(pid: int) -> bool:
    """Whether a process was started as supervisor, shard, spare or door."""
    try:
        _, *arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:  # gone meanwhile
        return False
    return arguments[:1] == [b"-m"] and arguments[1].partition(b".")[0] == b"shardfun"
