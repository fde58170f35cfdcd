"""Going through a run step by step: every command does what it says, and changes nothing of the run."""

from __future__ import annotations

from shardfun.simulation.campaign import Plan, run_seed
from shardfun.simulation.options import draw
from shardfun.simulation.stepper import Stepper
from shardfun.simulation.world import World

SEED, WORKLOAD = 3, "ring"


def stepper() -> tuple[Stepper, list[World]]:
    worlds: list[World] = []

    def make(out: object) -> World:
        worlds.append(World(draw(SEED, WORKLOAD), out))  # type: ignore[arg-type]
        return worlds[0]

    return Stepper(make), worlds


def test_it_goes_on_as_far_as_it_is_told() -> None:
    """To the next event, by steps, until a step, a time, an event, somebody's event."""
    each, (world,) = stepper()
    assert "supervisor boot" in each.command("u supervisor: boot")
    events = sum(world.trace.events.values())
    each.command("")
    assert sum(world.trace.events.values()) > events
    at = world.trace.step
    each.command("s 40")
    assert world.trace.step == at + 40
    each.command("u 300")
    assert world.trace.step == 300
    each.command("u 1.5s")
    assert world.trace.now >= 1.5
    assert each.command("u manifest durable").splitlines()[-1].split()[4:7] == ["supervisor", "manifest", "durable"]
    assert each.command("u shard 0: cut").splitlines()[-1].split()[4:7] == ["shard", "0", "cut"]
    assert len(each.command("last 3").splitlines()) == 4
    assert "u WHAT" in each.command("what?")
    assert "expected a number" in each.command("s x")
    assert "expected a step" in each.command("u")


def test_it_shows_the_node_a_shard_and_an_address() -> None:
    """Coordinator, participants, queues, links; the state that is stored and the one in memory."""
    each, _ = stepper()
    each.command("u 800")
    node = each.command("show")
    assert "supervisor: " in node
    assert "shard 0: " in node
    assert "there are shards 0 to" in each.command("show 99")
    assert "in memory: " in each.command("show 0")
    assert "visits=" in each.command("show ring/node:1")
    assert "no such address" in each.command("show ring/node:none")


def test_looking_changes_nothing() -> None:
    """The run is the one of the seed, to its end."""
    each, (world,) = stepper()
    while not each.over:
        each.command("s 500")
        each.command("show")
        each.command("show 0")
    assert world.outcome is not None
    assert world.outcome.digest == run_seed(SEED, Plan(WORKLOAD)).digest
    assert each.command("c").endswith("no violation")
