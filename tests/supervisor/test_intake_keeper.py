"""The supervisor tells owners what checkpoints have read, and removes only what no checkpoint that is kept needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shardfun.errors import StorageError
from shardfun.intake.log import CONSUMED, LogWriter
from shardfun.intake.log_files import load_mark, segments
from shardfun.supervisor.intake import IntakeKeeper


@pytest.fixture
def ends(tmp_path: Path) -> list[int]:
    """A log of the owner ``http`` with a segment for each entry; where they end."""
    writer = LogWriter(tmp_path / "http", segment_bytes=1)
    writer.open()
    found = [writer.append([(1, b"x")]) for _ in range(6)]
    writer.close()
    return found


def told(folder: Path) -> int | None:
    mark = load_mark(folder / "http" / CONSUMED)
    return None if mark is None else mark.offset


def complete(keeper: IntakeKeeper, *positions: int | None) -> bool:
    wanted = keeper.completed([{"~http": position, "events": 3} for position in positions])
    if wanted:
        keeper.tend()
    return wanted


def test_the_slowest_shard_counts(tmp_path: Path, ends: list[int]) -> None:
    keeper = IntakeKeeper(tmp_path, {})
    assert not complete(keeper, ends[3], None)
    assert keeper.consumed == {"local": 0, "http": 0}
    complete(keeper, ends[3], ends[1])
    assert keeper.consumed == {"local": 0, "http": ends[1]}
    assert told(tmp_path) == ends[1]


def test_segments_stay_while_a_kept_manifest_needs_them(tmp_path: Path, ends: list[int]) -> None:
    keeper = IntakeKeeper(tmp_path, {})
    for index in range(3):
        complete(keeper, ends[index])
        assert segments(tmp_path / "http") == [0, *ends[:-1]][min(1, max(0, index - 1)) :]
    complete(keeper, ends[5])
    assert segments(tmp_path / "http") == ends[1:-1]
    complete(keeper, ends[5])
    complete(keeper, ends[5])
    assert segments(tmp_path / "http") == ends[4:-1]


def test_when_nothing_moves_nothing_is_done(tmp_path: Path, ends: list[int]) -> None:
    keeper = IntakeKeeper(tmp_path, {})
    assert [complete(keeper, ends[2]) for _ in range(6)] == [True, False, True, False, False, False]
    assert segments(tmp_path / "http") == ends[2:-1]


def test_it_begins_at_what_the_manifest_says(tmp_path: Path) -> None:
    assert IntakeKeeper(tmp_path, {"~http": [30, 20], "~local": [None, 5]}).consumed == {"http": 20, "local": 0}


def test_what_could_not_be_told_is_told_after_the_next_checkpoint(
    tmp_path: Path, ends: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = IntakeKeeper(tmp_path, {})

    def full(*_: Any) -> None:
        raise StorageError("no space")

    with monkeypatch.context() as patch:
        patch.setattr("shardfun.supervisor.intake.save_mark", full)
        assert complete(keeper, ends[2])
        assert told(tmp_path) is None
    assert complete(keeper, ends[2])
    assert told(tmp_path) == ends[2]


def test_without_a_log_nothing_is_made(tmp_path: Path) -> None:
    keeper = IntakeKeeper(tmp_path / "intake", {})
    complete(keeper, 5)
    assert not (tmp_path / "intake").exists()
