"""What fails, and when. Everything is drawn from the seed's one source of chance, so a run is repeated with all its faults.

Faults are asked for where they can happen. After ``heal`` nothing fails any more, and that is when everything must come to its end.
"""

from __future__ import annotations

import errno
import random

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


class Faults:
    """See the module."""

    def __init__(self, rates: Rates, chance: random.Random) -> None:
        self.active = True
        self.victim: str | None = None
        """Who reached a named point and has to die for it."""
        self._rates = rates
        self._chance = chance

    def heal(self) -> None:
        """From now on nothing fails."""
        self.active = False
        self.victim = None

    def _happens(self, rate: float) -> bool:
        return self.active and rate > 0 and self._chance.random() < rate

    def point(self, who: str, event: str) -> None:
        """An event was noted."""
        if event in POINTS and self._happens(self._rates.point):
            self.victim = who

    def pick(self, *, recovering: bool) -> str | None:
        """The fault of this step, if there is one: the name of a rate."""
        if not self.active:
            return None
        rates = self._rates
        at = self._chance.random() / (rates.recovery_factor if recovering else 1)
        for name in ("crash", "supervisor", "power", "drop", "misjudge", "pause", "jump"):
            at -= getattr(rates, name)
            if at < 0:
                return name
        return None

    # ---- at the places where they happen --------------------------------------------------------------------------------
    def before_write(self, store: MemoryStore) -> None:
        """The disk may be full or broken."""
        if self._happens(self._rates.refuse):
            if self._chance.random() < self._rates.unsynced:
                store.fail_next_sync = errno.EIO
            else:
                store.fail_next_write = errno.ENOSPC

    def before_apply(self, store: MemoryStore) -> None:
        """An apply, or the redo of a recovery, may stop half-way."""
        store.fail_next_apply = errno.EIO if self._happens(self._rates.stall) else None

    @property
    def sink_refuses(self) -> bool:
        """Whether a sink is down just now."""
        return self._happens(self._rates.sink)

    @property
    def arrives_again(self) -> bool:
        """Whether a control message will be delivered a second time."""
        return self._happens(self._rates.late)

    @property
    def rushes(self) -> bool:
        """Whether the next checkpoint is triggered without waiting for its time."""
        return self._happens(self._rates.rush)

    @property
    def lose_notice(self) -> bool:
        """Whether nobody is told that a pipe broke."""
        return self._chance.random() < self._rates.unnoticed

    @property
    def pause_steps(self) -> int:
        """How long a shard stands still."""
        return self._chance.randint(1, PAUSE_STEPS_MAX)
