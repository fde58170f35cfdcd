"""Listing the ids of a function type that have something stored, page by page, from the keys of a store.

The order is that of slots, and of the ids' bytes in a slot: it never changes, and all ids of one slot are looked at together, since
an id may have a record, entries of a map and registered states, each in a key range of its own. It is found by seeks: what is of
other types or is one of many entries of an address is jumped over.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import Final

from shardfun.core.cell_keys import MAP_KIND, REGISTERED_KIND, SLOT_BYTES
from shardfun.core.function import STATE_KIND, CompiledFunction

SEEKS_MAX: Final = 5000
"""Of one page, as far as they are not in the slot where it ends."""

Seek = Callable[[bytes], bytes | None]
"""The first stored key from a given one on."""


def list_ids(
    seek: Seek, function: CompiledFunction, start: tuple[int, bytes], end_slot: int, limit: int
) -> tuple[list[str], tuple[int, bytes]]:
    """Some ids, and where to go on: behind an id of a slot. At the end that is ``end_slot``.

    Args:
        start: a slot, and the id (as UTF-8) behind which to begin in it; ``b""`` is before all.
    """
    return _Listing(seek, function, start[0]).page(start, end_slot, limit)


class _Listing:
    def __init__(self, seek: Seek, function: CompiledFunction, slot: int) -> None:
        self._seek_key = seek
        self._typename = function.spec.typename.encode() + b"\0"
        collections = {spec.kind for spec in function.spec.collections}
        # A buffer that is not empty has its bounds in the record, and what is registered has a registration.
        self._cell_kinds = [MAP_KIND] * ("map" in collections) + [REGISTERED_KIND] * ("registry" in collections)
        self._seeks = 0
        self._from: bytes | None = None
        self._found: bytes | None = None
        """What the last seek began with, and what it found: there is nothing in between."""
        self._next_slot = slot

    def page(self, start: tuple[int, bytes], end_slot: int, limit: int) -> tuple[list[str], tuple[int, bytes]]:
        ids: list[str] = []
        slot, after = start
        while slot < end_slot:
            room = limit - len(ids)
            found = self._in_slot(slot, after, room + 1)
            ids += [id.decode() for id in found[:room]]
            if len(found) > room:
                return ids, (slot, found[room - 1] if room else after)
            slot, after = self._next_slot, b""
            if self._seeks >= SEEKS_MAX:
                break
        return ids, (min(slot, end_slot), after)

    def _in_slot(self, slot: int, after: bytes, limit: int) -> list[bytes]:
        """The first ids of a slot behind ``after``. Sets the next slot to look at."""
        head = slot.to_bytes(SLOT_BYTES, "big")
        found = set(self._recorded(head, after, limit))
        for kind in self._cell_kinds:
            found.update(heapq.nsmallest(limit, (id for id in self._in_cells(head + kind) if id > after)))
        return heapq.nsmallest(limit, found)

    def _recorded(self, head: bytes, after: bytes, limit: int) -> Iterator[bytes]:
        """Ids with a record, in order."""
        prefix = head + STATE_KIND + self._typename
        key = self._seek(prefix + after + b"\0" if after else prefix)
        while key is not None and key.startswith(prefix):
            yield key[len(prefix) :]
            limit -= 1
            if not limit:
                break
            key = self._seek(key + b"\0")
        # Records come behind all other kinds, so if the next key is of a later slot, there is nothing in the slots between.
        self._next_slot = int.from_bytes(head, "big") + 1
        if key is None:
            self._next_slot = 1 << 8 * SLOT_BYTES
        elif not key.startswith(head):
            self._next_slot = int.from_bytes(key[:SLOT_BYTES], "big")

    def _in_cells(self, kind: bytes) -> Iterator[bytes]:
        """Ids with cells of a kind; there may be many of each. In a slot there are few ids, so all of them are looked at."""
        prefix = kind + self._typename
        key = self._seek(prefix)
        while key is not None and key.startswith(prefix):
            start = len(prefix) + 2
            end = start + int.from_bytes(key[len(prefix) : start], "big")
            yield key[start:end]
            key = self._seek(key[: end - 1] + bytes((key[end - 1] + 1,)))  # no UTF-8 ends with the byte 255

    def _seek(self, key: bytes) -> bytes | None:
        """Mostly there is nothing between the ranges of one slot: then one seek answers for all of them."""
        if self._from is None or key < self._from or (self._found is not None and key > self._found):
            self._seeks += 1
            self._from, self._found = key, self._seek_key(key)
        return self._found
