"""docs/STATE.md: every example runs as it is written, each as a file of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_tutorial import Block, blocks_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "STATE.md"
EXAMPLES = [block for block in blocks_of(PAGE.read_text(encoding="utf-8")) if block.info == "python"]


def _title(block: Block) -> str:
    return next(line for line in block.body.splitlines() if line.startswith("app = ")).split('"')[1]


def test_there_is_an_example_of_each_part() -> None:
    assert [_title(block) for block in EXAMPLES] == ["values", "maps", "buffers", "registry", "expiry", "deleting"]


@pytest.mark.parametrize("block", EXAMPLES, ids=_title)
def test_an_example_runs(block: Block) -> None:
    assert "assert " in block.body, "an example shows what it does"
    exec(compile(block.body, f"{PAGE.name}: {_title(block)}", "exec", dont_inherit=True), {"__name__": "example"})
