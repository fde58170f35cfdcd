"""Follow docs/SIMULATION.md: its files are saved, its commands typed, and what comes is what it shows."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_tutorial import blocks_of, typed_in

from shardfun.testing import Simulation

PAGE = Path(__file__).resolve().parents[2] / "docs" / "SIMULATION.md"
TEXT = PAGE.read_text(encoding="utf-8")
TYPED = [typed for block in blocks_of(TEXT) if block.terminal for typed in typed_in(block.body)]
EXIT_CODES = [1, 0, 0]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    for block in blocks_of(TEXT):
        if block.file is not None:
            (folder / block.file).write_text(block.body, encoding="utf-8")
    return folder


@pytest.mark.parametrize(("number", "code"), list(enumerate(EXIT_CODES)))
def test_its_commands_print_what_it_shows(project: Path, number: int, code: int) -> None:
    """``...`` stands for anything."""
    assert len(TYPED) == len(EXIT_CODES)
    command, shown = TYPED[number]
    command = command.replace("--max-findings 1", "--max-findings 1 --shrink-time 4")  # which is long enough here
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=project, env=environment, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == code, done.stdout + done.stderr
    pattern = re.escape(shown.strip()).replace(re.escape("..."), ".*")
    assert re.fullmatch(pattern, done.stdout.strip(), re.DOTALL), done.stdout


def test_it_lists_all_arguments_of_a_simulation() -> None:
    """And no other."""
    listed = re.findall(r"^\| `(\w+)` \| (?!from)", TEXT, re.MULTILINE)
    assert listed == [name for name in inspect.signature(Simulation).parameters if name != "app"]
