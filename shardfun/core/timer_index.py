"""The timers of a shard in order of time: all of them as cells, the next ones in memory.

A timer is known by its *suffix*: due time, number, slot. Suffixes sort by time and, of equal times, by number. Those below the
*horizon* are near: with their values in memory, in a heap. The others are read from the store when the near ones run low, a piece
at a time. What is not in the store yet (made since the last applied checkpoint) is found by two heaps of suffixes, one for each
set of changes that cells keep. Why so: ``docs/decisions/019-timers.md``.

Knows nothing of messages and tokens: a value is bytes here.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from shardfun.core.cells import Cells
from shardfun.errors import StorageError

TIMER_PREFIX = b"\x80t"
"""By shard, not by slot: no slot begins with this byte, since there are 2^15."""

Horizon = bytes | None
"""A suffix from which on timers are not in memory; ``None``: all are."""


def timer_suffix(due_ms: int, number: int, slot: int) -> bytes:
    """The suffix of a timer's cell."""
    return due_ms.to_bytes(8, "big") + number.to_bytes(8, "big") + slot.to_bytes(2, "big")


def due_of(suffix: bytes) -> int:
    """When a timer is due: unix milliseconds."""
    return int.from_bytes(suffix[:8], "big")


class TimerIndex:
    """See the module.

    Args:
        near: timers in memory: fewer than half make it load, twice as many make it forget.

    ``count``: pending timers in all.
    """

    __slots__ = ("_cells", "_fresh", "_fresh_in_cut", "_heap", "_horizon", "_near", "_near_wanted", "count")

    def __init__(self, cells: Cells, near: int) -> None:
        self._cells = cells
        self._near_wanted = near
        self._near: dict[bytes, bytes] = {}
        self._heap: list[bytes] = []  # the keys of near; and some that are gone, until they come up
        self._horizon: Horizon = None
        self._fresh: list[bytes] = []
        self._fresh_in_cut: list[bytes] = []
        self.count = 0

    def restore(self, count: int, lowest: bytes) -> None:
        """``count`` timers are in the store, none of them before ``lowest``, and none is in memory."""
        self.count = count
        self._horizon = lowest if count else None

    @property
    def lowest(self) -> bytes:
        """No timer is before this suffix. So a scan need not pass everything that has fired and is not compacted yet."""
        return self.first() or self._horizon or b""

    # ---- one timer ------------------------------------------------------------------------------------------------------
    def add(self, suffix: bytes, value: bytes) -> None:
        """A timer is made."""
        self._cells.put(TIMER_PREFIX, suffix, value)
        self.count += 1
        if self._horizon is not None and suffix >= self._horizon:
            heappush(self._fresh, suffix)
            return
        self._near[suffix] = value
        heappush(self._heap, suffix)
        if len(self._near) > 2 * self._near_wanted:
            self._forget()

    def value_of(self, suffix: bytes) -> bytes:
        """The value of a pending timer."""
        value = self._near.get(suffix)
        if value is None:
            value = self._cells.get(TIMER_PREFIX, suffix)
        assert value is not None, "no such timer"
        return value

    def remove(self, suffix: bytes) -> None:
        """A pending timer fires, or is cancelled."""
        self._cells.put(TIMER_PREFIX, suffix, None)
        self.count -= 1
        self._near.pop(suffix, None)
        if len(self._heap) > 2 * len(self._near) + self._near_wanted:
            self._heap = list(self._near)
            heapify(self._heap)

    def first(self) -> bytes | None:
        """The next timer; ``None`` if there is none, or if it has to be loaded first (``low``)."""
        heap = self._heap
        while heap:
            if heap[0] in self._near:
                return heap[0]
            heappop(heap)
        return None

    # ---- near and far ---------------------------------------------------------------------------------------------------
    @property
    def low(self) -> bool:
        """Whether some should be loaded."""
        return self._horizon is not None and 2 * len(self._near) < self._near_wanted

    def load(self, limit: int) -> None:
        """Load the next timers behind the horizon, looking at up to ``limit``.

        Raises:
            StorageError: the store cannot be read.
        """
        try:
            self._load(limit)
        except StorageError:  # it may have been opened again in the middle of the scan
            self._load(limit)

    def _load(self, limit: int) -> None:
        assert self._horizon is not None
        stored = self._cells.scan_unchanged(TIMER_PREFIX, self._horizon)
        head = next(stored, None)
        for _ in range(limit):
            fresh = self._first_fresh()
            value: bytes | None
            if head is not None and (not fresh or head[0] <= fresh[0]):
                suffix, value = head
                head = next(stored, None)
            elif fresh:
                suffix = fresh[0]
                value = self._cells.get(TIMER_PREFIX, suffix)  # None: cancelled
                heappop(fresh)
            else:
                self._horizon = None
                return
            if value is not None and suffix not in self._near:
                self._near[suffix] = value
                self._heap.append(suffix)  # a heap still: everything in it is smaller
            self._horizon = suffix + b"\0"

    def _first_fresh(self) -> list[bytes]:
        """The heap with the smaller head; empty if both are."""
        one, other = self._fresh, self._fresh_in_cut
        return other if not one or (other and other[0] < one[0]) else one

    def _forget(self) -> None:
        """There are too many in memory: keep the first ones."""
        order = sorted(self._near)
        kept, far = order[: self._near_wanted], order[self._near_wanted :]
        self._horizon = far[0]
        for suffix in far:
            del self._near[suffix]
            if self._cells.is_changed(TIMER_PREFIX, suffix):
                heappush(self._fresh, suffix)
        self._heap = kept

    # ---- checkpoints ----------------------------------------------------------------------------------------------------
    def cut(self) -> None:
        """The changes are frozen now. They still are if the last checkpoint was aborted."""
        if not self._fresh_in_cut:
            self._fresh_in_cut, self._fresh = self._fresh, []
        else:
            self._fresh_in_cut += self._fresh
            heapify(self._fresh_in_cut)
            self._fresh = []

    def applied(self) -> None:
        """The store has what was frozen."""
        self._fresh_in_cut = []
