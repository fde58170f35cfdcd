"""Real drivers and a real supervisor in virtual time, undisturbed: a run comes to its end, and the seed decides all of it."""

from __future__ import annotations

import time

import pytest
from shell_jobs import bank
from shell_world import Options, World, run_world


async def nothing(_world: World) -> None:
    """No faults."""


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_a_whole_run_publishes_what_a_plain_computation_gives(shards: int) -> None:
    outcome = run_world(shards, bank(120), Options(shards=shards), nothing)
    assert outcome.world.final is not None
    assert outcome.world.final.state == "finished"
    assert outcome.world.final.recoveries == 0
    assert outcome.virtual_s > 120 / 40


def test_two_runs_of_a_seed_are_the_same_and_of_another_are_not() -> None:
    digests = [run_world(seed, bank(80), Options(), nothing).world.trace.digest for seed in (7, 7, 8)]
    assert digests[0] == digests[1] != digests[2]


def test_hours_pass_in_seconds() -> None:
    started = time.process_time()
    outcome = run_world(1, bank(60, rate=0.02), Options(liveness_s=5 * 3600), nothing)
    assert outcome.virtual_s > 0.8 * 3600
    assert time.process_time() - started < 60
