"""Follow docs/UNIT_TESTS.md: its files are saved, and its tests pass under several seeds."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from test_tutorial import blocks_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "UNIT_TESTS.md"
FILES = {"shop.py", "test_cart.py", "test_shop.py"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    for block in blocks_of(PAGE.read_text(encoding="utf-8")):
        if block.file is not None:
            (folder / block.file).write_text(block.body, encoding="utf-8")
    return folder


def test_the_page_shows_the_files_that_it_names(project: Path) -> None:
    assert {path.name for path in project.iterdir()} == FILES


@pytest.mark.parametrize("seed", ["0", "7", "random"])
def test_its_tests_pass(project: Path, seed: str) -> None:
    """As a reader runs them, in a project of its own."""
    load = [] if entry_points(group="pytest11", name="shardfun") else ["-p", "shardfun.testing.plugin"]
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *load, "--shardfun-seed", seed]
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=project, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "22 passed" in done.stdout, done.stdout
