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
    outcome = run_world(1, adds(RECORDS), replace(options, shards=2, faults_s=4.0), together(*kinds))
    assert outcome.world.faults.total() > len(kinds), "hardly anything has happened"


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
