"""Cells that were read or written lately, by their whole keys: what is hot is not read from the store after each checkpoint.

Two generations, as of records: ``young``, and ``old``, which was young before; what is used again moves back, and what is not is
forgotten when room is needed. They begin anew together with those of the records (``RecordTable.sweep``). Each is striped by the hash
of the key: a dictionary that grows beyond 700,000 entries holds the loop for 0.1 s, and one of sixteen parts that do so at other times
for less than 10 ms.

A key is in one generation at most, with the newest value there is: each write of a kept kind comes here. Only the loop changes
anything. The threads of blocking functions look (``look``): see ``docs/decisions/030``.
"""

from __future__ import annotations

from typing import Any

CACHED_BYTES = 140  # of memory for a kept cell besides its key and value: a dictionary entry and two objects
NOT_CACHED: Any = object()
STRIPES = 16
STRIPE = STRIPES - 1
"""The bits of a key's hash that tell its stripe."""
FORGET_PER_CELL = 2
"""So many are forgotten for each that comes, while there are too many: so it ends."""

Stripe = dict[bytes, bytes | None]
"""``None``: there is no such cell."""


class CellCache:
    """See the module. One in each ``Cells``.

    ``limit``: bytes beyond which a cell that comes has others forgotten at once, or is not kept.
    ``total_bytes``: estimated memory of both generations.
    """

    __slots__ = ("_stripe", "limit", "old", "total_bytes", "young")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total_bytes = 0
        self.young = _generation()
        self.old = _generation()
        self._stripe = 0
        """Of ``old``: those before are empty."""

    def look(self, key: bytes) -> bytes | None:
        """The value of a cell, or ``NOT_CACHED``. Changes nothing: from any thread."""
        stripe = hash(key) & STRIPE
        found = self.young[stripe].get(key, NOT_CACHED)
        return self.old[stripe].get(key, NOT_CACHED) if found is NOT_CACHED else found

    def add(self, stripe: int, key: bytes, value: bytes | None) -> None:
        """Keep what was read, unless there is no room."""
        size = cell_size(key, value)
        if self.total_bytes + size > self.limit and not self.forget(FORGET_PER_CELL, self.limit - size):
            return
        self.total_bytes += size
        self.young[stripe][key] = value

    def write(self, prefix: bytes, changes: dict[bytes, bytes | None]) -> int:
        """Some cells of a prefix have changed; how many bytes their suffixes and values are."""
        if self.total_bytes > self.limit:
            self.forget(FORGET_PER_CELL * len(changes), self.limit)
        written = more = 0
        for suffix, value in changes.items():
            key = prefix + suffix
            number = hash(key) & STRIPE
            stripe = self.young[number]
            before = stripe.get(key, NOT_CACHED)
            if before is NOT_CACHED:
                before = self.old[number].pop(key, NOT_CACHED)
                if before is NOT_CACHED:
                    before = None
                    more += CACHED_BYTES + len(key)
            stripe[key] = value
            written += len(suffix)
            if value:
                written += (size := len(value))
                more += size
            if before:
                more -= len(before)
        self.total_bytes += more
        return written

    # ---- forgetting -----------------------------------------------------------------------------------------------------
    @property
    def young_cells(self) -> int:
        """How many have been used since the turn."""
        return sum(map(len, self.young))

    def turn(self) -> None:
        """The young generation becomes the old one. There must be nothing in that."""
        self.old, self.young = self.young, _generation()
        self._stripe = 0

    def forget(self, count: int, limit: int) -> bool:
        """Forget up to ``count`` old cells, until the others take no more than ``limit`` bytes; whether there were any."""
        size, left = self.total_bytes, count
        while self._stripe < STRIPES and left and size > limit:
            stripe = self.old[self._stripe]
            while stripe and left and size > limit:
                key, value = stripe.popitem()
                size -= cell_size(key, value)
                left -= 1
            if not stripe:
                self.old[self._stripe] = {}  # without the memory of what was in it
                self._stripe += 1
        self.total_bytes = size
        return left < count

    def cells(self) -> dict[bytes, bytes | None]:
        """All that would be found, for those who look at everything."""
        return {key: value for generation in (self.old, self.young) for stripe in generation for key, value in stripe.items()}


def cell_size(key: bytes, value: bytes | None) -> int:
    """Estimated memory of a kept cell."""
    return CACHED_BYTES + len(key) + (0 if value is None else len(value))


def _generation() -> list[Stripe]:
    return [{} for _ in range(STRIPES)]
