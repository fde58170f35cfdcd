"""Which shard owns an address.

A stable hash of the **id alone** picks one of ``SLOTS`` slots, so that all functions of one id live together (as in Stateful
Functions); a shard owns a contiguous range of slots. The number of slots is fixed for the life of a data directory: stored keys
begin with the slot, and a key range is one contiguous scan.
"""

from __future__ import annotations

from zlib import crc32

SLOTS = 1 << 15
_MASK = SLOTS - 1


def slot_of(id: str) -> int:
    """The slot of an id: CRC-32 (IEEE) of its UTF-8 bytes, low 15 bits. Stable over processes, machines and releases.

    CRC-32 is not the best hash but it is in the standard library, costs 58 ns, and spreads decimal and UUID ids evenly.
    """
    return crc32(id.encode()) & _MASK


def owner_of_slot(slot: int, shards: int) -> int:
    """The shard, 0 to ``shards - 1``, that owns ``slot`` when there are ``shards`` shards."""
    return slot * shards // SLOTS


def owner_of(id: str, shards: int) -> int:
    """The shard that owns all addresses with this id."""
    return owner_of_slot(slot_of(id), shards)


def slot_range(shard: int, shards: int) -> tuple[int, int]:
    """First slot of a shard and the one after its last: ``owner_of_slot`` turned around."""
    first = -(-shard * SLOTS // shards)
    end = -(-(shard + 1) * SLOTS // shards)
    return first, end
