"""What fails, and when. Everything is drawn from the seed, so a run is repeated with all its faults.

Faults are asked for where they can happen. After ``heal`` nothing fails any more, and that is when everything must come to its end.

Each fault has a name: its kind and at which opportunity of that kind it strikes, such as ``crash:812`` (step 812) or ``refuse:17``
(the 17th delta that is written). Each kind draws from a source of chance of its own, one number for each opportunity. So a name means
the same whatever else fails or does not, and a run can be repeated with some of its faults only, or with others: that is how it is shrunk.
"""

from __future__ import annotations

import errno
import random
from collections import Counter
from collections.abc import Collection

from shardfun.simulation.file_store import draw_trouble
from shardfun.simulation.files import Trouble
from shardfun.simulation.options import Rates
from shardfun.state.memory import MemoryStore

BOOT_POINTS = frozenset({"spawned", "reset", "recovered", "ready", "started"})
"""What a shard comes by at every start."""

POINTS = BOOT_POINTS | {
    "boots",
    "boot",
    "incarnation",
    "reset sent",
    "start sent",
    "trigger sent",
    "cut",
    "barrier sent",
    "barrier came",
    "encoded",
    "delta written",
    "prepared",
    "prepared heard",
    "abort sent",
    "abort",
    "manifest named",
    "manifest durable",
    "complete sent",
    "complete",
    "applied",
    "applied heard",
    "publishing",
    "published",
    "publish noted",
    "sink opened",
    "letters",
    "intake written",
    "trimmed",
    "finish",
}
"""Events of the trace behind which a process may be killed on purpose: instants that random kills hit rarely."""

OUTAGE_WEIGHTS = {"manifest": 15, "maintain": 30, "boot": 10}
"""Jobs with steps whose order matters most."""

MACHINE = "machine"
"""The victim whose power fails."""

PAUSE_STEPS_MAX = 500
CLOCK_SETS_S = (0.05, 0.5, 4.0)
CALL_BREAKS = 0.01
CALL_TIMES_OUT = 0.03


STEP_FAULTS = (
    "crash",
    "supervisor",
    "power",
    "drop",
    "misjudge",
    "pause",
    "freeze",
    "stuck",
    "jump",
    "clock",
    "down",
    "door",
    "flip",
)
"""Kinds of which at most one strikes in each step of the world."""

COUNTED_BY_OTHERS = frozenset((*STEP_FAULTS, "point", "cursed", "outage", "rush"))
"""Kinds whose faults may come to nothing (the shard is dead already), and one that is none."""

HARMLESS = frozenset({"late", "sink"})
"""Kinds that are counted, but not among the faults of a run: messages that come twice, sinks that refuse."""


class Faults:
    """See the module.

    Args:
        only: names of the faults that strike, whatever the rates; ``None``: those that are drawn.
        shards: how many there are.
    """

    def __init__(self, rates: Rates, seed: int, only: Collection[str] | None = None, shards: int = 1) -> None:
        self.active = True
        self.victim: str | None = None
        """Who reached a named point and has to die for it."""
        self.victim_of = ""
        """The kind of the fault that it dies of."""
        self.struck: list[str] = []
        """The names of all faults so far, in order."""
        self.detail = random.Random(seed)
        """Decides how the fault that has just struck strikes: whom, how long. A source of its own for each fault."""
        self.counts = Counter[str]()
        """By kind: faults that had an effect."""
        self._rates = rates
        self._seed = seed
        self._only = None if only is None else frozenset(only)
        named = [name.partition(":") for name in only or ()]
        self._at_step = {int(number): kind for kind, _, number in named if kind in STEP_FAULTS}
        self._streams: dict[str, random.Random] = {}
        self._asked: dict[str, int] = {}
        self._of_steps = [(kind, getattr(rates, kind)) for kind in STEP_FAULTS]
        self._any_of_steps = sum(rate for _, rate in self._of_steps)
        self._cursed = seed % shards
        """The shard that may die at every start."""

    def heal(self) -> None:
        """From now on nothing fails."""
        self.active = False
        self.victim = None

    def _draw(self, kind: str) -> float:
        """The number that the next opportunity of a kind has drawn."""
        stream = self._streams.get(kind)
        if stream is None:
            stream = self._streams[kind] = random.Random(f"{self._seed} {kind}")
        self._asked[kind] = self._asked.get(kind, 0) + 1
        return stream.random()

    def _strikes(self, kind: str, opportunity: int) -> bool:
        """A fault strikes."""
        name = f"{kind}:{opportunity}"
        self.struck.append(name)
        if kind not in COUNTED_BY_OTHERS:
            self.counts[kind] += 1
        self.detail = random.Random(f"{self._seed} {name}")
        return True

    def _happens(self, kind: str, rate: float | None = None) -> bool:
        """An opportunity for a fault of a kind: whether it strikes.

        Args:
            rate: instead of the one called like the kind.
        """
        if self._only is not None:
            return self.active and self._is_named(kind)
        rate = getattr(self._rates, kind) if rate is None else rate
        return self.active and rate > 0 and self._draw(kind) < rate and self._strikes(kind, self._asked[kind])

    def _is_named(self, kind: str) -> bool:
        """An opportunity of a run whose faults are named."""
        assert self._only is not None
        number = self._asked[kind] = self._asked.get(kind, 0) + 1
        return f"{kind}:{number}" in self._only and self._strikes(kind, number)

    def hit(self, kind: str, *, had_effect: bool) -> None:
        """A fault of a kind in ``COUNTED_BY_OTHERS`` has struck."""
        if had_effect:
            self.counts[kind] += 1

    def point(self, who: str, event: str) -> None:
        """An event was noted."""
        if event not in POINTS:
            return
        for kind in ("point", "cursed"):
            at = kind == "point" or (event in BOOT_POINTS and who == f"shard {self._cursed}")
            if at and self._happens(kind):
                self.victim, self.victim_of = who, kind

    @property
    def total(self) -> int:
        """Faults that had an effect, but for the harmless ones."""
        return sum(count for kind, count in self.counts.items() if kind not in HARMLESS)

    def pick(self, *, recovering: bool) -> str | None:
        """The fault of this step, if there is one: one of ``STEP_FAULTS``."""
        if not self.active:
            return None
        if self._only is not None:
            number = self._asked["step"] = self._asked.get("step", 0) + 1
            kind = self._at_step.get(number)
            return kind if kind is not None and self._strikes(kind, number) else None
        at = self._draw("step") / (self._rates.recovery_factor if recovering else 1)
        if at >= self._any_of_steps:
            return None
        for kind, rate in self._of_steps:
            at -= rate
            if at < 0:
                return kind if self._strikes(kind, self._asked["step"]) else None
        return None

    # ---- at the places where they happen --------------------------------------------------------------------------------
    def before_write(self, store: MemoryStore) -> None:
        """The disk may be full or broken."""
        if self._happens("refuse"):
            if self.detail.random() < self._rates.unsynced:
                store.fail_next_sync = errno.EIO
            else:
                store.fail_next_write = errno.ENOSPC

    def before_apply(self, store: MemoryStore) -> None:
        """An apply, or the redo of a recovery, may stop half-way."""
        store.fail_next_apply = errno.EIO if self._happens("stall") else None

    def trouble(self, job: str) -> Trouble | None:
        """What goes wrong in the next job of real storage code."""
        kind = {"write": "refuse", "apply": "stall", "read": "read"}.get(job, "disk")
        return draw_trouble(job, self.detail) if self._happens(kind) else None

    def power_fails(self, job: str) -> bool:
        """A disk job is under way: whether the power fails in the middle of it."""
        fails = self._happens("outage", self._rates.outage * OUTAGE_WEIGHTS.get(job, 1))
        if fails:
            self.victim, self.victim_of = MACHINE, "outage"
        return fails

    @property
    def slow_s(self) -> float:
        """How long the disk takes for the next job, if it takes long."""
        return self.detail.choice((0.02, 0.3, 2.0)) if self._happens("slow") else 0.0

    @property
    def sink_stays_shut(self) -> bool:
        """Whether a sink cannot be opened."""
        return self._happens("shut")

    @property
    def sink_refuses(self) -> bool:
        """Whether a sink is down just now."""
        return self._happens("sink")

    def sink_error(self, records: int) -> int | None:
        """A sink fails after it has written some of ``records``: so many. ``None``: it does not."""
        return self.detail.randint(0, records) if self._happens("sink_error") else None

    def log_trouble(self, job: str) -> Trouble | None:
        """What goes wrong in a job on the intake log."""
        return draw_trouble(job, self.detail) if self._happens("log") else None

    @property
    def down_s(self) -> float:
        """How long a sink is down: perhaps for many checkpoints."""
        return self.detail.choice((0.3, 2.0, 20.0))

    @property
    def arrives_again(self) -> bool:
        """Whether a control message will be delivered a second time."""
        return self._happens("late")

    @property
    def rushes(self) -> bool:
        """Whether the next checkpoint is triggered without waiting for its time."""
        return self._happens("rush")

    @property
    def lose_notice(self) -> bool:
        """Whether nobody is told that a pipe broke."""
        return self.detail.random() < self._rates.unnoticed

    @property
    def pause_steps(self) -> int:
        """How long a shard stands still."""
        return self.detail.randint(1, PAUSE_STEPS_MAX)

    @property
    def freeze_share(self) -> float:
        """How long a process is stopped, in parts of the time after which it counts as dead."""
        return self.detail.choice((0.1, 0.9, 1.1, 3.0))

    @property
    def stuck_s(self) -> float:
        """How long a function runs without giving way."""
        return self.detail.choice((0.2, 1.0, 5.0))

    @property
    def clock_set_s(self) -> float:
        """By how much the wall clock is set."""
        return self.detail.choice(CLOCK_SETS_S) * (-1 if self.detail.random() < self._rates.backwards else 1)

    @property
    def call_breaks(self) -> bool:
        """Whether what user code waits for fails."""
        return self._happens("call", CALL_BREAKS)

    @property
    def call_times_out(self) -> bool:
        """Whether a call with a time limit is over it."""
        return self._happens("timeout", CALL_TIMES_OUT)
