"""The supervisor in virtual time: whatever moment it is cancelled at, nothing is left; and what it does by the clock."""

from __future__ import annotations

import pytest
import trio
from shell_app import adds
from shell_jobs import bank
from shell_process import SimProcess
from shell_world import Options, World, run_world

from shardfun.failpoints import Point

RECORDS = 40
CANCELLED = 10
FULL_S = 90.0
POINTS_AT_ONCE = 4
HEARTBEATS = '[supervision]\nheartbeat_interval = "100 ms"\nheartbeat_timeout = "1 s"\ninvocation_timeout = "5 s"\n'


@pytest.mark.parametrize("step_s", [0.0037, 0.031])
def test_cancelled_a_little_later_each_time_and_started_again(step_s: float) -> None:
    """While it starts, restores, runs: after each time no process, channel, lock or file is left, or the next could not start."""

    async def disturb(world: World) -> None:
        for number in range(CANCELLED):
            await trio.sleep(0.1 + number * step_s)  # each start comes after a pause of 0.1 s
            world.fault("cancelled")
            world.end_supervisor()

    outcome = run_world(1, bank(RECORDS), Options(faults_s=1000.0), disturb)
    assert outcome.world.faults["cancelled"] == CANCELLED


def test_a_function_that_computes_for_long_is_not_silent_and_its_process_lives() -> None:
    """Longer than heartbeats may be missing: they come from beside the loop, and name it."""

    async def disturb(world: World) -> None:
        world.slow_numbers = dict.fromkeys(range(1, RECORDS), 50.0)  # up to 5 s
        await trio.sleep_forever()

    options = Options(config=HEARTBEATS.replace('"5 s"', '"60 s"'), faults_s=100.0)
    outcome = run_world(1, adds(RECORDS), options, disturb)
    assert outcome.world.final is not None
    assert outcome.world.final.recoveries == 0
    assert outcome.virtual_s > 3


def test_a_function_beyond_the_limit_is_ended_and_its_message_runs_again() -> None:
    async def disturb(world: World) -> None:
        world.slow_numbers = dict.fromkeys(range(1, RECORDS), 1000.0)  # up to 100 s, the first time
        await trio.sleep_forever()

    outcome = run_world(2, adds(RECORDS), Options(config=HEARTBEATS, faults_s=200.0), disturb)
    assert outcome.world.final is not None
    assert outcome.world.final.recoveries > 0
    assert any("supervision.invocation_timeout" in line for line in outcome.world.trace.lines)


def test_a_process_that_is_stopped_beyond_the_limit_is_replaced_and_what_it_does_later_means_nothing() -> None:
    async def disturb(world: World) -> None:
        await trio.sleep(1)
        for process in world.serving():
            world.fault("frozen")
            process.stop(60)
            await trio.sleep(3)

    outcome = run_world(3, adds(RECORDS), Options(config=HEARTBEATS), disturb)
    assert outcome.world.final is not None
    assert outcome.world.final.recoveries == 2
    assert any("no heartbeat for" in line for line in outcome.world.trace.lines)


def test_a_disk_that_is_full_for_minutes_stops_nothing_for_good() -> None:
    async def disturb(world: World) -> None:
        await trio.sleep(0.5)
        world.disk.full = world.disk.supervisor_full = True
        await trio.sleep(FULL_S)

    outcome = run_world(4, adds(RECORDS), Options(faults_s=FULL_S + 1), disturb)
    assert outcome.virtual_s > FULL_S
    assert outcome.world.final is not None
    assert outcome.world.final.recoveries == 0


@pytest.mark.parametrize("first", range(0, len(Point), POINTS_AT_ONCE))
def test_a_shard_dies_at_each_named_step(first: int) -> None:
    """Its own steps, and when the supervisor is at one of its."""
    wanted = list(Point)[first : first + POINTS_AT_ONCE]
    missing = list(wanted)

    async def disturb(world: World) -> None:
        def at(point: Point, process: SimProcess | None) -> None:
            victim = process or next(iter(world.serving()), None)
            if point in missing and victim is not None:
                missing.remove(point)
                world.fault(f"dies at {point}", process=victim)
                victim.kill()

        world.at_points.append(at)
        await trio.sleep(0.7)
        for process in world.serving():  # so that there is a recovery in any case
            process.kill()
        await trio.sleep_forever()

    run_world(first, adds(30), Options(faults_s=20.0), disturb)
    assert missing == []
