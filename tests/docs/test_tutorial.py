"""Follow docs/TUTORIAL.md to the letter: write its files, type its commands, compare what comes with what it shows.

How the page is read: a fenced block ``LANGUAGE file=NAME`` is saved under that name. In a block ``console`` each line after ``$ ``
is typed, and what follows is its output, in which ``...`` stands for anything. ``console first terminal`` that ends with a command
and no output leaves it running; ``console second terminal`` is typed meanwhile; a block of the first terminal that begins without
``$`` is what that command has printed by its end.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "TUTORIAL.md"
COMMAND_TIMEOUT_S = 120.0
POLL_S = 0.05
ERROR = "shardfun: error:"


class Block(NamedTuple):
    info: str
    body: str

    @property
    def file(self) -> str | None:
        found = re.search(r"\bfile=(\S+)", self.info)
        return None if found is None else found[1]

    @property
    def terminal(self) -> str | None:
        words = self.info.split()
        return None if words[:1] != ["console"] else words[1] if len(words) > 1 else "first"


class Typed(NamedTuple):
    command: str
    shown: str


def blocks_of(page: str) -> list[Block]:
    return [Block(info.strip(), body) for info, body in re.findall(r"^```(.*?)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)]


def typed_in(body: str) -> list[Typed]:
    parts = re.split(r"^\$ (.*)\n", body, flags=re.MULTILINE)[1:]
    return [Typed(command, shown) for command, shown in zip(parts[::2], parts[1::2], strict=True)]


class Terminal:
    """A shell that stays, so that ``cd`` holds; what is running in it may be left alone for a while."""

    def __init__(self, folder: Path, name: str) -> None:
        self.running = ""
        self._screen = folder / f"{name}.screen"
        self._read = 0
        self._count = 0
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SHARDFUN_")}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        home = folder / "home"
        home.mkdir(exist_ok=True)
        with self._screen.open("wb") as screen:
            self._shell = subprocess.Popen(
                ["bash", "--noprofile", "--norc"],
                stdin=subprocess.PIPE,
                stdout=screen,
                stderr=subprocess.STDOUT,
                cwd=home,
                env=environment,
                start_new_session=True,
            )

    def type(self, command: str) -> None:
        assert not self.running, f"{self.running!r} is still running"
        self.running = command
        self._count += 1
        assert self._shell.stdin is not None
        # the command gets no input: else it would read what is typed after it
        self._shell.stdin.write(f"{{ {command}\n}} </dev/null; printf '\\n<%s %s>\\n' end-{self._count} $?\n".encode())
        self._shell.stdin.flush()

    def wait(self) -> tuple[str, int]:
        """What the running command has printed, and its exit code, once it has ended."""
        end = re.compile(rf"\n<end-{self._count} (\d+)>\n")
        deadline = time.monotonic() + COMMAND_TIMEOUT_S
        while True:
            text = self._screen.read_text(errors="replace")[self._read :]
            found = end.search(text)
            if found is not None:
                self._read += found.end()
                self.running = ""
                return text[: found.start()], int(found[1])
            assert time.monotonic() < deadline, f"{self.running!r} has not ended after {COMMAND_TIMEOUT_S:g} s; so far:\n{text}"
            time.sleep(POLL_S)

    def run(self, command: str) -> tuple[str, int]:
        self.type(command)
        return self.wait()

    def close(self) -> None:
        if self._shell.poll() is None:
            os.killpg(self._shell.pid, signal.SIGKILL)  # its own session, made above
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        self._shell.wait()


def check(command: str, shown: str, came: str, code: int) -> None:
    pattern = re.escape(shown.rstrip("\n")).replace(re.escape("..."), ".*?")
    # a status table is padded to its columns: blanks at the end of a line are not seen
    came = re.sub(r"[ \t]+$", "", came, flags=re.MULTILINE).rstrip("\n")
    assert re.fullmatch(pattern, came, re.DOTALL), f"$ {command}\n--- shown:\n{shown}\n--- came:\n{came}"
    expected = 2 if shown.startswith(ERROR) else 0
    assert code == expected, f"$ {command}: expected exit code {expected}, got {code}:\n{came}"


def wait_for_records(terminal: Terminal, folder: str) -> None:
    """A reader needs a moment to change the terminal; meanwhile the node has read something."""
    deadline = time.monotonic() + COMMAND_TIMEOUT_S
    while True:
        text, code = terminal.run(f"shardfun status {folder}/*.toml --json")
        if code == 0 and json.loads(text)["records_in"]:
            return
        assert time.monotonic() < deadline, f"the node does not run: {text}"
        time.sleep(POLL_S)


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[dict[str, Terminal]]:
    opened = {name: Terminal(tmp_path, name) for name in ("first", "second")}
    yield opened
    for terminal in opened.values():
        terminal.close()


def test_the_tutorial_works_as_it_is_written(terminals: dict[str, Terminal]) -> None:
    """Every file is saved, every command typed, every output as shown, the SIGKILL in the middle included."""
    blocks = blocks_of(TUTORIAL.read_text(encoding="utf-8"))
    assert any("kill -9" in block.body for block in blocks)
    first, second = terminals["first"], terminals["second"]
    folder = first.run("pwd")[0].strip()
    for block, following in zip(blocks, [*blocks[1:], Block("", "")], strict=True):
        if block.file is not None:
            (Path(folder) / block.file).write_text(block.body, encoding="utf-8")
        elif block.terminal is not None:
            terminal = terminals[block.terminal]
            if terminal.running:
                command = terminal.running
                check(command, block.body, *terminal.wait())
                continue
            if terminal is second:
                wait_for_records(second, folder)
            steps = typed_in(block.body)
            assert steps, f"a block without a command, and nothing is running: {block.body}"
            for step in steps:
                terminal.type(step.command)
                if step is steps[-1] and following.terminal == "second" and terminal is first:
                    assert not step.shown
                    break
                check(step.command, step.shown, *terminal.wait())
            if not first.running:
                folder = first.run("pwd")[0].strip()
    assert not any(terminal.running for terminal in terminals.values()), "the page does not show how a command ended"
