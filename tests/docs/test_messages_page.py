"""Follow docs/MESSAGES.md: its files are saved, imported, and its tests pass."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from test_tutorial import blocks_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "MESSAGES.md"


def test_the_examples_do_what_the_page_says(tmp_path: Path) -> None:
    for block in blocks_of(PAGE.read_text(encoding="utf-8")):
        if block.file is not None:
            (tmp_path / block.file).write_text(block.body, encoding="utf-8")
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 passed" in done.stdout, done.stdout
