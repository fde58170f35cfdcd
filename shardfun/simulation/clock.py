"""The wall clock of the simulated machine: set forward and back now and then, as an operator or NTP does.

It is what functions see and what timers and expiry follow. The supervisor's times (time-outs, intervals) are monotonic ones and do
not jump with it.
"""

from __future__ import annotations

from shardfun.simulation.trace import Trace


class WallClock:
    """See the module.

    Args:
        trace: has the monotonic time; without a jump both are the same.
    """

    def __init__(self, trace: Trace) -> None:
        self.went_back = False
        """Whether it was ever set back."""
        self._trace = trace
        self._ahead_s = 0.0
        self._highest_s = 0.0

    @property
    def now_s(self) -> float:
        """Unix seconds."""
        now = max(0.0, self._trace.now + self._ahead_s)
        self._highest_s = max(self._highest_s, now)
        return now

    @property
    def highest_ms(self) -> int:
        """The latest time that anybody has ever read, in unix milliseconds: what was due then may have happened."""
        return int(self._highest_s * 1000)

    def monotonic(self, unix_s: float) -> float:
        """When it will be that late, by the monotonic clock, if nobody sets it again."""
        return unix_s - self._ahead_s

    def set(self, by_s: float) -> None:
        """Set it forward, or back (never before the beginning of all time)."""
        self._ahead_s = max(self._ahead_s + by_s, -self._trace.now)
        self.went_back = self.went_back or by_s < 0
