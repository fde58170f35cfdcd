"""Exactly once, with real processes: whatever is killed or stopped, whenever, what is published is what a calm run publishes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from chaos_apps import Job, bank, flights, trees
from chaos_node import Node
from chaos_plan import Fault, Kind, Plan, make_plan
from chaos_run import Chaos, Report

SHARD_DEATHS = (Kind.KILL_SHARD, Kind.FREEZE_SHARD)
MARGIN_S = 1.5
"""Reading goes on for so much longer than the plan lasts."""


def under_chaos(folder: Path, job: Job, plan: Plan, *, shards: int, transport: str = "ipc", spares: int = 1) -> Report:
    rate = job.records / (plan.duration_s + MARGIN_S)
    node = Node(folder, job.config(shards=shards, rate=rate, transport=transport, spares=spares))
    try:
        report = Chaos(node, plan, job.records).run()
        print(f"\n{job.app}, {shards} shards, {transport}: {report}")
        assert node.leftovers() == []
        differences = job.differences(folder / "out")
        assert not differences, "\n".join([*differences[:10], *map(str, report.happened)])
    finally:
        node.close()
    return report


@pytest.mark.chaos
def test_flights_short(tmp_path: Path) -> None:
    plan = make_plan(1, kill_shard=5, kill_spare=1, kill_supervisor=2, freeze_shard=1)
    under_chaos(tmp_path, flights(whole_year=False), plan, shards=3)


@pytest.mark.chaos
def test_bank_short_over_tcp(tmp_path: Path) -> None:
    plan = make_plan(2, kill_shard=6, kill_supervisor=2, freeze_shard=1, blink_shard=1)
    under_chaos(tmp_path, bank(tmp_path, 20_000), plan, shards=2, transport="tcp")


@pytest.mark.chaos
def test_trees_short(tmp_path: Path) -> None:
    plan = make_plan(3, kill_shard=3, kill_supervisor=1)
    under_chaos(tmp_path, trees(tmp_path, 1_200), plan, shards=2)


LONG = {"kill_shard": 50, "kill_spare": 3, "kill_supervisor": 10, "freeze_shard": 4, "blink_shard": 4, "freeze_supervisor": 2}


@pytest.mark.chaos
@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("shards", [2, 3, 5])
@pytest.mark.parametrize("app", ["flights", "bank", "strict bank"])
def test_long(tmp_path: Path, app: str, shards: int) -> None:
    job = flights(whole_year=True) if app == "flights" else bank(tmp_path, 200_000, strict=app == "strict bank")
    report = under_chaos(tmp_path, job, make_plan(100 + shards, **LONG), shards=shards)
    assert report.count(*SHARD_DEATHS) >= 50
    assert report.count(Kind.KILL_SUPERVISOR) >= 10
    assert report.during_recovery >= 5


@pytest.mark.chaos
@pytest.mark.long
@pytest.mark.parametrize("seed", [31, 32])
def test_second_death_right_after_the_first(tmp_path: Path, seed: int) -> None:
    """With processes to spare a recovery takes milliseconds, and the second shard dies somewhere in it."""
    moments = random.Random(seed)
    faults = []
    for _ in range(15):
        faults.append(Fault(Kind.KILL_SHARD, recovered=True, gap_s=moments.uniform(0.0, 0.5), choice=moments.random()))
        faults.append(Fault(Kind.KILL_SHARD, recovered=False, gap_s=moments.uniform(0.0, 0.05), choice=moments.random()))
    under_chaos(tmp_path, bank(tmp_path, 20_000), Plan(seed, tuple(faults)), shards=3, spares=3)


@pytest.mark.chaos
@pytest.mark.long
@pytest.mark.timeout(900)
def test_long_over_tcp(tmp_path: Path) -> None:
    under_chaos(tmp_path, flights(whole_year=True), make_plan(200, **LONG), shards=3, transport="tcp")


@pytest.mark.chaos
@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("shards", [2, 3])
def test_trees_long(tmp_path: Path, shards: int) -> None:
    report = under_chaos(tmp_path, trees(tmp_path, 2_500), make_plan(300 + shards, **LONG), shards=shards)
    assert report.count(*SHARD_DEATHS) >= 50
