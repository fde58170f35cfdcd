"""Many runs: one per seed, in as many processes as there are cores, and what they add up to."""

from __future__ import annotations

import dataclasses
import gc
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from shardfun.simulation.mutations import mutated
from shardfun.simulation.options import draw
from shardfun.simulation.trace import Event
from shardfun.simulation.world import Outcome, World

SEEDS_PER_TASK = 4
GC_THRESHOLD = 100_000


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run.

    Args:
        workload: instead of the one that each seed picks.
        mutation: a deliberate mistake, to see whether it is found.
    """

    workload: str | None = None
    mutation: str | None = None


@dataclass(slots=True)
class Finding:
    """A seed that found something: enough to understand and to repeat it."""

    seed: int
    kind: str
    what: str
    options: dict[str, Any]
    last: list[str]


@dataclass(slots=True)
class Summary:
    """What all runs add up to.

    Args:
        figures: sums of the figures of all runs.
        digests: of the traces, by seed.
        wall_s: seconds that it took.
    """

    seeds: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    digests: dict[int, str] = field(default_factory=dict)
    wall_s: float = 0.0

    def add(self, seed: int, plan: Plan, outcome: Outcome) -> None:
        """One more run."""
        self.seeds += 1
        for name, value in outcome.figures.items():
            self.figures[name] = self.figures.get(name, 0) + value
        self.digests[seed] = outcome.digest
        if outcome.kind != "ok":
            options = dataclasses.asdict(draw(seed, plan.workload))
            self.findings.append(Finding(seed, outcome.kind, outcome.what, options, outcome.last))


def run_seed(seed: int, plan: Plan, out: Callable[[Event], None] | None = None) -> Outcome:
    """One run.

    Args:
        out: called with each event of the trace.

    Raises:
        ConfigurationError: there is no such mutation.
    """
    with mutated(plan.mutation):
        return World(draw(seed, plan.workload), out).run()


def run_seeds(
    seeds: Sequence[int], plan: Plan, jobs: int | None = None, progress: Callable[[Summary], None] | None = None
) -> Summary:
    """Run all seeds; the summary does not depend on the number of processes.

    Args:
        jobs: processes; ``None``: one per core. 1: in this process.
        progress: called after each run with what there is so far.
    """
    summary = Summary()
    started = time.monotonic()
    for seed, outcome in _outcomes(seeds, plan, jobs or cores()):
        summary.add(seed, plan, outcome)
        summary.wall_s = time.monotonic() - started
        if progress is not None:
            progress(summary)
    return summary


def first_finding(seeds: Sequence[int], plan: Plan) -> tuple[int, Outcome] | None:
    """Run seeds until one finds something; that one. ``None``: none did."""
    for seed in seeds:
        outcome = run_seed(seed, plan)
        if outcome.kind != "ok":
            return seed, outcome
    return None


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _outcomes(seeds: Sequence[int], plan: Plan, jobs: int) -> Iterator[tuple[int, Outcome]]:
    if jobs == 1 or len(seeds) <= 1:
        for seed in seeds:
            yield seed, run_seed(seed, plan)
        return
    pieces = [seeds[start : start + SEEDS_PER_TASK] for start in range(0, len(seeds), SEEDS_PER_TASK)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(pieces)), mp_context=context, initializer=_collect_rarely) as pool:
        for piece, outcomes in zip(pieces, pool.map(_run_piece, pieces, [plan] * len(pieces)), strict=True):
            yield from zip(piece, outcomes, strict=True)


def _collect_rarely() -> None:
    """A world is small and short-lived: looking for cycles often costs a fifth of the time."""
    gc.set_threshold(GC_THRESHOLD)


def _run_piece(seeds: Sequence[int], plan: Plan) -> list[Outcome]:
    return [run_seed(seed, plan) for seed in seeds]
