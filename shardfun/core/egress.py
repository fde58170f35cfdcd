"""Egress in the core: numbering, and the rule that nothing leaves before its checkpoint is complete.

Records of an egress get consecutive numbers in the order emitted. ``pending`` holds those that are not known to be published; the
first ``publishable`` of them belong to complete checkpoints and may go out. All pending records are in every snapshot, so a
recovery finds them byte for byte. (A sink that is down for long makes the same records be written again with each checkpoint; a
limit on their bytes stops the ingress. Kept because it is simple and a healthy sink has nothing pending at the next cut.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shardfun.core.queue import Row
from shardfun.model.doors import PublishedPosition


class EgressLog:
    """One partition of one egress in one shard.

    Args:
        published: what the restored checkpoint knew to be published.
        pending: the records after that, oldest first; all of them belong to the restored, complete checkpoint.
    """

    __slots__ = ("_committed", "_published", "pending", "pending_bytes")

    def __init__(self, published: PublishedPosition, pending: list[bytes]) -> None:
        self._published = published
        self.pending = pending
        self.pending_bytes = sum(map(len, pending))
        self._committed = published.records + len(pending)

    @property
    def emitted(self) -> int:
        """Records in all."""
        return self._published.records + len(self.pending)

    @property
    def published(self) -> PublishedPosition:
        """How far the sink is known to be."""
        return self._published

    def add(self, rows: Sequence[Row]) -> None:
        """Append the records of effect rows."""
        records = [row[3] for row in rows]
        self.pending += records
        self.pending_bytes += sum(map(len, records))

    def publishable(self, limit: int) -> list[bytes]:
        """Up to ``limit`` records that follow what is published and belong to complete checkpoints."""
        return self.pending[: min(limit, self._committed - self._published.records)]

    def commit(self, emitted: int) -> None:
        """A checkpoint is complete whose cut saw ``emitted`` records."""
        self._committed = max(self._committed, emitted)

    def note_published(self, count: int) -> None:
        """The sink has the next ``count`` records durably."""
        size = sum(map(len, self.pending[:count]))
        assert self._published.records + count <= self._committed, "published from an incomplete checkpoint"
        self._published = PublishedPosition(self._published.records + count, self._published.bytes + size)
        self.pending_bytes -= size
        del self.pending[:count]

    def snapshot(self) -> list[Any]:
        """``[records, bytes, pending records]`` as a checkpoint holds it."""
        return [self._published.records, self._published.bytes, self.pending[:]]
