"""Shrink a run that fails: to fewer shards, faults, records, steps, and to plain settings, as long as it still fails in the same way.

Each attempt is a run with changed options. It is greedy: what still fails is kept, and becomes what the next attempt starts from.
Faults are left out by name (see ``faults``), by kind first and then in ever smaller groups, as delta debugging does it (Zeller and
Hildebrandt, Simplifying and Isolating Failure-Inducing Input, 2002). The same run with any change meets another order of events, in
which it may fail no more although it could; so what would save most is tried in several orders.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from shardfun.core.limits import Limits
from shardfun.simulation.faults import STEP_FAULTS
from shardfun.simulation.options import PACES, Options
from shardfun.simulation.world import LIVENESS_STEPS_MAX, Outcome

ATTEMPTS_MAX: Final = 600
SECONDS_MAX: Final = 30.0
SCHEDULES: Final = 4
"""Orders of events in which a large step is tried."""
STEPS_FACTOR: Final = 3
STEPS_MORE: Final = 2_000
"""An attempt is given up when it takes longer than so many times the steps of the best one, and some more."""
FAULTY_STEPS: Final = (200, 500, 1_000, 2_000)
FEW_RECORDS: Final = 20
ROUNDS_MAX: Final = 4

Run = Callable[[Options, int], Outcome]
"""Runs options for at most so many steps."""


@dataclass(slots=True)
class Shrunk:
    """How far it has got.

    Args:
        outcome: of the smallest run that still fails; ``options``: of that run.
        finished: nothing smaller was found; otherwise time or attempts ran out.
    """

    options: Options
    outcome: Outcome
    attempts: int = 0
    seconds: float = 0.0
    finished: bool = False

    @property
    def size(self) -> dict[str, int]:
        """What was made small."""
        return {
            "shards": self.options.shards,
            "faults": len(self.outcome.faults),
            "records": self.options.records,
            "steps": round(self.outcome.figures.get("steps", 0)),
            "messages": round(self.outcome.figures.get("messages", 0)),
        }


class _OutOfTimeError(Exception):
    """Enough was tried."""


class Shrinker:
    """See the module.

    Args:
        options: of a run that has failed; ``outcome``: of that run.
        run: runs others.
        seconds_max: for all attempts together.
        progress: called whenever something smaller was found, and now and then.
    """

    def __init__(
        self,
        options: Options,
        outcome: Outcome,
        run: Run,
        seconds_max: float = SECONDS_MAX,
        progress: Callable[[Shrunk], None] | None = None,
    ) -> None:
        self._best = Shrunk(options, outcome)
        self._kind = kind_of(outcome)
        self._run = run
        self._seconds_max = seconds_max
        self._progress = progress
        self._started = 0.0

    def shrink(self) -> Shrunk:
        """Until nothing gets smaller, or time is up."""
        self._started = time.monotonic()
        try:
            self._all()
            self._best.finished = True
        except _OutOfTimeError:
            pass
        self._best.seconds = time.monotonic() - self._started
        return self._best

    def _all(self) -> None:
        if not self._try(messages_min=0, faults=tuple(self._best.outcome.faults)):
            return  # other code than ours decides how it runs: what it is left with cannot be told
        for _ in range(ROUNDS_MAX):
            before = self._best.size
            self._fewer_kinds()
            self._shorter()
            self._fewer_records()
            self._fewer_shards()
            self._fewer_faults()
            self._plainer()
            if self._best.size == before:
                return

    # ---- attempts -------------------------------------------------------------------------------------------------------
    def _try(self, schedules: int = 1, **changes: Any) -> bool:
        """Whether it fails in the same way with these options changed. If so, it is the best run from now on."""
        first = self._best.options.schedule
        return any(self._attempt(schedule=first + number, **changes) for number in range(schedules))

    def _attempt(self, **changes: Any) -> bool:
        best = self._best
        if best.attempts >= ATTEMPTS_MAX or time.monotonic() - self._started > self._seconds_max:
            raise _OutOfTimeError
        options = dataclasses.replace(best.options, **changes)
        best.attempts += 1
        outcome = self._run(options, self._steps_max())
        if self._progress is not None:
            best.seconds = time.monotonic() - self._started
            self._progress(best)
        if kind_of(outcome) != self._kind:
            return False
        best.options = dataclasses.replace(options, faults=tuple(outcome.faults))
        best.outcome = outcome
        return True

    def _steps_max(self) -> int:
        if self._kind[0] == "liveness":
            return 2 * LIVENESS_STEPS_MAX
        return STEPS_FACTOR * round(self._best.outcome.figures.get("steps", LIVENESS_STEPS_MAX)) + STEPS_MORE

    # ---- what is tried --------------------------------------------------------------------------------------------------
    def _fewer_shards(self) -> None:
        for shards in range(1, self._best.options.shards):
            if self._try(SCHEDULES, shards=shards, speeds=self._best.options.speeds[:shards]):
                return

    def _fewer_records(self) -> None:
        """Ever smaller steps: by halves, and in the end one by one."""
        while (records := self._best.options.records) > 1:
            fewer = dict.fromkeys(max(1, round(records * part)) for part in (0.05, 0.25, 0.5, 0.75, 0.9))
            smaller = [count for count in fewer if count < records] or [records - 1]
            if not any(self._try(SCHEDULES, records=count) for count in smaller):
                return

    def _shorter(self) -> None:
        """A shorter time of faults, all of them earlier. With few records as well, all that follows is quick."""
        options = self._best.options
        few = min(options.records, FEW_RECORDS)
        for steps in FAULTY_STEPS:
            if steps >= options.faulty_steps:
                return
            faults = earlier(self._best.outcome.faults, steps / options.faulty_steps)
            if self._try(SCHEDULES, faulty_steps=steps, records=few, faults=faults):
                return
            if few < options.records and self._try(SCHEDULES, faulty_steps=steps, faults=faults):
                return

    def _fewer_kinds(self) -> None:
        """Without any faults, or without all those of a kind."""
        if not self._best.outcome.faults or self._try(SCHEDULES, faults=()):
            return
        kinds = Counter(name.partition(":")[0] for name in self._best.outcome.faults)
        for kind, _ in kinds.most_common():
            rest = tuple(name for name in self._best.outcome.faults if not name.startswith(f"{kind}:"))
            if rest and len(rest) < len(self._best.outcome.faults):
                self._try(2, faults=rest)

    def _fewer_faults(self) -> None:
        """One by one."""
        size = max(1, len(self._best.outcome.faults) // 2)
        while True:
            found = any(self._try(faults=rest) for rest in _without_groups(self._best.outcome.faults, size))
            if found:
                size = min(size, max(1, len(self._best.outcome.faults) // 2))
            elif size <= 1:
                return
            else:
                size = max(1, size // 2)

    def _plainer(self) -> None:
        """Settings that are as usual distract nobody."""
        options = self._best.options
        usual: dict[str, Any] = {
            "speeds": (1,) * options.shards,
            "pace": dict.fromkeys(PACES, 1.0),
            "plain_runners": False,
            "encoded_deltas": False,
            "ping_pong": False,
            "sink_counts": True,
            "careful": False,
            "operator": False,
            "orders": 0,
            "files": False,
            "hot": False,
            "rounded_ms": 0,
        }
        for name, value in usual.items():
            if getattr(self._best.options, name) != value:
                self._try(**{name: value})
        self._larger_limits()

    def _larger_limits(self) -> None:
        drawn, usual = self._best.options.limits, Limits()
        kept = {"retries", "timers_at_end", "validate_sends"}  # they say what is right
        changed = {
            each.name: getattr(usual, each.name)
            for each in dataclasses.fields(Limits)
            if each.name not in kept and getattr(drawn, each.name) != getattr(usual, each.name)
        }
        if not changed or self._try(2, limits=dataclasses.replace(drawn, **changed)):
            return
        for name, value in changed.items():
            self._try(limits=dataclasses.replace(self._best.options.limits, **{name: value}))


def kind_of(outcome: Outcome) -> tuple[str, str]:
    """What has to stay the same: the kind, and which check has failed or what has raised."""
    return outcome.kind, outcome.place


def earlier(faults: Sequence[str], share: float) -> tuple[str, ...]:
    """The same faults, those of steps so much earlier. There is at most one in each step."""
    found: dict[str, None] = {}
    taken: set[int] = set()
    for name in faults:
        kind, _, number = name.partition(":")
        if kind not in STEP_FAULTS:
            found[name] = None
            continue
        step = max(1, round(int(number) * share))
        while step in taken:
            step += 1
        taken.add(step)
        found[f"{kind}:{step}"] = None
    return tuple(found)


def _without_groups(names: Sequence[str], size: int) -> Iterator[tuple[str, ...]]:
    """All but one group of ``size`` neighbours, for each group; the last faults first, since the first ones set the scene."""
    for start in reversed(range(0, len(names), size)):
        yield tuple(names[:start]) + tuple(names[start + size :])
