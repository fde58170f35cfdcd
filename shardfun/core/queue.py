"""A queue of messages for one function type: a shard's own mailbox, or what waits for one peer.

Batches are immutable and are taken from a head index, so a checkpoint can hold them by reference. Single rows, as effects produce
them, gather in a list at the tail and become a batch when somebody looks: one ``zip`` is cheaper than an append per column.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from shardfun.model.columns import Batch, batch_of_rows

Row = tuple[Any, str, Any, Any]
"""``(target, id, sender address or None, value)``: one effect."""


class Queue:
    """First in, first out. ``rows`` is appended to directly by the routing loop; its identity never changes."""

    __slots__ = ("_batched", "_batches", "_head", "rows")

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._batches: deque[Batch] = deque()
        self._head = 0
        self._batched = 0

    def __len__(self) -> int:
        return self._batched + len(self.rows)

    def append(self, batch: Batch) -> None:
        """Add a batch behind everything that waits. The batch must not be changed afterwards."""
        if not batch.ids:
            return
        if self.rows:
            self._seal()
        self._batches.append(batch)
        self._batched += len(batch.ids)

    def take(self, limit: int) -> Batch:
        """Remove and return 1 to ``limit`` messages from the head. The queue must not be empty."""
        if not self._batches:
            self._seal()
        batch = self._batches[0]
        head = self._head
        left = len(batch.ids) - head
        if left <= limit:
            self._batches.popleft()
            self._head = 0
            self._batched -= left
            return batch if head == 0 else _part(batch, head, head + left)
        self._head = head + limit
        self._batched -= limit
        return _part(batch, head, head + limit)

    def put_back(self, batch: Batch) -> None:
        """Undo a ``take``: the batch waits at the head again."""
        if self._head:
            self._batches[0] = _part(self._batches[0], self._head, len(self._batches[0].ids))
            self._head = 0
        self._batches.appendleft(batch)
        self._batched += len(batch.ids)

    def snapshot(self) -> tuple[Batch, ...]:
        """Everything that waits, in order, by reference (the row list is sealed first: one pass over pointers)."""
        if self.rows:
            self._seal()
        if not self._batches:
            return ()
        first = self._batches[0]
        rest = list(self._batches)
        if self._head:
            rest[0] = _part(first, self._head, len(first.ids))
        return tuple(rest)

    def _seal(self) -> None:
        self._batches.append(batch_of_rows(self.rows))
        self._batched += len(self.rows)
        self.rows.clear()


def _part(batch: Batch, start: int, stop: int) -> Batch:
    senders = batch.senders
    return Batch(
        batch.ids[start:stop],
        None if senders is None else senders[start:stop],
        batch.sender_type,
        batch.values[start:stop],
    )
