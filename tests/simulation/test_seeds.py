"""Runs of the simulated world: the protocol holds under every fault, the same seed gives the same run, mistakes are found."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from shardfun.simulation.campaign import Plan, first_finding, run_seed, run_seeds
from shardfun.simulation.faults import POINTS
from shardfun.simulation.mutations import MUTATIONS, mutated
from shardfun.simulation.options import WORKLOADS, Rates, draw
from shardfun.simulation.world import DELIVERED_MIN, Outcome, World

KEPT: dict[str, Any] = tomllib.loads((Path(__file__).parent / "seeds.toml").read_text())
FRESH, MANY = range(6, 12), range(1, 201)
SEARCHED = range(1, 201)

MODIFIERS = {"recovery_factor", "unnoticed", "backwards", "unsynced", "stale", "rush"}
"""Rates that say more about faults of other kinds, and one that is no fault."""
KINDS = {each.name for each in dataclasses.fields(Rates)} - MODIFIERS | {"call", "timeout"}
USUAL_KINDS = {"crash", "supervisor", "point", "late", "refuse", "jump", "clock", "stall", "down", "slow", "outage"}
"""Kinds of faults that are met in a handful of seeds."""

USUAL = {
    "no-channel-log",
    "no-outbox",
    "barrier-behind-data",
    "no-incarnation-check",
    "apply-before-commit",
    "log-at-execution",
    "delta-not-synced",
    "manifest-folder-not-synced",
    "newest-delta-counts",
}
"""Mistakes that are quickly found, of every part of the protocol and of the disk: the sample of a usual run of the tests."""


@pytest.mark.parametrize("seeds", [FRESH, pytest.param(MANY, marks=[pytest.mark.long, pytest.mark.timeout(3600)])], ids=len)
def test_fresh_seeds_pass_and_meet_every_kind_of_fault(seeds: range) -> None:
    """A sample of seeds passes, each with enough messages; together they had every fault that is asked of them.

    A kind of fault that never has an effect would test nothing. Many seeds have to meet all of them.
    """
    summary = run_seeds(seeds, Plan())
    assert summary.findings == []
    assert summary.figures["messages"] > DELIVERED_MIN * len(seeds)
    figures = {
        "aborts",
        "kills",
        "power_losses",
        "broken_pipes",
        "stale_frames",
        "repeated_records",
        "careful_starts",
        "questions",
    }
    figures |= {f"faults_{kind}" for kind in (KINDS if len(seeds) > len(FRESH) else USUAL_KINDS)}
    assert [name for name in sorted(figures) if not summary.figures.get(name)] == []


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_point_is_met() -> None:
    """Whoever may be killed behind an event has to come to it: its name is that of the trace."""
    missing = set(POINTS)
    for seed in MANY:
        world = World(draw(seed))
        assert world.run().kind == "ok", seed
        missing -= world.trace.events.keys()
        if not missing:
            return
    assert not missing


@pytest.mark.parametrize("entry", KEPT["seed"], ids=lambda entry: str(entry["seed"]))
def test_seeds_that_once_failed_pass(entry: dict[str, Any]) -> None:
    """What was found once is not found again."""
    assert run_seed(entry["seed"], Plan()).kind == "ok", entry["why"]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "mutation", [name if name in USUAL else pytest.param(name, marks=pytest.mark.long) for name in MUTATIONS]
)
def test_a_deliberate_mistake_is_found(mutation: str) -> None:
    """Each way of breaking the protocol is found within 200 seeds, as what it is: the checks are not blind."""
    hint = KEPT["mutation_hints"].get(mutation)
    seeds = SEARCHED if hint is None else [hint, *SEARCHED]
    found = first_finding(seeds, Plan(mutation=mutation))
    assert found is not None
    assert MUTATIONS[mutation].is_found_by(found[1]), found


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "entry", [entry for entry in KEPT["seed"] if "mutation" in entry], ids=lambda entry: str(entry["seed"])
)
def test_a_kept_seed_finds_its_mistake_again(entry: dict[str, Any]) -> None:
    """With the mistake for which it is kept: otherwise it proves nothing any more, and another one is to be kept."""
    outcome = run_seed(entry["seed"], Plan(mutation=entry["mutation"]))
    assert MUTATIONS[entry["mutation"]].is_found_by(outcome), outcome


@pytest.mark.parametrize(
    ("kind", "what", "found"),
    [
        ("ok", "", False),
        ("crash", "TypeError: receive() takes 2 positional arguments but 3 were given", False),
        ("crash", "AttributeError: 'Link' object has no attribute '_window'", False),
        ("correctness", "money: expected 1400, found 1399", False),
        ("correctness", "channel 1 to 0: 2 frames were under way at the cut, 0 are logged", True),
    ],
)
def test_only_what_it_breaks_counts_for_a_mistake(kind: str, what: str, found: bool) -> None:  # noqa: FBT001
    """A mutation that does not fit the core any more fails in every seed: that shows nothing."""
    assert MUTATIONS["no-channel-log"].is_found_by(Outcome(kind, what, {}, "")) is found
    if kind == "crash":
        assert not any(mutation.is_found_by(Outcome(kind, what, {}, "")) for mutation in MUTATIONS.values())


def test_a_mutation_leaves_nothing_behind() -> None:
    """After a run with a mistake the core is as it was."""
    before = {(patch.owner, patch.name): vars(patch.owner)[patch.name] for m in MUTATIONS.values() for patch in m.patches}
    for name in MUTATIONS:
        with pytest.raises(ZeroDivisionError), mutated(name):
            raise ZeroDivisionError
    assert {(owner, name): vars(owner)[name] for owner, name in before} == before


@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_seed_is_the_same_run_under_any_hash_seed(workload: str) -> None:
    """Two interpreters whose hashes of texts differ make the same trace, event for event."""
    seed = 5 + WORKLOADS.index(workload)
    first, second = (_digest_with_hash_seed(seed, workload, hash_seed) for hash_seed in ("1", "20"))
    assert first == second


def _digest_with_hash_seed(seed: int, workload: str, hash_seed: str) -> str:
    code = "import sys; from shardfun.cli.main import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["simulate", "--seed", str(seed), "--workload", workload, "--json"]
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    return str(json.loads(done.stdout)["digests"][str(seed)])


def test_options_of_a_seed_do_not_depend_on_the_workload_asked_for() -> None:
    """Naming a workload changes that alone, so a finding can be narrowed down."""
    drawn = draw(12)
    for workload in WORKLOADS:
        other = draw(12, workload)
        assert (other.shards, other.limits, other.rates, other.timing) == (
            drawn.shards,
            drawn.limits,
            drawn.rates,
            drawn.timing,
        )
