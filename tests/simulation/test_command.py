"""The command ``shardfun simulate``: exit codes, output for people and programs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shardfun.cli.main import main


def test_seeds_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Programs get figures, findings and digests, and exit code 0 if nothing was found."""
    assert main(["simulate", "--seeds", "1:2", "--jobs", "1", "--json"]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (report["seeds"], report["findings"], list(report["digests"])) == (2, [], ["1", "2"])
    assert report["figures"]["messages"] >= 4000


def test_a_finding_says_all_that_is_needed_to_repeat_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Seed, options, kind, last events and the command; exit code 1."""
    assert main(["simulate", "--seeds", "1:2", "--jobs", "1", "--no-shrink", "--mutation", "apply-before-commit"]) == 1
    out = capsys.readouterr().out
    assert "seed 1: correctness: shard" in out
    assert "window_frames" in out
    assert "delta written" in out
    assert "repeat: shardfun simulate --seed 1 --mutation apply-before-commit" in out


def test_a_seed_is_repeated_with_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    """Every event is a line, and the digest is that of the campaign."""
    assert main(["simulate", "--seeds", "3:3", "--jobs", "1", "--json"]) == 0
    digest = json.loads(capsys.readouterr().out)["digests"]["3"]
    assert main(["simulate", "--seed", "3"]) == 0
    out = capsys.readouterr().out
    assert f"digest of the trace: {digest}" in out
    assert "manifest durable" in out
    assert "no violation" in out


def test_mutations_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Names and what each does."""
    assert main(["simulate", "--mutation", "list"]) == 0
    assert "no-channel-log" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["--seeds", "5:1"], ["--seeds", "x"], ["--mutation", "typo"], ["--workload", "typo"], ["--jobs", "0"]]
)
def test_wrong_arguments_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """One line that says what was expected; exit code 2, and nothing runs."""
    assert main(["simulate", *arguments]) == 2
    assert "expected" in capsys.readouterr().err
