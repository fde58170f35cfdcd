"""Who serves which shard: one small machine per shard, as the supervisor sees it.

It knows nothing of processes. ``VACANT`` means that no live process serves the shard, whatever the reason.
"""

from __future__ import annotations

from enum import Enum, auto

from shardfun.errors import LocalProtocolError


class Member(Enum):
    """A shard's state."""

    VACANT = auto()
    ASSIGNED = auto()
    RESTORING = auto()
    READY = auto()
    RUNNING = auto()


class Change(Enum):
    """What moves it on."""

    ASSIGN = auto()
    RESET = auto()
    READY = auto()
    START = auto()
    DIE = auto()


TRANSITIONS: dict[tuple[Member, Change], Member] = {
    (Member.VACANT, Change.ASSIGN): Member.ASSIGNED,
    (Member.VACANT, Change.DIE): Member.VACANT,
    (Member.ASSIGNED, Change.RESET): Member.RESTORING,
    (Member.ASSIGNED, Change.DIE): Member.VACANT,
    (Member.RESTORING, Change.RESET): Member.RESTORING,
    (Member.RESTORING, Change.READY): Member.READY,
    (Member.RESTORING, Change.DIE): Member.VACANT,
    (Member.READY, Change.RESET): Member.RESTORING,
    (Member.READY, Change.START): Member.RUNNING,
    (Member.READY, Change.DIE): Member.VACANT,
    (Member.RUNNING, Change.RESET): Member.RESTORING,
    (Member.RUNNING, Change.DIE): Member.VACANT,
}


class Membership:
    """The members of a node.

    Args:
        shards: their number.
    """

    def __init__(self, shards: int) -> None:
        self.members = [Member.VACANT] * shards
        self.deaths = [0] * shards
        self.deaths_without_checkpoint = 0

    def change(self, shard: int, change: Change) -> None:
        """Move one member on.

        Raises:
            LocalProtocolError: that is not possible in its state.
        """
        before = self.members[shard]
        try:
            after = TRANSITIONS[before, change]
        except KeyError:
            msg = f"shard {shard}: {change.name} is not possible while {before.name}"
            raise LocalProtocolError(msg) from None
        self.members[shard] = after
        if change is Change.DIE and before is not Member.VACANT:
            self.deaths[shard] += 1
            self.deaths_without_checkpoint += 1

    def all_in(self, state: Member) -> bool:
        """Whether every member is in ``state``."""
        return all(member is state for member in self.members)

    def in_state(self, *states: Member) -> list[int]:
        """The shards whose member is in one of ``states``, in order."""
        return [shard for shard, member in enumerate(self.members) if member in states]

    def checkpoint_completed(self) -> None:
        """Progress was made: the count of deaths in a row starts again."""
        self.deaths_without_checkpoint = 0
