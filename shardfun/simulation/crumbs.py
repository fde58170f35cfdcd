"""What a simulated shard process leaves of the messages it is inside of, when it may have died of one of them."""

from __future__ import annotations

from shardfun.core.careful import Breadcrumb
from shardfun.core.poison import Cause, Death
from shardfun.model.control import Reset
from shardfun.model.crumbs import TABLE_BYTES, CrumbTable, read_crumbs
from shardfun.simulation.following import FollowedBreadcrumb
from shardfun.simulation.surroundings import Surroundings

SILENT, SILENCES = "silent", frozenset(("silent", "no heartbeat"))
"""Why a process is ended that may not be dead: without a function under way that says nothing of its messages."""


class ProcessCrumbs:
    """The crumbs of one process; they outlive it."""

    def __init__(self, around: Surroundings, shard: int) -> None:
        self._around = around
        self._shard = shard
        self._table: bytearray | None = None

    def breadcrumb(self, message: Reset) -> Breadcrumb | None:
        """For an incarnation in careful mode."""
        if not message.careful:
            return None
        self._table = bytearray(TABLE_BYTES)
        crumbs, around = CrumbTable(self._table), self._around
        around.note(f"shard {self._shard}", "careful", f"with {len(message.suspects)} suspects")
        if around.follow:
            return FollowedBreadcrumb(crumbs, message.poison, message.suspects, around.follow, around.trace, self._shard)
        return Breadcrumb(crumbs, message.poison, message.suspects)

    def death(self, reason: str) -> Death:
        """What the supervisor makes of the end of the process (see ``supervisor.postmortem``)."""
        crumbs = None if self._table is None else read_crumbs(bytes(self._table))
        explained = not self._around.options.careful or (reason in SILENCES and not crumbs)
        return Death(Cause.EXPLAINED if explained else Cause.OUTSIDE, crumbs, reason)
