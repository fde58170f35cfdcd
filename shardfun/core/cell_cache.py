"""Cells that were read or written lately, by their whole keys: what is hot is not read from the store after each checkpoint.

Two generations, as of records: ``young``, and ``old``, which was young before; what is used again moves back. They begin anew
together with those of the records (``RecordTable.sweep``). Each is striped by the hash of the key: a dictionary that grows beyond
700,000 entries holds the loop for 0.1 s, and one of sixteen parts that do so at other times for less than 10 ms.

What is in ``young`` is the newest there is, since each write of a kept kind goes into it. The threads of blocking functions read,
too. So a reader takes a part of ``young`` before it looks anywhere else, and adds what it has found to just that one, unless a commit
was there first: see ``docs/decisions/030``.
"""

from __future__ import annotations

import contextlib
from typing import Any

CACHED_BYTES = 140  # of memory for a kept cell besides its key and value: a dictionary entry and two objects
NOT_CACHED: Any = object()
STRIPES = 16
STRIPE = STRIPES - 1
"""The bits of a key's hash that tell its stripe."""

Stripe = dict[bytes, bytes | None]
"""``None``: there is no such cell."""


class CellCache:
    """See the module. One in each ``Cells``."""

    __slots__ = ("_dying", "_old", "_old_bytes", "young", "young_bytes")

    def __init__(self) -> None:
        self.young = _generation()
        self.young_bytes = 0
        """Estimated memory of ``young``."""
        self._old = _generation()
        self._old_bytes = 0
        self._dying: list[Stripe] = []

    @property
    def total_bytes(self) -> int:
        """Estimated memory of both generations."""
        return self.young_bytes + self._old_bytes

    def take_old(self, key: bytes) -> Any:
        """What the old generation has of a cell, which has to be added to the young one; else ``NOT_CACHED``."""
        value = self._old[hash(key) & STRIPE].pop(key, NOT_CACHED)
        if value is not NOT_CACHED:
            self._old_bytes -= _size(key, value)
        return value

    def add(self, young: Stripe, key: bytes, value: bytes | None) -> bytes | None:
        """Keep what was found; the value of the cell, which may be a newer one.

        Args:
            young: the key's stripe of the young generation from before it was looked for.
        """
        self.young_bytes += _size(key, value)
        return young.setdefault(key, value)

    def write(self, prefix: bytes, changes: dict[bytes, bytes | None]) -> None:
        """Some cells of a prefix have changed. For each, two are let go of if some are dying: so it ends before ``young`` is full."""
        if self._dying:
            self.sweep(2 * len(changes))
        young = self.young
        for suffix, value in changes.items():
            key = prefix + suffix
            stripe = young[hash(key) & STRIPE]
            before = len(stripe)
            stripe[key] = value
            if len(stripe) != before:
                self.young_bytes += _size(key, value)

    # ---- forgetting -----------------------------------------------------------------------------------------------------
    def turn(self) -> None:
        """The young generation becomes the old one, and what was old goes. Nothing may be dying."""
        self._dying, self._old, self.young = self._old, self.young, _generation()
        self._old_bytes, self.young_bytes = self.young_bytes, 0

    def sweep(self, limit: int) -> bool:
        """Let go of up to ``limit`` cells; whether there were any. All at once would hold the loop for 0.1 s."""
        left = limit
        while left and self._dying:
            stripe = self._dying[-1]
            count = min(left, len(stripe))
            with contextlib.suppress(KeyError):  # a reader that was late has taken the last one
                for _ in range(count):
                    stripe.popitem()
            left -= count
            if not stripe:
                self._dying.pop()
        return left < limit

    def cells(self) -> dict[bytes, bytes | None]:
        """All that would be found, for those who look at everything."""
        return {key: value for generation in (self._old, self.young) for stripe in generation for key, value in stripe.items()}


def _generation() -> list[Stripe]:
    return [{} for _ in range(STRIPES)]


def _size(key: bytes, value: bytes | None) -> int:
    return CACHED_BYTES + len(key) + (0 if value is None else len(value))
