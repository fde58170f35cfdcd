"""What was published is judged by its content, also of runs that never come to an end by themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from shardfun.simulation.options import WORKLOADS, draw
from shardfun.simulation.view import CheckpointView
from shardfun.simulation.violation import Violation
from shardfun.simulation.workloads import make_workload
from shardfun.simulation.world import World

Published = Mapping[tuple[str, int], list[bytes]]


@pytest.mark.parametrize(
    "endless", [{"ping_pong": True, "orders": 0}, {"ping_pong": False, "orders": 20}], ids=lambda changes: f"{changes}"
)
@pytest.mark.parametrize("workload", WORKLOADS)
def test_what_is_lost_or_doubled_is_found_in_endless_runs(
    monkeypatch: pytest.MonkeyPatch, workload: str, endless: dict[str, Any]
) -> None:
    """One record less or one more, of the workload's own egress, is a violation; as they are they pass."""
    options = dataclasses.replace(draw(3, workload), **endless, faults=(), faulty_steps=1_000, messages_min=0, files=False)
    made = make_workload(options)
    judge, judged = made.judge_end, []

    def judge_all(view: CheckpointView, published: Published) -> None:
        judge(view, published)
        place = next(place for place, records in published.items() if place[0] == made.egress and records)
        for changed in (published[place][1:], [*published[place], published[place][0]]):
            with pytest.raises(Violation):
                judge(view, {**published, place: changed})
            judged.append(place)

    monkeypatch.setattr(made, "judge_end", judge_all)
    outcome = World(options, make=lambda _options: made).run()
    assert (outcome.kind, outcome.what) == ("ok", "")
    assert len(judged) == 2
