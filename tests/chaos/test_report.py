"""Recoveries are read from the log as they were, and the report says what happened, as lines and as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shardfun.chaos.plan import Kind, Plan
from shardfun.chaos.recoveries import add_recoveries
from shardfun.chaos.report import Happened, Report, percentile
from shardfun.chaos.trial import describe

BEGAN = 1_800_000_000.0


def event(at_s: float, text: str, **fields: Any) -> dict[str, Any]:
    timestamp = datetime.fromtimestamp(BEGAN + at_s, UTC).isoformat(timespec="milliseconds")
    return {"timestamp": timestamp, "event": text, **fields}


def fault(at_s: float, kind: Kind, pid: int, **more: Any) -> Happened:
    return Happened(at_s, BEGAN + at_s, kind, f"process {pid}", pid, "running", 10, **more)


EVENTS = [
    event(0.5, "running", took_ms=400),
    event(1.05, "shard 0 died (SIGKILL), recovering", pid=7),
    event(1.2, "recovered", took_ms=150),
    event(2.0, "recovered", took_ms=80),
    event(2.1, "shard 1 died (SIGKILL), recovering", pid=8),
    event(2.2, "shard 0 died (SIGKILL), recovering", pid=9),
    event(2.5, "recovered", took_ms=300),
    {"event": "output", "text": "no time"},
    event(5.0, "running", took_ms=900),
]
FAULTS = [
    fault(1.0, Kind.KILL_SHARD, 7, sigkill=True),
    fault(1.99, Kind.KILL_SHARD, 8, sigkill=True),
    fault(2.15, Kind.KILL_SHARD, 9, sigkill=True),
    fault(2.6, Kind.BLINK_SHARD, 9),
    fault(2.7, Kind.KILL_SPARE, 11, sigkill=True),
    fault(2.8, Kind.FAILPOINT, 9, harmless=True),
    fault(3.0, Kind.KILL_SUPERVISOR, 3, sigkill=True, restart=True),
    fault(5.5, Kind.FREEZE_SHARD, 12),
]


def reported() -> Report:
    report = Report("a:b", 2, Plan(7, ()), timeline=list(FAULTS))
    add_recoveries(report, EVENTS)
    return report


def test_recoveries_belong_to_the_death_that_they_follow() -> None:
    """Not to the end of a recovery that was under way, and a second death ends with the first one's recovery."""
    report = reported()
    assert [happened.recovered_ms for happened in report.timeline] == [200.0, 510.0, 350.0, None, None, None, 2000.0, None]
    assert report.recoveries_ms == [150, 80, 300]
    assert report.restarts_ms == [400, 900]


def test_the_table_and_the_json_agree() -> None:
    report = reported()
    report.differences = ["x"]
    lines = report.lines()
    assert len(lines) == 1 + len(FAULTS) + 1 + 1 + len(report.figures)
    assert lines[-len(report.figures)].split() == ["kill", "a", "shard", "3", "350", "ms", "510", "ms", "510", "ms"]
    found = json.loads(describe(report))
    assert found["verdict"] == "different"
    assert found["faults"]["kill_shard"] == 3
    assert found["sigkills"] == 5
    assert found["by_kind"][0] == {
        "kind": "kill a shard",
        "times": 3,
        "recovery_p50_ms": 350.0,
        "recovery_p99_ms": 510.0,
        "recovery_max_ms": 510.0,
    }
    assert found["recoveries"] == {"times": 3, "p50_ms": 150, "p99_ms": 300, "max_ms": 300}
    assert [entry["recovered_ms"] for entry in found["timeline"]] == [happened.recovered_ms for happened in report.timeline]


@given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(0, 100))
def test_percentiles(values: list[float], percent: int) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert percentile(values, 100) == max(values)


def test_a_report_of_nothing() -> None:
    report = Report("a:b", 1, Plan(0, ()))
    assert percentile([], 50) is None
    assert json.loads(describe(report))["by_kind"] == []
    assert str(report)
