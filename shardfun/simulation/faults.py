"""What fails, and when. Everything is drawn from the seed, so a run is repeated with all its faults.

Faults are asked for where they can happen. After ``heal`` nothing fails any more, and that is when everything must come to its end.

Each fault has a name: its kind and at which opportunity of that kind it strikes, such as ``crash:812`` (step 812) or ``refuse:17``
(the 17th delta that is written). Each kind draws from a source of chance of its own, one number for each opportunity. So a name means
the same whatever else fails or does not, and a run can be repeated with some of its faults only: that is how it is shrunk.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Collection

from shardfun.simulation.options import Rates
from shardfun.state.memory import MemoryStore

POINTS = frozenset(
    {
        "cut",
        "delta written",
        "prepared",
        "manifest named",
        "manifest durable",
        "complete sent",
        "applied",
        "incarnation",
        "reset",
        "recovered",
        "ready",
        "started",
        "published",
        "finish",
    }
)
"""Events of the trace behind which a process may be killed on purpose: instants that random kills hit rarely."""

PAUSE_STEPS_MAX = 500
CALL_BREAKS = 0.01
CALL_TIMES_OUT = 0.03


STEP_FAULTS = ("crash", "supervisor", "power", "drop", "misjudge", "pause", "jump")
"""Kinds of which at most one strikes in each step of the world."""


class Faults:
    """See the module.

    Args:
        only: names of the faults that may strike; ``None``: all may.
    """

    def __init__(self, rates: Rates, seed: int, only: Collection[str] | None = None) -> None:
        self.active = True
        self.victim: str | None = None
        """Who reached a named point and has to die for it."""
        self.struck: list[str] = []
        """The names of all faults so far, in order."""
        self.detail = random.Random(seed)
        """Decides how the fault that has just struck strikes: whom, how long. A source of its own for each fault."""
        self._rates = rates
        self._seed = seed
        self._only = None if only is None else frozenset(only)
        self._streams: dict[str, random.Random] = {}
        self._asked: dict[str, int] = {}
        self._of_steps = [(kind, getattr(rates, kind)) for kind in STEP_FAULTS]
        self._any_of_steps = sum(rate for _, rate in self._of_steps)

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
        """A fault would strike now; whether it may."""
        name = f"{kind}:{opportunity}"
        if self._only is not None and name not in self._only:
            return False
        self.struck.append(name)
        self.detail = random.Random(f"{self._seed} {name}")
        return True

    def _happens(self, kind: str, rate: float | None = None) -> bool:
        """An opportunity for a fault of a kind: whether it strikes.

        Args:
            rate: instead of the one called like the kind.
        """
        rate = getattr(self._rates, kind) if rate is None else rate
        return self.active and rate > 0 and self._draw(kind) < rate and self._strikes(kind, self._asked[kind])

    def point(self, who: str, event: str) -> None:
        """An event was noted."""
        if event in POINTS and self._happens("point"):
            self.victim = who

    def pick(self, *, recovering: bool) -> str | None:
        """The fault of this step, if there is one: one of ``STEP_FAULTS``."""
        if not self.active:
            return None
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

    @property
    def sink_refuses(self) -> bool:
        """Whether a sink is down just now."""
        return self._happens("sink")

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
    def call_breaks(self) -> bool:
        """Whether what user code waits for fails."""
        return self._happens("call", CALL_BREAKS)

    @property
    def call_times_out(self) -> bool:
        """Whether a call with a time limit is over it."""
        return self._happens("timeout", CALL_TIMES_OUT)
