"""The kinds of work that a shard may have, and which of them it does next."""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Callable
from itertools import accumulate
from typing import NamedTuple

from shardfun.simulation.network import News
from shardfun.simulation.process import ShardProcess

Work = Callable[[ShardProcess], bool]
SHARD_WORK: tuple[tuple[str, float, Work, str], ...] = (
    ("control", 8, ShardProcess.take_control, ""),
    ("control", 2, ShardProcess.report_changed, "take_control receive execute ingest pass_time call_result store_result"),
    ("mesh", 18, ShardProcess.receive, "take_control store_result"),
    ("mesh", 9, ShardProcess.send, "take_control receive fill execute ingest pass_time call_result store_result flush"),
    ("mesh", 9, ShardProcess.flush, "take_control receive fill execute ingest pass_time call_result store_result send"),
    ("mesh", 10, ShardProcess.fill, "take_control receive execute pass_time call_result store_result"),
    ("run", 20, ShardProcess.execute, "*"),
    ("run", 1, ShardProcess.forget, "*"),
    ("checkpoint", 10, ShardProcess.checkpoint, "take_control receive store_result"),
    ("storage", 6, ShardProcess.store_step, "take_control receive checkpoint store_result"),
    ("storage", 6, ShardProcess.store_result, "store_step"),
    ("ingress", 4, ShardProcess.ingest, "take_control send flush fill execute pass_time call_result publish store_result"),
    ("egress", 5, ShardProcess.publish, "take_control checkpoint store_result"),
    ("egress", 8, ShardProcess.open_sinks, "store_result"),
    ("run", 6, ShardProcess.pass_time, "take_control execute ingest call_result store_result"),
    ("calls", 8, ShardProcess.call_step, "take_control receive execute ingest pass_time call_result store_result"),
    ("calls", 8, ShardProcess.call_result, "execute pass_time call_step"),
)
"""Group, weight, what is done, and behind which other kinds there may be something to do again (``*``: any)."""

NAMES = tuple(work.__name__ for _, _, work, _ in SHARD_WORK)
ALL_KINDS = (1 << len(SHARD_WORK)) - 1
"""A bit for each."""

TABLE_ENTRIES = 128
TRIES = 6
"""Draws from the table before the kinds that are awake are weighed exactly."""


def bits_of(*names: str) -> int:
    """The bits of some kinds."""
    return sum(1 << NAMES.index(name) for name in names)


WAKES = {
    News.FRAME: bits_of("receive"),
    News.ROOM: bits_of("send", "flush"),
    News.CONTROL: bits_of("take_control"),
    News.ENTRIES: bits_of("ingest"),
}
WITHOUT_FLUSH = bits_of("send", "flush")
"""Where no frame can be flushed there is no full one."""

DISK_WORKS = bits_of("store_step")
"""It goes on when its time has come, whatever else happens."""

STOPPED_KINDS = bits_of("take_control", "store_step", "store_result", "open_sinks")
"""What a process does that has no world running."""


class Kind(NamedTuple):
    """A kind of work.

    Args:
        wakes: bits of the kinds that may have something to do behind it.
        sleeps: bits of the kinds that have nothing to do when it has not; its own is among them.
    """

    bit: int
    work: Work
    wakes: int
    sleeps: int


class Agenda:
    """Picks one of the kinds that may have something to do.

    Args:
        pace: how eagerly, by group of kinds (see ``options``).
    """

    def __init__(self, pace: dict[str, float]) -> None:
        self._weights = [weight * pace[group] for group, weight, _, _ in SHARD_WORK]
        self._kinds = [
            Kind(1 << index, work, _woken_by(work), WITHOUT_FLUSH if work is ShardProcess.flush else 1 << index)
            for index, (_, _, work, _) in enumerate(SHARD_WORK)
        ]
        self._choices: dict[int, tuple[list[float], list[Kind]]] = {}
        total = sum(self._weights)
        self._table = [
            kind
            for kind, weight in zip(self._kinds, self._weights, strict=True)
            for _ in range(max(1, round(TABLE_ENTRIES * weight / total)))
        ]

    def pick(self, awake: int, chance: random.Random) -> Kind:
        """A kind.

        Args:
            awake: bits of the kinds to choose from; at least one.
        """
        table, draw = self._table, chance.random
        for _ in range(TRIES):
            kind = table[int(draw() * len(table))]
            if kind.bit & awake:
                return kind
        sums, kinds = self._choices.get(awake) or self._prepare(awake)
        return kinds[bisect(sums, draw() * sums[-1], 0, len(sums) - 1)]

    def _prepare(self, awake: int) -> tuple[list[float], list[Kind]]:
        kinds = [kind for kind in self._kinds if awake & kind.bit]
        choice = list(accumulate(self._weights[kind.bit.bit_length() - 1] for kind in kinds)), kinds
        self._choices[awake] = choice
        return choice


def _woken_by(work: Work) -> int:
    name = work.__name__
    return sum(
        1 << index for index, (_, _, other, by) in enumerate(SHARD_WORK) if other is work or by == "*" or name in by.split()
    )
