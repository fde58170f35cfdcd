"""A fixture for pytest: ``chaos`` puts an application under real faults, and fails the test if anything differs.

def test_bank(chaos):
    chaos(app, kills=20, inputs={"transfers": transfers}, egresses=["balances"])
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from shardfun.chaos.report import Report

SHOWN_MAX: Final = 20
"""Differences in the message of a failed test."""


@pytest.fixture
def chaos(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Report]:
    """Run an application's node under faults: ``chaos(app, kills=20, inputs={"transfers": records})``.

    The function takes an ``App`` that is a global variable of a module, a reference ``"package.module:app"`` or the path of a
    configuration; ``kills``, ``supervisor_kills``, ``freezes``, ``failpoints``, ``full_disk``, ``seed``; and what
    ``shardfun.chaos.run_chaos`` takes. It returns a ``Report``.
    """
    numbers = count(1)

    def run(
        app: object,
        *,
        kills: int = 5,
        supervisor_kills: int | None = None,
        freezes: int | None = None,
        failpoints: int | None = None,
        full_disk: int | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> Report:
        __tracebackhide__ = True  # what differs is in the message
        from shardfun.chaos.plan import Counts
        from shardfun.chaos.trial import run_chaos

        wanted = Counts.of(
            kills, supervisor_kills=supervisor_kills, freezes=freezes, failpoints=failpoints, full_disk=full_disk
        )
        folder: Path = options.pop("folder", None) or tmp_path_factory.mktemp(f"chaos-{next(numbers)}-", numbered=True)
        if seed is None:
            seed = pytestconfig.getoption("--shardfun-seed", 0)
        report = run_chaos(app, counts=wanted, seed=seed, folder=folder, **options)
        if report.differences:
            raise AssertionError(_message(report))
        return report

    return run


def _message(report: Report) -> str:
    more = len(report.differences) - SHOWN_MAX
    lines = [
        f"{report.app} gives other results under faults (seed {report.plan.seed}):",
        *(f"  {sentence}" for sentence in report.differences[:SHOWN_MAX]),
        *([f"  and {more} more"] if more > 0 else []),
        *report.lines(),
        f"everything is in {report.folder}",
    ]
    return "\n".join(lines)
