"""A plan is what was asked for, the same for a seed, and hits what can be hit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfun.chaos.plan import Counts, Kind, make_plan
from shardfun.chaos.points import STEPS
from shardfun.errors import ConfigurationError
from shardfun.failpoints import DISK_POINTS, Action, Point

NUMBERS = st.integers(0, 12)
COUNTS = st.builds(Counts, *[NUMBERS] * 8)


@given(st.integers(0, 1 << 40), COUNTS, st.integers(1, 6), st.booleans())
def test_as_many_faults_of_each_kind_as_asked_for(seed: int, counts: Counts, shards: int, publishes: bool) -> None:  # noqa: FBT001 - hypothesis calls it
    plan = make_plan(seed, counts, shards=shards, publishes=publishes)
    assert sorted(fault.kind for fault in plan.faults) == sorted(counts.kinds())
    assert plan == make_plan(seed, counts, shards=shards, publishes=publishes)
    assert plan.duration_s >= 0.0
    for fault in plan.faults:
        assert (fault.point is not None) is (fault.kind is Kind.FAILPOINT)
        if fault.point is not None:
            step = STEPS[fault.point]
            assert shards > 1 or not step.peers
            assert publishes or step.when != "publishing"
            assert fault.recovered
            assert fault.action in {Action.KILL, Action.STOP} or fault.point in DISK_POINTS
        assert fault.recovered or fault.kind is not Kind.FULL_DISK
    ends = [fault.point is Point.FINISH for fault in plan.faults]
    assert sum(ends) <= 1
    assert not any(ends[:-1])


def test_without_spares_shards_are_killed_instead() -> None:
    plan = make_plan(1, Counts(kill_spare=3), shards=2, spares=0)
    assert [fault.kind for fault in plan.faults] == [Kind.KILL_SHARD] * 3


def test_every_point_comes_before_any_comes_again() -> None:
    plan = make_plan(1, Counts(failpoint=len(STEPS)), shards=3)
    assert {fault.point for fault in plan.faults} == set(Point)
    assert set(STEPS) == set(Point)


def test_named_points() -> None:
    plan = make_plan(1, Counts(), shards=2, points=("manifest-renamed", "delta-written=EIO"))
    found = {fault.point: fault.action for fault in plan.faults}
    assert found.keys() == {Point.MANIFEST_RENAMED, Point.DELTA_WRITTEN}
    assert found[Point.DELTA_WRITTEN] is Action.EIO


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("cut-mad", "failpoint cut-mad: there is no such step; did you mean 'cut-made'"),
        ("cut-made=ENOSPC", "failpoint cut-made=ENOSPC: a disk can fail at apply-chunk, "),
        ("cut-made=die", "failpoint cut-made=die: expected one of kill, stop, ENOSPC, EIO behind '='"),
        ("cut-made=", "failpoint cut-made=: expected one of kill, "),
    ],
)
def test_what_cannot_happen_at_a_point_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        make_plan(1, Counts(), shards=2, points=(text,))
    assert str(raised.value).startswith(problem)


@given(st.integers(0, 500))
def test_counts_of_kills(kills: int) -> None:
    """The rest follows the kills, and what is given stays."""
    counts = Counts.of(kills)
    assert counts.kill_shard + counts.kill_spare == kills
    assert Counts.of(kills, supervisor_kills=3, freezes=0, failpoints=0, full_disk=2).kinds() == [
        *[Kind.KILL_SHARD] * counts.kill_shard,
        *[Kind.KILL_SPARE] * counts.kill_spare,
        *[Kind.KILL_SUPERVISOR] * 3,
        *[Kind.FULL_DISK] * 2,
    ]
    freezes = Counts.of(0, freezes=kills)
    assert freezes.freeze_shard + freezes.blink_shard + freezes.freeze_supervisor == kills


@pytest.mark.parametrize("wrong", [-1, "3", 1.5, True])
def test_a_number_of_faults_is_a_number(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match="freezes: expected a number of faults from 0, got"):
        Counts.of(3, freezes=wrong)  # type: ignore[arg-type]
