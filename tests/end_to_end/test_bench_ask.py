"""``shardfun bench ask`` measures what it says: every request is answered, and the figures add up."""

from __future__ import annotations

import functools

import pytest
import trio

from shardfun.bench import ask
from shardfun.bench.asker import percentiles


def test_requests_at_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask, "WARM_UP_S", 0.5)
    figures = trio.run(functools.partial(ask.run_asks, 1, "50 ms", 40, 2.0, keys=True))
    assert figures["answers"] == {"200": 80}
    assert figures["unanswered"] == 0
    latency = figures["latency_ms"]
    assert 0 < latency["p1"] <= latency["p50"] <= latency["p99"] <= latency["max"]
    assert figures["durable_ms"]["p50"] > 0
    assert set(figures["cpu_share"]) == {"shard_0", "door", "client"}


def test_percentiles() -> None:
    assert percentiles([float(n) for n in range(100)]) == {"p1": 1.0, "p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 99.0}
    assert percentiles([])["max"] == 0.0
