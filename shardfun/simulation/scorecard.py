"""Which deliberate mistakes the simulator finds, how soon and how often: what the table in ``docs/TESTING.md`` is made from."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from shardfun.simulation.campaign import Plan, collect_rarely, run_seed
from shardfun.simulation.mutations import MUTATIONS
from shardfun.simulation.world import Outcome

WHAT_LENGTH = 110


@dataclass(frozen=True, slots=True)
class Score:
    """How a mutation fared.

    Args:
        kind: of the first violation, and ``what`` it says; empty if there was none.
        first_seed: that found it; ``None``: none did.
        found: seeds among the first ``sample`` that found it.
    """

    mutation: str
    mistake: str
    kind: str
    what: str
    first_seed: int | None
    found: int
    sample: int


def score(mutation: str, seeds: Sequence[int], sample: int, run: Callable[[int, Plan], Outcome] = run_seed) -> Score:
    """Run the first seeds with a mutation, and more of them until it is found.

    Args:
        seeds: tried at most.
        sample: so many are run in any case.
    """
    plan = Plan(mutation=mutation)
    found, first_seed, kind, what = 0, None, "", ""
    for number, seed in enumerate(seeds):
        if number >= sample and first_seed is not None:
            break
        outcome = run(seed, plan)
        if not MUTATIONS[mutation].is_found_by(outcome):
            continue
        if first_seed is None:
            first_seed, kind, what = seed, outcome.kind, outcome.what
        if number < sample:
            found += 1
    return Score(mutation, MUTATIONS[mutation].mistake, kind, what, first_seed, found, min(sample, len(seeds)))


def scorecard(seeds: Sequence[int], sample: int, jobs: int, progress: Callable[[Score], None]) -> list[Score]:
    """The scores of all mutations, in their order.

    Args:
        jobs: processes.
        progress: called with each score when it is there.
    """
    scores = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=collect_rarely) as pool:
        count = len(MUTATIONS)
        for done in pool.map(score, MUTATIONS, [seeds] * count, [sample] * count):
            progress(done)
            scores.append(done)
    return scores


def table(scores: Sequence[Score]) -> list[str]:
    """Lines of Markdown."""
    rows = ["| mutation | what is broken | found as | first seed | found in |", "|---|---|---|---:|---:|"]
    for entry in scores:
        found_as = f"{entry.kind}: {_short(entry.what)}" if entry.kind else "**not found**"
        first = "" if entry.first_seed is None else str(entry.first_seed)
        rows.append(f"| `{entry.mutation}` | {entry.mistake} | {found_as} | {first} | {entry.found} of {entry.sample} |")
    return rows


def _short(what: str) -> str:
    """The first line, safe in a table."""
    line = what.partition("\n")[0].replace("|", "\\|").replace("<", "&lt;")
    return line if len(line) <= WHAT_LENGTH else line[:WHAT_LENGTH].rstrip() + " ..."
