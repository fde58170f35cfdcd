"""A node as a user starts it, in a process group of its own, whose processes and files can all be found.

Every process that comes from it carries a mark in its environment, and its temporary folder is private: so a test can prove that
nothing is left of it, and a test that fails can end what it started and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shardfun.errors import UnavailableError
from shardfun.model.status import NodeStatus
from shardfun.supervisor import query_status

MARK = "CHAOS_NODE"
ANSWER_S = 1.0
POLL_S = 0.02
START_S = 60.0
LINE_MAX = 500


class Node:
    """One configuration, started as often as wanted.

    Args:
        config: the TOML text; ``data_dir`` in it is ``data``.
        folder: gets configuration, data directory and log.
    """

    def __init__(self, folder: Path, config: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "node.toml"
        self.data_dir = folder / "data"
        self.log = folder / "node.log"
        self.temporary = Path(tempfile.mkdtemp(prefix="chaos-"))  # not in ``folder``: socket addresses are short
        self.process: subprocess.Popen[bytes] | None = None
        self._mark = uuid.uuid4().hex
        self.config.write_text(config)

    # ---- life ------------------------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Start it, always with the same command."""
        command = [sys.executable, "-m", "shardfun", "run", str(self.config), "--no-progress", "--log-json", "--json"]
        environment = {**os.environ, MARK: self._mark, "TMPDIR": str(self.temporary)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the supervisor alone."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, timeout_s: float) -> int:
        """Its exit code."""
        assert self.process is not None
        return self.process.wait(timeout_s)

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

    # ---- what can be seen ------------------------------------------------------------------------------------------------
    def status(self) -> NodeStatus | None:
        """What it says of itself; ``None`` if it does not answer (just starting, dead, stopped)."""
        try:
            return query_status(self.data_dir, ANSWER_S)
        except UnavailableError:
            return None

    def until(self, reached: Callable[[NodeStatus], bool], timeout_s: float = START_S) -> NodeStatus:
        """Ask for the status until it is as wanted."""
        deadline = time.monotonic() + timeout_s
        while True:
            status = self.status()
            if status is not None and reached(status):
                return status
            assert not self.ended, f"the node ended with exit code {self.wait(0)}\n{self.log_tail()}"
            assert time.monotonic() < deadline, f"not reached in {timeout_s:g} s; the last status: {status}\n{self.log_tail()}"
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

    def leftovers(self) -> list[str]:
        """What a node that has ended cleanly may not leave behind."""
        left = [f"process {pid}" for pid in self.processes()]
        left += [str(path) for path in sorted(self.temporary.rglob("*"))]
        if (self.data_dir / "node.json").exists():
            left.append(str(self.data_dir / "node.json"))
        return left

    def events(self) -> list[dict[str, Any]]:
        """The log lines of all starts, as objects."""
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text(errors="replace").splitlines() if line.startswith('{"')]

    def log_tail(self, lines: int = 30) -> str:
        """The end of the log, for the message of a failed test."""
        return "\n".join(line[:LINE_MAX] for line in self.log.read_text(errors="replace").splitlines()[-lines:])
