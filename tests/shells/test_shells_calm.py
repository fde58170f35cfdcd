"""Real drivers and a real supervisor in virtual time, undisturbed: a run comes to its end, and the seed decides all of it."""

from __future__ import annotations

import pytest
from shell_jobs import bank
from shell_world import Options, World, run_world


async def nothing(_world: World) -> None:
    """No faults."""


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_a_whole_run_publishes_what_a_plain_computation_gives(shards: int) -> None:
    outcome = run_world(shards, bank(60), Options(shards=shards), nothing)
    assert outcome.world.final is not None
    assert outcome.world.final.state == "finished"
    assert outcome.world.final.recoveries == 0
    assert outcome.virtual_s > 60 / 40


def test_two_runs_of_a_seed_are_the_same_and_of_another_are_not() -> None:
    digests = [run_world(seed, bank(40), Options(), nothing).world.trace.digest for seed in (7, 7, 8)]
    assert digests[0] == digests[1] != digests[2]


CALM = """
[checkpoint]
idle_interval = "10 min"
[supervision]
heartbeat_interval = "10 s"
heartbeat_timeout = "1 min"
"""


@pytest.mark.parametrize("hours", [0.1, pytest.param(5, marks=pytest.mark.long)])
def test_a_node_that_has_little_to_do_for_long(hours: float) -> None:
    rate = 0.01
    outcome = run_world(
        1, bank(int(hours * 3600 * rate), rate=rate), Options(config=CALM, liveness_s=hours * 3600 + 600), nothing
    )
    assert outcome.virtual_s > hours * 3500
