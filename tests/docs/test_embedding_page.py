"""Run the programs of docs/EMBEDDING.md as they stand there; each is short, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from test_tutorial import blocks_of, typed_in

import shardfun
from shardfun import embedding

PAGE = Path(__file__).resolve().parents[2] / "docs" / "EMBEDDING.md"
TEXT = PAGE.read_text(encoding="utf-8")
LINES_MAX = 20
PROGRAMS = {block.file: block.body for block in blocks_of(TEXT) if block.file is not None}
TYPED = [typed for block in blocks_of(TEXT) if block.terminal for typed in typed_in(block.body)]


def test_there_is_a_program_for_each_way_and_it_is_short() -> None:
    assert list(PROGRAMS) == ["hello_trio.py", "hello_asyncio.py", "hello_blocking.py"]
    assert {name: len(body.splitlines()) for name, body in PROGRAMS.items() if len(body.splitlines()) > LINES_MAX} == {}
    assert [typed.command for typed in TYPED] == [f"python {name}" for name in PROGRAMS]


@pytest.mark.parametrize("typed", TYPED, ids=lambda typed: typed.command)
def test_it_does_what_the_page_shows(typed, tmp_path: Path) -> None:
    name = typed.command.removeprefix("python ")
    (tmp_path / name).write_text(PROGRAMS[name], encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="sfd") as temporary:
        environment = {key: text for key, text in os.environ.items() if not key.startswith("SHARDFUN_")}
        done = subprocess.run(
            [sys.executable, name],
            cwd=tmp_path,
            env=environment | {"TMPDIR": temporary},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, typed.shown, "")
        assert list(Path(temporary).iterdir()) == []


def test_every_method_of_a_node_is_on_the_page() -> None:
    public = {name for name in vars(embedding.NodeHandle) if not name.startswith("_")}
    assert {name for name in public if f"node.{name}(" not in TEXT} == set()
    blocking = {name for name in vars(embedding.BlockingNode) if not name.startswith("_")}
    assert blocking == public
    assert shardfun.Supervisor is embedding.Supervisor
    assert shardfun.BlockingSupervisor is embedding.BlockingSupervisor
