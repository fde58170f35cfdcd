"""The types that an author sees are checked by mypy and pyright, as the author's editor would."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mypy import api

CASES = Path(__file__).with_name("typing_cases.py")
ROOT = CASES.parents[2]


def expected_errors() -> set[tuple[int, str]]:
    """The lines of the cases that must be objected to, with mypy's codes."""
    found = {
        (number, code)
        for number, line in enumerate(CASES.read_text(encoding="utf-8").splitlines(), 1)
        if (match := re.search(r"# error: ([a-z, -]+)$", line))
        for code in match[1].split(", ")
    }
    assert len(found) >= 10
    return found


def test_mypy_knows_what_state_is_and_objects_to_mistakes(tmp_path: Path) -> None:
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(tmp_path), "--follow-imports=silent"]
    output, problems, _ = api.run([*options, "--no-error-summary", "--hide-error-context", str(CASES)])
    assert not problems
    reported = {
        (int(match[1]), match[2])
        for match in re.finditer(r"typing_cases\.py:(\d+): error: .*\[([a-z-]+)\]$", output, re.MULTILINE)
    }
    assert reported == expected_errors(), output


def pyright_report() -> list[dict[str, Any]]:
    """What pyright says of the files that ``pyproject.toml`` names: the examples and the cases, in strict mode."""
    command = [sys.executable, "-m", "pyright", "--project", str(ROOT), "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, cwd=ROOT)
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        pytest.skip(
            f"pyright cannot run here (it needs Node.js, and fetches itself at first use): {done.stderr.strip()[-300:]}"
        )
    assert report["summary"]["filesAnalyzed"] > 10
    return list(report["generalDiagnostics"])


def test_pyright_in_strict_mode_objects_to_the_same_mistakes_and_to_nothing_in_the_examples() -> None:
    found = pyright_report()
    reported = {item["range"]["start"]["line"] + 1 for item in found if item["file"] == str(CASES)}
    assert reported == {line for line, _ in expected_errors()}, found
    assert [item for item in found if item["file"] != str(CASES)] == []
