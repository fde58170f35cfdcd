"""Runs scripts as users do, each in a folder of its own, and tells what they leave behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

MARK = "SHARDFUN_TEST_SCRIPT"  # one underscore between the words, so it is no setting
WAIT_S = 60.0

APP = """\
import asyncio, os, sys, time
import msgspec, trio
from shardfun import App, BlockingSupervisor, Context, State, Supervisor, Value, value

class Add(msgspec.Struct, frozen=True):
    n: int

class Count(State):
    total: Value[int] = value(0)
    items: Value[list[Add]] = value(default_factory=list)

app = App("script", egresses=["totals"])

@app.function("script/counter")
def counter(ctx: Context[Count], message: Add | list[Add]) -> None:
    added = message if isinstance(message, list) else [message]
    ctx.state.total += sum(item.n for item in added)
    ctx.state.items.extend(added)
    ctx.emit("totals", ctx.state.total)
    if ctx.caller is not None:
        ctx.reply(ctx.state.total)

FAST = {"checkpoint": {"interval": "40 ms"}, "supervision": {"spares": 0}, "shards": 1}
"""

BODIES = {
    "blocking": """
def main():
    with BlockingSupervisor(app, data_dir="data", **FAST) as node:
        print("running", flush=True)
        while True:
            node.send("script/counter", "a", Add(1))
            print("sent", flush=True)
""",
    "asyncio": """
async def work():
    async with Supervisor(app, data_dir="data", **FAST) as node:
        print("running", flush=True)
        while True:
            await node.send("script/counter", "a", Add(1))
            print("sent", flush=True)

def main():
    asyncio.run(work())
""",
    "trio": """
async def work():
    async with Supervisor(app, data_dir="data", **FAST) as node:
        print("running", flush=True)
        while True:
            await node.send("script/counter", "a", Add(1))
            print("sent", flush=True)

def main():
    trio.run(work)
""",
}  # fmt: skip

GUARD = """
if __name__ == "__main__":
    main()
"""


class Script:
    """A script in a folder, and the processes that came from it."""

    def __init__(self, folder: Path, text: str, name: str = "script.py") -> None:
        self.folder = folder
        self.path = folder / name
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(text)
        self.temporary = Path(tempfile.mkdtemp(prefix="sfs"))
        self._output = folder / "output"

    def environment(self) -> dict[str, str]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SHARDFUN_")}
        return environ | {MARK: str(self.folder), "TMPDIR": str(self.temporary)}

    def start(self, *arguments: str, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        with self._output.open("wb") as output:
            return subprocess.Popen(
                [sys.executable, *(arguments or (str(self.path),))],
                cwd=cwd or self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def run(self, *arguments: str, cwd: Path | None = None) -> tuple[int, str]:
        return self.end(self.start(*arguments, cwd=cwd))

    def end(self, process: subprocess.Popen[bytes], *signals: int, between_s: float = 0.1) -> tuple[int, str]:
        for number in signals:
            process.send_signal(number)
            time.sleep(between_s)
        try:
            process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"did not end:\n{self.output()}") from None
        return process.returncode, self.output()

    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def command(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "shardfun", *arguments],
            cwd=self.folder,
            env=self.environment(),
            input=stdin,
            text=True,
            capture_output=True,
            timeout=WAIT_S,
            check=False,
        )

    def processes(self) -> list[int]:
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

    def left(self) -> list[str]:
        """Processes, and what is in the folder for temporary files."""
        return [*map(str, self.processes()), *(entry.name for entry in self.temporary.iterdir())]

    def close(self) -> None:
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.temporary, ignore_errors=True)


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {WAIT_S} s for {what}"
        time.sleep(0.02)
