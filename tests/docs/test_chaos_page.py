"""Follow docs/CHAOS.md: the check and the test on it are saved and do what the page says; every option and exit code is on it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest
from test_tutorial import blocks_of

from shardfun.cli.main import main

CLONE = Path(__file__).resolve().parents[2]
PAGE = CLONE / "docs" / "CHAOS.md"
PLUGIN = "shardfun.chaos.plugin"
FILES = {"checks.py", "test_visits.py"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("visits")
    for block in blocks_of(PAGE.read_text(encoding="utf-8")):
        if block.file is not None:
            (folder / block.file).write_text(block.body, encoding="utf-8")
    assert {path.name for path in folder.iterdir()} == FILES
    return folder


def in_project(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("PYTEST_", "SHARDFUN_"))}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=280, cwd=project, env=environment)


@pytest.mark.chaos
def test_its_test_passes(project: Path) -> None:
    """As a reader runs it, in a project of its own."""
    installed = [point.value for found in distributions(name="shardfun") for point in found.entry_points]
    load = [] if PLUGIN in installed else ["-p", PLUGIN]
    done = in_project(project, "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "--basetemp", "results", *load)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout, done.stdout


@pytest.mark.chaos
def test_its_check_judges_the_bank(project: Path) -> None:
    """The command with a check, on the configuration that the page names: one JSON object, and nothing of the user's touched."""
    config = str(CLONE / "conf" / "bank.toml")
    few = ["--kills", "2", "--failpoints", "0", "--supervisor-kills", "0", "--records", "3000", "--seed", "7"]
    done = in_project(project, "shardfun", "chaos", config, *few, "--check", "checks:nothing_lost", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["verdict"] == "equal"
    assert report["differences"] == []
    assert report["faults"] == {"kill_shard": 2}
    assert report["sigkills"] == 2
    assert report["records"] == 3000
    assert [fault["kind"] for fault in report["timeline"]] == ["kill_shard"] * 2
    assert any(note.startswith("data_dir: ") for note in report["notes"])
    assert report["folder"] == ""


def test_every_option_is_on_the_page_or_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chaos", "--help"]) == 0
    options = set(re.findall(r"(--[a-z][a-z-]+)", capsys.readouterr().out))
    named = set(re.findall(r"(--[a-z][a-z-]+)", PAGE.read_text()))
    assert named - options == set()
    assert options - named - {"--help", "--debug", "--set"} == set()
