"""What is done to a node, and when: drawn from a seed, so that a plan that finds something can be repeated.

The plan is the same for a seed; what it meets is not, since the node runs on a real machine.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Final

from shardfun.chaos.points import ONE_FOR_EACH_SHARD, STEPS
from shardfun.errors import ConfigurationError, nearest
from shardfun.failpoints import DISK_POINTS, Action, Point

GAP_S: Final = (0.0, 1.2)
UNRECOVERED_GAP_S: Final = (0.0, 0.2)
UNRECOVERED_SHARE: Final = 0.3
"""Of the faults: they come so soon that most hit a node which has not recovered from the one before."""
PASSES_MAX: Final = 2
STOP_SHARE: Final = 0.12
ERROR_SHARE: Final = 0.5
"""Of the faults at steps where a disk may fail."""

HEARTBEAT_TIMEOUT_S: Final = 1.0
"""Of every node under chaos; the default is longer than anybody wants to wait."""
FREEZE_S: Final = 1.6 * HEARTBEAT_TIMEOUT_S
BLINK_S: Final = 0.3 * HEARTBEAT_TIMEOUT_S
FULL_S: Final = 1.5
"""How long a disk stays full."""
REACH_S: Final = 0.4
"""About how long it takes until an armed point is reached."""


class Kind(StrEnum):
    """What can be done to a node."""

    KILL_SHARD = "kill a shard"
    KILL_SPARE = "kill a spare"
    KILL_SUPERVISOR = "kill the supervisor"
    FREEZE_SHARD = "stop a shard beyond its heartbeat limit"
    BLINK_SHARD = "stop a shard for an instant"
    FREEZE_SUPERVISOR = "stop the supervisor beyond the heartbeat limit"
    FAILPOINT = "failpoint"
    FULL_DISK = "fill the disk"


@dataclass(frozen=True, slots=True)
class Counts:
    """How many faults of each kind."""

    kill_shard: int = 0
    kill_spare: int = 0
    kill_supervisor: int = 0
    freeze_shard: int = 0
    blink_shard: int = 0
    freeze_supervisor: int = 0
    failpoint: int = 0
    full_disk: int = 0

    @classmethod
    def of(
        cls,
        kills: int = 20,
        *,
        supervisor_kills: int | None = None,
        freezes: int | None = None,
        failpoints: int | None = None,
        full_disk: int | None = None,
    ) -> Counts:
        """As ``shardfun chaos`` counts them; what is not given follows the number of kills.

        Args:
            kills: SIGKILLs of shards, one in twelve of a spare.
            supervisor_kills: by default a fifth of the kills.
            freezes: SIGSTOPs; by default a tenth. Half of them of a shard beyond its limit, the others for an instant or of the supervisor.
            failpoints: by default half of them.
            full_disk: by default 1 from 10 kills on.

        Raises:
            ConfigurationError: one of them is no number from 0.
        """
        given = {
            "kills": kills,
            "supervisor_kills": supervisor_kills,
            "freezes": freezes,
            "failpoints": failpoints,
            "full_disk": full_disk,
        }
        for name, number in given.items():
            if number is not None and (type(number) is not int or number < 0):
                raise ConfigurationError(f"{name}: expected a number of faults from 0, got {number!r}")
        freezes = kills // 10 if freezes is None else freezes
        of_supervisor, blinks = freezes // 4, freezes // 3
        spares = kills // 12
        return cls(
            kill_shard=kills - spares,
            kill_spare=spares,
            kill_supervisor=kills // 5 if supervisor_kills is None else supervisor_kills,
            freeze_shard=freezes - of_supervisor - blinks,
            blink_shard=blinks,
            freeze_supervisor=of_supervisor,
            failpoint=kills // 2 if failpoints is None else failpoints,
            full_disk=(1 if kills >= 10 else 0) if full_disk is None else full_disk,
        )

    def kinds(self) -> list[Kind]:
        """One entry for each fault, kind by kind."""
        return [Kind[spec.name.upper()] for spec in fields(self) for _ in range(getattr(self, spec.name))]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Args:
        recovered: wait until the node runs again after the fault before.
        gap_s: seconds since then.
        choice: which of the processes that could be hit, between 0 and 1.
        point: of a failpoint; with what happens there, and how often it is passed before.
        named: somebody asked for this point: without it the run does not show what it shall.
    """

    kind: Kind
    recovered: bool
    gap_s: float
    choice: float
    point: Point | None = None
    action: Action = Action.KILL
    passes: int = 0
    named: bool = False

    @property
    def reading_s(self) -> float:
        """About how long the node goes on reading until this fault is over."""
        match self.kind:
            case Kind.FREEZE_SUPERVISOR:
                return self.gap_s + FREEZE_S
            case Kind.FULL_DISK:
                return self.gap_s + FULL_S
            case Kind.FAILPOINT:
                stopped = FREEZE_S if self.action is Action.STOP else 0.0
                return self.gap_s + REACH_S * (1 + self.passes) + stopped
            case _:
                return self.gap_s

    def __str__(self) -> str:
        when = "when it runs again" if self.recovered else "at once"
        what = (
            ""
            if self.point is None
            else f" {self.point}: {self.action}{f', passed {self.passes} times' if self.passes else ''}"
        )
        return f"{when} + {self.gap_s:.3f} s  {self.kind}{what}"


@dataclass(frozen=True, slots=True)
class Plan:
    """All faults of one run, in order."""

    seed: int
    faults: tuple[Fault, ...]

    @property
    def duration_s(self) -> float:
        """About as long as the node reads while the plan lasts."""
        return sum(fault.reading_s for fault in self.faults)


def make_plan(
    seed: int, counts: Counts, *, shards: int, spares: int = 1, publishes: bool = True, points: tuple[str, ...] = ()
) -> Plan:
    """As many faults of each kind as asked for, shuffled, at random moments.

    Args:
        spares: none: those that should kill a spare kill a shard.
        publishes: whether there is an egress.
        points: further failpoints: ``POINT`` or ``POINT=ACTION``.

    Raises:
        ConfigurationError: there is no such failpoint, or that cannot happen there.
    """
    chance = random.Random(seed)
    faults = [_fault(kind, chance) for kind in counts.kinds() if kind is not Kind.FAILPOINT]
    if not spares:
        faults = [_instead_of_spare(fault) for fault in faults]
    drawn = _points(chance, counts.failpoint, shards, publishes=publishes)
    faults += [_at(point, chance, shards, None) for point in drawn]
    for point, action in map(parse_point, points):
        faults.append(_at(point, chance, shards, action, named=True))
    chance.shuffle(faults)
    faults.sort(key=lambda fault: fault.point is Point.FINISH)
    return Plan(seed, tuple(faults))


def parse_point(text: str) -> tuple[Point, Action | None]:
    """``POINT`` or ``POINT=ACTION``.

    Raises:
        ConfigurationError: there is no such failpoint, or that cannot happen there.
    """
    name, equals, action = text.partition("=")
    if name not in {*Point}:
        raise ConfigurationError(f"failpoint {text}: there is no such step{nearest(name, map(str, Point))}")
    if equals and action not in {*Action}:
        raise ConfigurationError(f"failpoint {text}: expected one of {', '.join(Action)} behind '='")
    if action in {Action.ENOSPC, Action.EIO} and name not in DISK_POINTS:
        steps = ", ".join(sorted(DISK_POINTS))
        raise ConfigurationError(f"failpoint {text}: a disk can fail at {steps}; at other steps: kill, stop")
    return Point(name), Action(action) if action else None


def _fault(kind: Kind, chance: random.Random) -> Fault:
    recovered, gap_s, choice = _moment(chance)
    return Fault(kind, recovered or kind is Kind.FULL_DISK, gap_s, choice)


def _moment(chance: random.Random) -> tuple[bool, float, float]:
    recovered = chance.random() >= UNRECOVERED_SHARE
    return recovered, chance.uniform(*(GAP_S if recovered else UNRECOVERED_GAP_S)), chance.random()


def _instead_of_spare(fault: Fault) -> Fault:
    kind = Kind.KILL_SHARD if fault.kind is Kind.KILL_SPARE else fault.kind
    return Fault(kind, fault.recovered, fault.gap_s, fault.choice)


def _points(chance: random.Random, count: int, shards: int, *, publishes: bool) -> list[Point]:
    """Each one before any comes again; the end of the run comes once."""
    possible = [
        point
        for point, step in STEPS.items()
        if (shards > 1 or not step.peers) and (publishes or step.when != "publishing") and step.when != "end"
    ]
    drawn: list[Point] = []
    while len(drawn) < count:
        round_ = possible.copy()
        if not drawn:
            round_.append(Point.FINISH)
        chance.shuffle(round_)
        drawn += round_
    return drawn[:count]


def _at(point: Point, chance: random.Random, shards: int, action: Action | None, *, named: bool = False) -> Fault:
    _, gap_s, choice = _moment(chance)
    if action is None:
        action = Action.STOP if chance.random() < STOP_SHARE else Action.KILL
        if point in DISK_POINTS and chance.random() < ERROR_SHARE:
            action = chance.choice((Action.ENOSPC, Action.EIO))
    if point in ONE_FOR_EACH_SHARD:
        passes = chance.randrange(shards)
    else:
        passes = chance.randint(0, PASSES_MAX) if STEPS[point].when == "checkpoint" else 0
    # The node has to be well, or it is not known which of two faults it shows.
    return Fault(Kind.FAILPOINT, True, gap_s, choice, point, action, passes, named)
