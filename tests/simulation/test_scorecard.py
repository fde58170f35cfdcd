"""The scorecard of deliberate mistakes: what is counted, how far it is searched, and the table."""

from __future__ import annotations

from shardfun.simulation.campaign import Plan
from shardfun.simulation.mutations import MUTATIONS
from shardfun.simulation.scorecard import Score, score, table
from shardfun.simulation.world import Outcome

SEEDS = range(1, 201)


class Finds:
    """Runs that find something in some seeds."""

    def __init__(self, *seeds: int) -> None:
        self.seeds = seeds
        self.ran: list[int] = []

    def __call__(self, seed: int, plan: Plan) -> Outcome:
        assert plan.mutation == "no-outbox"
        self.ran.append(seed)
        found = seed in self.seeds
        if not found:  # what the mutation itself does wrong does not count
            return Outcome("crash", "TypeError: one argument too many", {}, "")
        return Outcome("correctness", f"seed {seed} | lost", {}, "")


def test_the_sample_is_run_and_counted() -> None:
    """What is found is counted among the first seeds; the first one says as what."""
    run = Finds(3, 5, 9, 11)
    assert score("no-outbox", SEEDS, 10, run) == Score(
        "no-outbox", MUTATIONS["no-outbox"].mistake, "correctness", "seed 3 | lost", 3, 3, 10
    )
    assert run.ran == list(range(1, 11))


def test_what_the_sample_does_not_find_is_searched_for() -> None:
    """Until it is found, or the seeds are used up."""
    run = Finds(37, 38)
    result = score("no-outbox", SEEDS, 10, run)
    assert (result.first_seed, result.found, run.ran[-1]) == (37, 0, 37)
    run = Finds()
    result = score("no-outbox", SEEDS, 10, run)
    assert (result.first_seed, result.kind, len(run.ran)) == (None, "", 200)


def test_the_table_has_a_line_for_each_mistake() -> None:
    """What would break the table is escaped; what was not found stands out."""
    lines = table([score("no-outbox", SEEDS, 10, Finds(3)), score("no-outbox", SEEDS, 10, Finds())])
    mistake = MUTATIONS["no-outbox"].mistake
    assert lines[2] == f"| `no-outbox` | {mistake} | correctness: seed 3 \\| lost | 3 | 1 of 10 |"
    assert lines[3] == f"| `no-outbox` | {mistake} | **not found** |  | 0 of 10 |"
