"""What is done to a node, and when: drawn from a seed, so that a plan that finds something can be repeated."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What can be done to a node."""

    KILL_SHARD = "kill a shard"
    KILL_SPARE = "kill a spare"
    KILL_SUPERVISOR = "kill the supervisor"
    FREEZE_SHARD = "stop a shard beyond its heartbeat limit"
    BLINK_SHARD = "stop a shard for an instant"
    FREEZE_SUPERVISOR = "stop the supervisor beyond the heartbeat limit"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Args:
        recovered: wait until the node runs again after the fault before.
        gap_s: seconds since then.
        choice: which of the processes that could be hit, between 0 and 1.
    """

    kind: Kind
    recovered: bool
    gap_s: float
    choice: float


@dataclass(frozen=True, slots=True)
class Plan:
    """All faults of one run, in order."""

    seed: int
    faults: tuple[Fault, ...]

    @property
    def duration_s(self) -> float:
        """The sum of the gaps: about as long as the node reads while the plan lasts."""
        return sum(fault.gap_s for fault in self.faults)


GAP_S = (0.0, 1.2)
UNRECOVERED_GAP_S = (0.0, 0.2)
UNRECOVERED_SHARE = 0.3
"""Of the faults: they come so soon that most hit a node which has not recovered from the one before."""


def make_plan(seed: int, **counts: int) -> Plan:
    """As many faults of each kind as asked for (by the name of the kind in lower case), shuffled, at random moments."""
    random_ = random.Random(seed)
    kinds = [Kind[name.upper()] for name, count in counts.items() for _ in range(count)]
    random_.shuffle(kinds)
    faults = []
    for kind in kinds:
        recovered = random_.random() >= UNRECOVERED_SHARE
        gap = random_.uniform(*(GAP_S if recovered else UNRECOVERED_GAP_S))
        faults.append(Fault(kind, recovered, gap, random_.random()))
    return Plan(seed, tuple(faults))
