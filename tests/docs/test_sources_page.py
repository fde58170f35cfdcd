"""docs/SOURCES_AND_SINKS.md: its examples run as they are written, or stand in the files that it says."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from test_tutorial import Block, blocks_of

from shardfun.config import config_from_mapping

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = blocks_of((ROOT / "docs" / "SOURCES_AND_SINKS.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("block", [block for block in BLOCKS if " in=" in block.info], ids=lambda block: block.info)
def test_shown_code_is_that_of_the_example(block: Block) -> None:
    shown = "".join(block.body.split())
    assert shown in "".join((ROOT / block.info.partition(" in=")[2]).read_text(encoding="utf-8").split())


def test_the_generator_and_its_test_run(tmp_path: Path) -> None:
    for block in BLOCKS:
        if "file=" in block.info:
            (tmp_path / block.info.partition("file=")[2]).write_text(block.body)
    (test,) = [block for block in BLOCKS if block.info == "python"]
    (tmp_path / "try.py").write_text(test.body)
    done = subprocess.run(
        [sys.executable, "try.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_sections_shown_are_configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tomllib

    (tmp_path / "orders.token").write_text("secret")
    (tmp_path / "orders.token").chmod(0o600)
    shown = [tomllib.loads(block.body) for block in BLOCKS if block.info == "toml"]
    sections = [table for table in shown if "project" not in table]
    assert len(sections) == 3
    for table in sections:
        config_from_mapping({"app": "a:b"} | table, name="page", directory=tmp_path)


def test_the_example_runs(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SHARDFUN_")} | {
        "PYTHONPATH": str(ROOT)
    }

    def run(*arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "tickets.toml").write_text((ROOT / "conf" / "tickets.toml").read_text())
    run("shardfun.examples.tickets", "data/tickets-changes.db")
    run("shardfun", "run", "conf/tickets.toml")
    database = sqlite3.connect(tmp_path / "data" / "tickets-history.db")
    ((opened,),) = sqlite3.connect(tmp_path / "data" / "tickets-changes.db").execute("SELECT sum(open) FROM changes").fetchall()
    assert database.execute("SELECT count(*), count(DISTINCT ticket || ' ' || times) FROM history").fetchall() == [
        (opened, opened)
    ]
