"""A node as a user has one: a folder with a configuration and an application, and the command ``shardfun`` run in it.

Every process that comes from it carries a mark in its environment, so a test can prove that none is left.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shardfun.errors import UnavailableError
from shardfun.supervisor import query_status

MARK = "SHARDFUN_TEST_NODE"  # one underscore between the words, so it is no setting
EXIT_S = 120
"""Only a node that is stuck needs so long; others may share the machine."""
PIPE_BYTES = 1 << 20
"""Of output that nobody reads until the end. A node whose pipe is full stands still."""
APPS = Path(__file__).parent

SECTIONS = """
[checkpoint]
interval = "50 ms"

[supervision]
spares = 0
"""


class Node:
    """One node's folder.

    Args:
        folder: also the current directory of all its processes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "node.toml"
        self.data = folder / "data"
        self.temporary = Path(tempfile.mkdtemp(prefix="sf"))  # short: sockets are in it
        self._started: list[subprocess.Popen[str]] = []

    # ---- files -----------------------------------------------------------------------------------------------------------
    def configure(
        self, text: str, *, app: str = "rowdy:app", shards: int = 1, sections: str = SECTIONS, data_dir: str = "data"
    ) -> None:
        """Write the configuration: what every test needs, then ``text``."""
        self.data = self.folder / data_dir
        self.config.write_text(f'app = "{app}"\nname = "node"\ndata_dir = "{data_dir}"\nshards = {shards}\n{sections}\n{text}')

    def lines(self, name: str, records: Any) -> Path:
        """Write an ingress file of JSON lines; packed if its name says so."""
        text = "".join(f"{record if isinstance(record, str) else json.dumps(record)}\n" for record in records)
        path = self.folder / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    def out(self, pattern: str = "out-*.jsonl") -> list[Any]:
        """Everything published so far, shard by shard."""
        return [json.loads(line) for path in sorted(self.folder.glob(pattern)) for line in path.read_text().splitlines()]

    def published(self, pattern: str = "out-*.jsonl") -> int:
        """How many records that is, which is quicker to tell."""
        return sum(path.read_bytes().count(b"\n") for path in self.folder.glob(pattern))

    def outputs(self, pattern: str = "out-*.jsonl") -> dict[str, bytes]:
        """The output files as they are."""
        return {path.name: path.read_bytes() for path in self.folder.glob(pattern)}

    # ---- commands --------------------------------------------------------------------------------------------------------
    def run(self, *arguments: str, timeout: float = EXIT_S) -> subprocess.CompletedProcess[str]:
        """``shardfun run`` until it ends."""
        return self.command("run", str(self.config), *arguments, timeout=timeout)

    def finish(self, *arguments: str) -> dict[str, Any]:
        """``shardfun run``, which has to succeed; its summary."""
        done = self.run("--json", *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def command(self, *arguments: str, timeout: float = EXIT_S) -> subprocess.CompletedProcess[str]:
        """Any command."""
        process = self.popen(*arguments)
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            stdout, stderr = process.communicate()
            raise AssertionError(f"did not end within {timeout} s:\n{stderr}") from None
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)

    def popen(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command; ended at the end of the test at the latest."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SHARDFUN_")}
        environ |= {MARK: str(self.folder), "PYTHONPATH": str(APPS), "TMPDIR": str(self.temporary)}
        process = subprocess.Popen(
            [sys.executable, "-m", "shardfun", *arguments],
            cwd=self.folder,
            env=environ,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pipesize=PIPE_BYTES,
        )
        self._started.append(process)
        return process

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """``shardfun run`` in the background."""
        return self.popen("run", str(self.config), *arguments)

    def end(self, process: subprocess.Popen[str], number: int | None = None) -> tuple[int, str]:
        """Send a signal, if given, and wait for the end; exit code and standard error."""
        if number is not None:
            process.send_signal(number)
        try:
            _, stderr = process.communicate(timeout=EXIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            _, stderr = process.communicate()
            raise AssertionError(f"did not end:\n{stderr}") from None
        return process.returncode, stderr

    def kill(self, process: subprocess.Popen[str]) -> None:
        """SIGKILL the supervisor, and wait until its shards have noticed."""
        self.end(process, signal.SIGKILL)
        wait_for(lambda: not self.processes(), "the shards of a killed supervisor to end")

    def running_shards(self) -> list[int]:
        """The processes that serve a shard now."""
        try:
            status = query_status(self.data, 1.0)
        except UnavailableError:
            return []
        return [shard.pid for shard in status.shards if shard.pid and shard.state == "running"]

    def kill_shard(self, which: int = 0) -> int:
        """SIGKILL the process of a shard as soon as one runs; its process id."""

        def strike() -> int:
            if pids := self.running_shards():
                pid = pids[which % len(pids)]
                with contextlib.suppress(ProcessLookupError):  # it may just have ended by itself
                    os.kill(pid, signal.SIGKILL)
                    return pid
            return 0

        return wait_for(strike, "a shard to kill")

    def inspect(self, *arguments: str) -> Any:
        """``shardfun inspect --json``."""
        done = self.command("inspect", str(self.config), *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def letters(self) -> list[dict[str, Any]]:
        """All dead letters."""
        return self.inspect("--dead-letters")["letters"]

    # ---- what is left ----------------------------------------------------------------------------------------------------
    def processes(self) -> list[int]:
        """All living processes that come from this node."""
        mark = f"{MARK}={self.folder}\0".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    if mark in (entry / "environ").read_bytes() + b"\0":
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found

    def leftovers(self) -> list[str]:
        """Files that a failed start has made."""
        mine = {"node.toml", "__pycache__"}
        temporary = [entry.name for entry in self.temporary.iterdir()]
        return sorted(e.name for e in self.folder.iterdir() if e.name not in mine and e.suffix != ".py") + temporary

    def close(self) -> None:
        """End what the test has left running, and check that nothing outlives it."""
        for process in self._started:
            process.kill()
            if process.stdout is not None and not process.stdout.closed:
                process.communicate()
        wait_for(lambda: not self.processes(), "all processes to end")
        shutil.rmtree(self.temporary, ignore_errors=True)


def wait_for(condition: Callable[[], Any], what: str, timeout: float = EXIT_S) -> Any:
    """Until ``condition`` holds; its value."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {timeout} s for {what}"
        time.sleep(0.05)
    return value


def error_lines(stderr: str) -> list[str]:
    """What a person is told, without the log."""
    return [line.removeprefix("shardfun: error: ") for line in stderr.splitlines() if line.startswith("shardfun: error: ")]


def file_ingress(path: str = "in.jsonl", more: str = "") -> str:
    """An ingress that the application routes."""
    return f'[ingress.events]\nkind = "file"\npath = "{path}"\n{more}\n'


FILE_EGRESS = '[egress.out]\nkind = "file"\npath = "out-{partition}.jsonl"\n'
