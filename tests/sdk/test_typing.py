"""The types that an author sees are checked by mypy, as the author's editor would."""

from __future__ import annotations

import re
from pathlib import Path

from mypy import api

CASES = Path(__file__).with_name("typing_cases.py")
ROOT = CASES.parents[2]


def test_mypy_knows_what_state_is_and_objects_to_mistakes(tmp_path: Path) -> None:
    expected = {
        (number, code)
        for number, line in enumerate(CASES.read_text(encoding="utf-8").splitlines(), 1)
        if (found := re.search(r"# error: ([a-z, -]+)$", line))
        for code in found[1].split(", ")
    }
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(tmp_path), "--follow-imports=silent"]
    output, problems, _ = api.run([*options, "--no-error-summary", "--hide-error-context", str(CASES)])
    assert not problems
    reported = {
        (int(match[1]), match[2])
        for match in re.finditer(r"typing_cases\.py:(\d+): error: .*\[([a-z-]+)\]$", output, re.MULTILINE)
    }
    assert len(expected) >= 10
    assert reported == expected, output
