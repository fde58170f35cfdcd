"""When a shard tells the supervisor that it has something for a checkpoint: once for each cut, and again when it becomes urgent."""

from __future__ import annotations

from shardfun.core.shard import ShardCore

SETTLE_S = 0.004
"""A change is reported so much later. When a node was idle, the checkpoint comes at once then: it should have not only what came in,
but also what came of it, or a reply would have to wait for the next one."""

NO_CUT = -1


class News:
    """Of one incarnation."""

    def __init__(self) -> None:
        self.due_at: float | None = None
        """When to look again, although nothing happens: monotonic seconds."""
        self._seen_for = NO_CUT
        self._told_for = NO_CUT
        self._told_urgent_for = NO_CUT

    def are_due(self, core: ShardCore, now: float, *, urgent: bool) -> bool:
        """Whether to tell now, which then counts as done.

        Args:
            now: monotonic seconds.
        """
        if not core.changed:
            self.due_at = None
            return False
        cut = core.participant.cut
        if self._seen_for != cut:
            self._seen_for = cut
            self.due_at = now + SETTLE_S
        if self.due_at is not None and not urgent and now < self.due_at:
            return False
        self.due_at = None
        if self._told_for == cut and (not urgent or self._told_urgent_for == cut):
            return False
        self._told_for = cut
        if urgent:
            self._told_urgent_for = cut
        return True
