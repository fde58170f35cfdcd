"""Campaigns: what many runs, and two runs of one seed, come to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from shardfun.simulation import campaign
from shardfun.simulation.campaign import HASH_SEEDS, NONDETERMINISM, Plan, run_seeds
from shardfun.simulation.options import Options, draw
from shardfun.simulation.world import Outcome

FINE = Outcome("ok", "", {}, "d1")
OTHER = Outcome("ok", "", {}, "d2", ["other"])
FAILED = Outcome("difference", "2 pieces, expected 1", {}, "d3", ["an event"], ["crash:5"])


def test_two_runs_that_are_the_same_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if they have found something: that is what is told."""
    for outcome in (FINE, FAILED):
        (found,) = [(finding.kind, finding.what) for finding in _twice(monkeypatch, outcome, outcome)] or [("ok", "")]
        assert found == (outcome.kind, outcome.what)


def test_two_runs_that_differ_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether their events differ, or only what they have come to."""
    (finding,) = _twice(monkeypatch, FINE, OTHER)
    assert (finding.kind, finding.what) == (NONDETERMINISM, "two runs of this seed differ")
    same_trace = Outcome(FAILED.kind, FAILED.what, {}, FINE.digest)
    assert [finding.kind for finding in _twice(monkeypatch, FINE, same_trace)] == [NONDETERMINISM]


@pytest.mark.parametrize(("first", "second"), [(FINE, FAILED), (FAILED, FINE)], ids=["second", "first"])
def test_what_one_of_two_runs_has_found_is_kept(monkeypatch: pytest.MonkeyPatch, first: Outcome, second: Outcome) -> None:
    """Whichever it was: what it said, its faults and its last events."""
    (finding,) = _twice(monkeypatch, first, second)
    assert finding.kind == NONDETERMINISM
    assert "difference: 2 pieces, expected 1" in finding.what
    assert (finding.faults, finding.last) == (FAILED.faults, FAILED.last)


def _twice(monkeypatch: pytest.MonkeyPatch, first: Outcome, second: Outcome) -> list[campaign.Finding]:
    def outcomes(seeds: Sequence[int], _plan: Plan, _jobs: int, hash_seed: str) -> Iterator[tuple[Options, Outcome]]:
        return ((draw(seed), first if hash_seed == HASH_SEEDS[0] else second) for seed in seeds)

    monkeypatch.setattr(campaign, "_outcomes", outcomes)
    return run_seeds([1], Plan(), jobs=1, twice=True).findings
