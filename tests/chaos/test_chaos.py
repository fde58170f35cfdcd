"""Exactly once, with real processes: whatever is killed or stopped, whenever, what is published is what a plain program computes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from shardfun.chaos.jobs import JANUARY, Job, bank, flights, run_job, strict_bank, trees
from shardfun.chaos.plan import Counts, Fault, Kind, Plan, make_plan
from shardfun.chaos.points import STEPS
from shardfun.chaos.report import Report
from shardfun.failpoints import Point

SHARD_DEATHS = (Kind.KILL_SHARD, Kind.FREEZE_SHARD)
YEAR = Path(__file__).resolve().parents[2] / "data" / "flights-2013.csv.gz"
"""Written by ``tools/prepare_flights``; long tests take January if it is not there."""


def under_chaos(folder: Path, job: Job, plan: Plan, *, shards: int, transport: str = "ipc", spares: int = 1) -> Report:
    report = run_job(job, folder=folder, plan=plan, shards=shards, transport=transport, spares=spares)
    print(f"\n{job.app}, {shards} shards, {transport}: {report}", *report.unreached, sep="\n")
    assert not report.differences, "\n".join([*report.differences[:10], *report.lines()])
    planned = len(plan.faults) - len(report.unreached)
    assert len(report.timeline) >= planned
    return report


@pytest.mark.chaos
@pytest.mark.long
def test_flights_short(tmp_path: Path) -> None:
    counts = Counts(kill_shard=2, kill_spare=1, freeze_shard=1, failpoint=2)
    under_chaos(tmp_path, flights(tmp_path), make_plan(1, counts, shards=3), shards=3)


@pytest.mark.chaos
def test_bank_short_over_tcp(tmp_path: Path) -> None:
    counts = Counts(kill_shard=2, kill_supervisor=1, blink_shard=1, failpoint=1, full_disk=1)
    under_chaos(tmp_path, bank(tmp_path), make_plan(2, counts, shards=2), shards=2, transport="tcp")


@pytest.mark.chaos
def test_trees_short(tmp_path: Path) -> None:
    counts = Counts(kill_shard=1, failpoint=1)
    under_chaos(tmp_path, trees(tmp_path), make_plan(3, counts, shards=2), shards=2)


# ---- long ----------------------------------------------------------------------------------------------------------------
LONG = Counts(
    kill_shard=50,
    kill_spare=3,
    kill_supervisor=10,
    freeze_shard=4,
    blink_shard=4,
    freeze_supervisor=2,
    failpoint=len(STEPS),
    full_disk=2,
)


def year_of_flights(folder: Path) -> Job:
    return flights(folder, source=YEAR if YEAR.exists() else JANUARY)


@pytest.mark.chaos
@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("shards", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("app", ["flights", "bank", "strict bank"])
def test_long(tmp_path: Path, app: str, shards: int) -> None:
    job = year_of_flights(tmp_path) if app == "flights" else (bank if app == "bank" else strict_bank)(tmp_path, 200_000)
    report = under_chaos(tmp_path, job, make_plan(100 + shards, LONG, shards=shards), shards=shards)
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
    under_chaos(tmp_path, bank(tmp_path), Plan(seed, tuple(faults)), shards=3, spares=3)


@pytest.mark.chaos
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_long_over_tcp(tmp_path: Path) -> None:
    under_chaos(tmp_path, year_of_flights(tmp_path), make_plan(200, LONG, shards=3), shards=3, transport="tcp")


@pytest.mark.chaos
@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("shards", [1, 2, 3, 6])
def test_trees_long(tmp_path: Path, shards: int) -> None:
    report = under_chaos(tmp_path, trees(tmp_path, 2_500), make_plan(300 + shards, LONG, shards=shards), shards=shards)
    assert report.count(*SHARD_DEATHS) >= 50


@pytest.mark.chaos
@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [41, 42])
def test_every_failpoint(tmp_path: Path, seed: int) -> None:
    """Each step of the drivers is the last one of some process, or fails, and nothing shows."""
    points = tuple(str(point) for point in Point)
    errors = tuple(
        f"{point}={action}"
        for point in ("delta-written", "apply-chunk", "publishing", "manifest-written")
        for action in ("ENOSPC", "EIO")
    )
    plan = make_plan(seed, Counts(), shards=3, points=tuple(f"{point}=kill" for point in points) + errors)
    report = under_chaos(tmp_path, bank(tmp_path, 40_000), plan, shards=3)
    assert report.unreached == []
