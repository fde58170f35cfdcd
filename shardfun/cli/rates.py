"""How fast counters move, from what a node says of itself now and then.

Over a sliding window, since figures of shards arrive in steps. A recovery turns counters back, and until every shard has reported
from the new incarnation their sum means nothing: the window starts anew after that, instead of showing a leap or a negative rate.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple

from shardfun.model.status import NodeStatus

WINDOW_S: Final = 3.0
SHORTEST_S: Final = 0.2
"""A rate over less time than this says nothing."""


class _Sample(NamedTuple):
    time: float
    counters: Mapping[str, int]


class Rates:
    """The rates of one node's counters."""

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque()

    def add(self, status: NodeStatus, now: float) -> None:
        """Take a status in.

        Args:
            now: monotonic seconds, not less than last time.
        """
        counters = {
            "records": status.records_in,
            "invocations": status.invocations,
            "published": status.published,
            **{f"shard {shard.shard}": shard.invocations for shard in status.shards},
        }
        if any(shard.incarnation != status.incarnation for shard in status.shards):
            self._samples.clear()
            return
        if self._samples and any(counters.get(name, 0) < before for name, before in self._samples[-1].counters.items()):
            self._samples.clear()
        self._samples.append(_Sample(now, counters))
        while len(self._samples) > 2 and now - self._samples[1].time >= WINDOW_S:
            self._samples.popleft()

    @property
    def records(self) -> float | None:
        """Ingress records per second; ``None`` while it is not known."""
        return self._rate("records")

    @property
    def invocations(self) -> float | None:
        """Invocations per second in all shards."""
        return self._rate("invocations")

    @property
    def published(self) -> float | None:
        """Egress records per second."""
        return self._rate("published")

    def shard(self, shard: int) -> float | None:
        """Invocations per second in one shard."""
        return self._rate(f"shard {shard}")

    def _rate(self, name: str) -> float | None:
        if not self._samples:
            return None
        first, last = self._samples[0], self._samples[-1]
        elapsed = last.time - first.time
        if elapsed < SHORTEST_S or name not in first.counters or name not in last.counters:
            return None
        return (last.counters[name] - first.counters[name]) / elapsed
