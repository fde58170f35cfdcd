"""Real drivers and a real supervisor in virtual time, under every kind of trouble: what is published is that of an undisturbed run."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from shell_app import adds
from shell_faults import (
    ALL,
    Disturbance,
    bad_disk,
    clock_jumps,
    drawn,
    freezes,
    full_disk,
    kills,
    late_control,
    letters,
    long_functions,
    network,
    points,
    queries,
    spares,
    stops,
    supervisor_dies,
    supervisors,
    times,
    together,
)
from shell_jobs import bank
from shell_world import run_world

RECORDS = 60
SHORT_SEEDS = 2
LONG_SEEDS = 60
SEEDS = int(os.environ.get("SHELLS_SEEDS", "0"))
FIRST = int(os.environ.get("SHELLS_FIRST", "2"))
"""With ``SHELLS_SEEDS=500 SHELLS_FIRST=1000``, so many seeds of the mixed scenario from there on are run, and nothing else here."""


GROUPS = [
    (kills, long_functions, queries),
    (freezes, letters, clock_jumps),
    (points, network, late_control),
    (spares, bad_disk, full_disk),
    (supervisors, supervisor_dies, stops),
]
"""In the default suite each kind of trouble comes in one run, beside those that it has least to do with."""


@pytest.mark.skipif(SEEDS > 0, reason="only seeds are wanted")
@pytest.mark.parametrize("kinds", GROUPS, ids=lambda kinds: "-".join(kind.__name__ for kind in kinds))
def test_kinds_of_trouble(kinds: tuple[Disturbance, ...]) -> None:
    options, _ = drawn(1)
    world = run_world(1, adds(RECORDS), replace(options, shards=2, faults_s=4.0), together(*kinds)).world
    never = [kind.__name__ for kind in kinds if not times(kind, world)]
    assert not never, world.faults


@pytest.mark.skipif(SEEDS > 0, reason="only seeds are wanted")
def test_a_disturbed_run_is_the_same_twice() -> None:
    """Whatever kills, stops, cuts and asks: the seed decides all of it, so that a failure can be repeated."""
    options = replace(drawn(1)[0], shards=2, faults_s=3.0)
    kinds = (kills, freezes, network, points, queries)
    first, second = (run_world(6, adds(30), options, together(*kinds)).world for _ in range(2))
    assert all(times(kind, first) for kind in kinds), first.faults
    assert (first.trace.digest, first.faults) == (second.trace.digest, second.faults)


def test_no_kind_is_forgotten() -> None:
    assert {kind for kinds in GROUPS for kind in kinds} == set(ALL)


@pytest.mark.long
@pytest.mark.skipif(SEEDS > 0, reason="only seeds are wanted")
@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_each_kind_by_itself(kind: Disturbance, seed: int) -> None:
    options, _ = drawn(seed)
    run_world(seed, adds(RECORDS), options, kind)


def test_drawn_kinds_together(seed: int) -> None:
    options, kinds = drawn(seed)
    job = bank(RECORDS) if seed % 4 == 0 else adds(RECORDS)
    run_world(seed, job, options, together(*kinds))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """How many seeds depends on who asks."""
    if metafunc.function is test_drawn_kinds_together:
        number = SEEDS or (LONG_SEEDS if metafunc.config.getoption("--long") else SHORT_SEEDS)
        metafunc.parametrize("seed", range(FIRST, FIRST + number))
