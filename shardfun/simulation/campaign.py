"""Many runs: one per seed, in as many processes as there are cores, and what they add up to."""

from __future__ import annotations

import dataclasses
import functools
import gc
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from shardfun.simulation.mutations import mutated
from shardfun.simulation.options import Options, draw
from shardfun.simulation.trace import Event
from shardfun.simulation.world import Outcome, World

if TYPE_CHECKING:
    from shardfun.simulation.application.runs import AppRuns
    from shardfun.simulation.application.subject import AppPlan

T = TypeVar("T")

SEEDS_PER_TASK = 4
GC_THRESHOLD = 100_000
HASH_SEEDS: Final = ("0", "1")
"""Of interpreters that run applications: their sets have an order, but always the same one. The second one tells whether it matters."""

NONDETERMINISM: Final = "nondeterminism"
HOPELESS: Final = frozenset({"unsuitable", "undisturbed"})
"""Kinds of outcomes that another seed would have, too."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run.

    Args:
        workload: instead of the one that each seed picks.
        mutation: a deliberate mistake, to see whether it is found.
        app: an application of the user, instead of a workload.
    """

    workload: str | None = None
    mutation: str | None = None
    app: AppPlan | None = None


@dataclass(slots=True)
class Finding:
    """A seed that found something: enough to understand and to repeat it."""

    seed: int
    kind: str
    what: str
    options: Options
    last: list[str]
    faults: list[str]


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

    def add(self, options: Options, outcome: Outcome) -> None:
        """One more run."""
        self.seeds += 1
        for name, value in outcome.figures.items():
            self.figures[name] = self.figures.get(name, 0) + value
        self.digests[options.seed] = outcome.digest
        if outcome.kind != "ok":
            finding = Finding(options.seed, outcome.kind, outcome.what, options, outcome.last, outcome.faults)
            self.findings.append(finding)


# ---- one run -------------------------------------------------------------------------------------------------------------
def options_of(seed: int, plan: Plan) -> Options:
    """What a seed decides."""
    return draw(seed, plan.workload) if plan.app is None else app_runs(plan.app).options(seed)


def run_options(
    options: Options,
    plan: Plan,
    out: Callable[[Event], None] | None = None,
    steps_max: int | None = None,
    follow: str = "",
) -> Outcome:
    """One run; see ``World``.

    Raises:
        ConfigurationError: there is no such mutation, or something is wrong with the application.
    """
    with mutated(plan.mutation):
        if plan.app is not None:
            return app_runs(plan.app).run(options, out, steps_max, follow)
        return World(options, out, follow=follow).run(steps_max)


def run_seed(seed: int, plan: Plan, out: Callable[[Event], None] | None = None) -> Outcome:
    """One run, as a seed decides it; see ``run_options``."""
    return run_options(options_of(seed, plan), plan, out)


@functools.lru_cache(maxsize=1)
def app_runs(plan: AppPlan) -> AppRuns:
    """An application is imported once in a process."""
    from shardfun.simulation.application.runs import AppRuns

    return AppRuns(plan)


# ---- many ----------------------------------------------------------------------------------------------------------------
def run_seeds(
    seeds: Sequence[int],
    plan: Plan,
    jobs: int | None = None,
    progress: Callable[[Summary], None] | None = None,
    *,
    findings_max: int | None = None,
    twice: bool = False,
) -> Summary:
    """Run all seeds; the summary does not depend on the number of processes.

    Args:
        jobs: processes; ``None``: one per core. 1: in this process, unless it is for an application.
        progress: called after each run with what there is so far.
        findings_max: end when so many seeds have found something.
        twice: also find out whether two runs of a seed are the same.
    """
    summary = Summary()
    started = time.monotonic()
    second = _outcomes(seeds, plan, jobs or cores(), HASH_SEEDS[1]) if twice else None
    for options, outcome in _outcomes(seeds, plan, jobs or cores(), HASH_SEEDS[0]):
        if second is not None:
            _, again = next(second)
            outcome = of_both(outcome, again)
        summary.add(options, outcome)
        summary.wall_s = time.monotonic() - started
        if progress is not None:
            progress(summary)
        if outcome.kind in HOPELESS or (findings_max is not None and len(summary.findings) >= findings_max):
            break
    return summary


DIFFER: Final = "two runs of this seed differ"


def of_both(outcome: Outcome, again: Outcome) -> Outcome:
    """What two runs of a seed come to. What one of them has found is told; it cannot be relied on to be found again."""
    if (again.digest, again.kind) == (outcome.digest, outcome.kind):
        return outcome
    failed = next((each for each in (outcome, again) if each.kind != "ok"), None)
    found = "" if failed is None else f"; one of them ended with {failed.kind}: {failed.what}"
    last = [] if failed is None else failed.last
    return dataclasses.replace(failed or outcome, kind=NONDETERMINISM, what=f"{DIFFER}{found}", last=last)


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


def _outcomes(seeds: Sequence[int], plan: Plan, jobs: int, hash_seed: str) -> Iterator[tuple[Options, Outcome]]:
    if plan.app is None and hash_seed == HASH_SEEDS[0] and (jobs == 1 or len(seeds) <= 1):
        for seed in seeds:
            yield from _run_piece([seed], plan)
        return
    size = SEEDS_PER_TASK if plan.app is None else 1
    pieces = [seeds[start : start + size] for start in range(0, len(seeds), size)]
    with Workers(min(jobs, len(pieces)), hash_seed) as workers:
        for future in [workers.submit(_run_piece, piece, plan) for piece in pieces]:
            yield from future.result()


class Workers:
    """Processes to run things in, whose hashes of texts are all alike. Use it as a context manager.

    Args:
        hash_seed: see ``HASH_SEEDS``.
    """

    def __init__(self, jobs: int = 1, hash_seed: str = HASH_SEEDS[0]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=collect_rarely)
        self._hash_seed = hash_seed

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call a function there. Processes start at this moment, and take the environment as it is."""
        with environment("PYTHONHASHSEED", self._hash_seed):
            return self._pool.submit(function, *arguments)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._pool.shutdown(cancel_futures=True)


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """A variable that processes see which are started meanwhile."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def collect_rarely() -> None:
    """A world is small and short-lived: looking for cycles often costs a fifth of the time."""
    gc.set_threshold(GC_THRESHOLD)


def _run_piece(seeds: Sequence[int], plan: Plan) -> list[tuple[Options, Outcome]]:
    found = []
    for seed in seeds:
        options = options_of(seed, plan)
        found.append((options, run_options(options, plan)))
    return found


# ---- one run, elsewhere --------------------------------------------------------------------------------------------------
def watched(options: Options, plan: Plan, follow: str = "") -> tuple[Outcome, list[Event]]:
    """One run with all its events. To be submitted to ``Workers``."""
    events: list[Event] = []
    return run_options(options, plan, events.append, follow=follow), events
