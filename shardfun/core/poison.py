"""Which message kills its process: counts deaths, decides who runs in careful mode and which message is parked. Pure.

After a death that nothing explains, the shard's next process runs in careful mode and leaves breadcrumbs (see ``core.careful``).
A message that was under way in enough deaths *in a row*, alone among those that were under way in all of them, is *poison*: the
next process parks it.

What keeps the innocent out: a death outside of the message begins the count anew. A signal that may have come from outside counts
half. And what cannot be told apart is never blamed: messages that are equal have keys by their number since the checkpoint, and such
a number means nothing for another checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from shardfun.core.careful import CAREFUL_CHECKPOINTS
from shardfun.model.control import Poison
from shardfun.model.crumbs import Crumb

POISON_DEATHS = 3
FULL_WEIGHT = 2
HALF_WEIGHT = 1


class Cause(Enum):
    """What is known of a death."""

    EXPLAINED = auto()
    """The process had a reason of its own that no message can give it. It says nothing."""
    OUTSIDE = auto()
    """It may have come from outside: SIGKILL, by somebody or by the kernel for memory."""
    INSIDE = auto()
    """It came from inside: a fault, an exit that nobody asked for, a function that is stuck."""


@dataclass(frozen=True, slots=True)
class Death:
    """How a shard process has ended.

    Args:
        crumbs: the messages that were under way; ``None``: not known, since the process was not in careful mode, or had not
            come far enough.
        text: how it ended, for people.
    """

    cause: Cause
    crumbs: tuple[Crumb, ...] | None = None
    text: str = ""


@dataclass(slots=True)
class _Case:
    """One shard."""

    careful: bool = False
    checkpoints: int = 0
    """Complete in this incarnation."""
    suspects: dict[bytes, _Suspect] = field(default_factory=dict)
    poison: dict[bytes, tuple[Poison, int]] = field(default_factory=dict)
    """By key, with the occurrence."""


@dataclass(slots=True)
class _Suspect:
    occurrence: int
    weight: int = 0
    deaths: int = 0


class Suspicion:
    """The shards of one node.

    Args:
        deaths: so many in a row make a message poison (twice as many of those that count half).
    """

    def __init__(self, shards: int, deaths: int = POISON_DEATHS) -> None:
        self._limit = deaths * FULL_WEIGHT
        self._cases = [_Case() for _ in range(shards)]

    def is_careful(self, shard: int) -> bool:
        """Whether its next process has to be careful."""
        return self._cases[shard].careful

    def poison(self, shard: int) -> list[Poison]:
        """What its next process has to park."""
        return [found for found, _ in self._cases[shard].poison.values()]

    def suspects(self, shard: int) -> list[bytes]:
        """Messages of which one may be poison, and its next process has to find out which: they were under way in two deaths."""
        suspects = self._cases[shard].suspects
        found = [key for key, suspect in suspects.items() if suspect.deaths > 1]
        return found if len(found) > 1 else []

    def died(self, shard: int, death: Death) -> Crumb | None:
        """A process has ended and was reaped; the message that is poison from now on, if that has shown it."""
        case = self._cases[shard]
        if death.cause is Cause.EXPLAINED:
            return None
        known = case.careful and death.crumbs is not None
        case.careful = True
        case.checkpoints = 0
        if not known:
            return None
        assert death.crumbs is not None
        weight = FULL_WEIGHT if death.cause is Cause.INSIDE else HALF_WEIGHT
        suspects: dict[bytes, _Suspect] = {}
        for crumb in death.crumbs:
            if crumb.key:
                suspect = case.suspects.get(crumb.key, _Suspect(crumb.occurrence))
                suspects[crumb.key] = _Suspect(crumb.occurrence, suspect.weight + weight, suspect.deaths + 1)
        case.suspects = suspects
        return self._convict(case, death)

    def _convict(self, case: _Case, death: Death) -> Crumb | None:
        """With several that were always there it could be any of them."""
        assert death.crumbs is not None
        guilty = [crumb for crumb in death.crumbs if crumb.key and case.suspects[crumb.key].weight >= self._limit]
        if len(guilty) != 1:  # see `suspects`: next time each of them runs alone
            return None
        (crumb,) = guilty
        deaths = case.suspects.pop(crumb.key).deaths
        reason = f"ended its shard's process {deaths} times in a row (failure.poison_deaths), the last time: {death.text}"
        case.poison[crumb.key] = (Poison(crumb.key, deaths, reason), crumb.occurrence)
        return crumb

    def incarnation_began(self) -> None:
        """All go back to the same checkpoint."""
        for case in self._cases:
            case.checkpoints = 0

    def checkpoint_completed(self, parts: Sequence[tuple[Sequence[bytes], bool]]) -> None:
        """There is another checkpoint to go back to.

        Args:
            parts: by shard, the poison whose letter is part of it, and whether the shard stays careful because of calls that were
                under way before. Poison is remembered until then and no longer: else an equal message behind it would be taken
                for it.
        """
        for case, (done, suspects) in zip(self._cases, parts, strict=True):
            case.checkpoints += 1
            if case.careful and case.checkpoints >= CAREFUL_CHECKPOINTS and not suspects:
                case.careful = False
                case.suspects = {}
                case.poison = {}
                continue
            case.suspects = {key: suspect for key, suspect in case.suspects.items() if suspect.occurrence == 1}
            case.poison = {key: found for key, found in case.poison.items() if found[1] == 1 and key not in done}
