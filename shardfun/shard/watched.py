"""The core of a shard with failpoints at its steps: what a process runs under the chaos runner, and only there.

A subclass, so that the core itself knows of no failpoint and the hot path of a production shard has none: the steps of a checkpoint
inside the core cannot be seen from the driver otherwise.
"""

from __future__ import annotations

from typing import Any

from shardfun.core.shard import ShardCore
from shardfun.core.snapshot import Cut
from shardfun.failpoints import Point, reached


class WatchedCore(ShardCore):
    """See the module. Takes what ``ShardCore`` takes."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._barriers_out: set[int] = (
            set()
        )  # peers to which a barrier was given to the driver, which sends it before it comes back

    def take_cut(self, checkpoint: int) -> Cut:
        """Freeze, then the failpoint: no barrier of this cut has been sent."""
        cut = super().take_cut(checkpoint)
        reached(Point.CUT_MADE)
        return cut

    def next_frame(self, peer: int, *, flush: bool) -> bytes | None:
        """The next frame; when asked again after a barrier, that was sent."""
        if peer in self._barriers_out:
            self._barriers_out.remove(peer)
            reached(Point.BARRIER_SENT)
        link = self.link_of[peer]
        waits = link.barrier
        raw = super().next_frame(peer, flush=flush)
        if waits is not None and link.barrier is None:
            self._barriers_out.add(peer)
        return raw

    def receive(self, peer: int, raw: bytes) -> None:
        """Take a frame; if it was a barrier, it has had its effect."""
        link = self.link_of[peer]
        before = link.last_barrier
        super().receive(peer, raw)
        if link.last_barrier != before:
            reached(Point.BARRIER_RECEIVED)
