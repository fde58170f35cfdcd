"""The schedule of a rate."""

from __future__ import annotations

import sys

from shardfun.ingress.pace import TICK_S, Pace


def test_without_a_rate_everything_is_due() -> None:
    assert Pace(None).allowance(0.0) == sys.maxsize


def test_starts_at_its_first_call() -> None:
    pace = Pace(10.0)
    assert pace.allowance(500.0) == 0
    assert pace.next_due(500.0) == 500.1
    assert pace.allowance(501.0) == 10
    pace.spend(4)
    assert pace.allowance(501.0) == 6


def test_high_rates_wake_for_many_records_at_once_and_never_for_none_again_and_again() -> None:
    pace = Pace(1e6)
    now = 1e6
    pace.allowance(now)
    total = 0
    for _ in range(1000):
        now = pace.next_due(now)
        due = pace.allowance(now)
        total += due
        pace.spend(due)
    assert abs(total - 1000 * TICK_S * 1e6) < 2000
