"""The kinds of work that a shard may have, and which of them it does next."""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Callable
from itertools import accumulate

from shardfun.simulation.process import ShardProcess

Work = Callable[[ShardProcess], bool]
SHARD_WORK: tuple[tuple[str, float, Work], ...] = (
    ("control", 8, ShardProcess.take_control),
    ("control", 2, ShardProcess.report_changed),
    ("mesh", 18, ShardProcess.receive),
    ("mesh", 9, ShardProcess.send),
    ("mesh", 9, ShardProcess.flush),
    ("mesh", 10, ShardProcess.fill),
    ("run", 20, ShardProcess.execute),
    ("run", 1, ShardProcess.forget),
    ("checkpoint", 10, ShardProcess.checkpoint),
    ("storage", 6, ShardProcess.store_step),
    ("storage", 6, ShardProcess.store_result),
    ("ingress", 4, ShardProcess.ingest),
    ("egress", 5, ShardProcess.publish),
    ("run", 6, ShardProcess.pass_time),
    ("calls", 8, ShardProcess.call_step),
    ("calls", 8, ShardProcess.call_result),
)
ALL_KINDS = (1 << len(SHARD_WORK)) - 1
"""A bit for each."""


class Agenda:
    """Picks one of the kinds that may have something to do.

    Args:
        pace: how eagerly, by group of kinds (see ``options``).
    """

    def __init__(self, pace: dict[str, float]) -> None:
        self._kinds = [(1 << index, weight * pace[kind], work) for index, (kind, weight, work) in enumerate(SHARD_WORK)]
        self._choices: dict[int, tuple[list[float], list[tuple[int, Work]]]] = {}

    def pick(self, awake: int, chance: random.Random) -> tuple[int, Work]:
        """The bit of a kind, and what to call.

        Args:
            awake: bits of the kinds to choose from; at least one.
        """
        sums, kinds = self._choices.get(awake) or self._prepare(awake)
        return kinds[bisect(sums, chance.random() * sums[-1], 0, len(sums) - 1)]

    def _prepare(self, awake: int) -> tuple[list[float], list[tuple[int, Work]]]:
        kinds = [kind for kind in self._kinds if awake & kind[0]]
        choice = list(accumulate(weight for _, weight, _ in kinds)), [(bit, work) for bit, _, work in kinds]
        self._choices[awake] = choice
        return choice
