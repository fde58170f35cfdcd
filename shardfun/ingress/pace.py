"""The schedule of an ingress with a ``rate``: how many records may have been read by now.

It exists so that all kinds throttle alike. A schedule, not a token bucket: an ingress that was held up catches up, so the load
that is offered does not depend on how the node kept up. Reads no clock: the time is handed in.
"""

from __future__ import annotations

import math
import sys

TICK_S = 0.005
"""Records are released at the ticks of this clock, all that are due together. Waking a shard, and then its peers, for each record
costs many times more than the record: four shards at 25,000 records a second spent their time on waking until they did this."""


ROUNDING = 1e-6
"""Of a record: what is missing when the clock, at the very time that ``next_due`` gave, says a little less."""


class Pace:
    """Counts what was read since the first call against ``rate``.

    Args:
        rate: records per second, above 0; ``None``: no limit.
    """

    __slots__ = ("_rate", "_spent", "_start")

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._start = math.nan
        self._spent = 0

    def allowance(self, now: float) -> int:
        """How many more records may be read at ``now``, in monotonic seconds. The first call starts the schedule."""
        if self._rate is None:
            return sys.maxsize
        if math.isnan(self._start):
            self._start = now
        ticks = int((now - self._start) / TICK_S + ROUNDING)
        return max(0, int(ticks * TICK_S * self._rate + ROUNDING) - self._spent)

    def spend(self, records: int) -> None:
        """Count records that were read."""
        self._spent += records

    def next_due(self, now: float) -> float:
        """At which tick the next record is due, in monotonic seconds; later than ``now``. Only after ``allowance`` gave 0."""
        assert self._rate is not None, "without a rate something is always due"
        tick = math.ceil((self._spent + 1) / self._rate / TICK_S - ROUNDING)
        passed = int((now - self._start) / TICK_S + ROUNDING)
        return self._start + max(tick, passed + 1) * TICK_S
