"""Where collections are stored: the keys of map entries, buffer elements and registered states, and the time stamp of cells.

    <slot u16> <kind> <typename> 00 <length of the id u16> <id> <name of the field> 00 <suffix>

Numbers are big-endian. The suffix of a map entry is its key (``model.ordered_keys``), of a buffer element its number, of a
registered state its name. Registered maps and buffers are stored under ``field.name``, which no declared field can be called.

A value that expires has its deadline in front, in a CBOR tag of ours. No plain value has such a tag, so a cell tells by itself
whether it expires, also after the declaration has changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from shardfun.core.function import STATE_KIND, parse_state_key
from shardfun.errors import CorruptionError
from shardfun.model.address import Address

MAP_KIND = b"m"
BUFFER_KIND = b"b"
REGISTERED_KIND = b"r"
KIND = slice(2, 3)
"""Where the kind is in a key, behind the slot. Keys by shard are shorter, or have another letter there."""
NAME_BYTES_MAX = 255
NUMBER_BYTES = 8
SLOT_BYTES = 2

STAMP = b"\xd9\x53\x46\x82\x1b"  # tag 21318 of an array of two, the first a number of 8 bytes
_STAMP_BYTES = len(STAMP) + 8


class CellKey(NamedTuple):
    """The parts of a stored key. ``prefix`` is all of it but the suffix."""

    kind: bytes
    address: Address
    name: str
    prefix: bytes
    suffix: bytes


def cells_of_address(slot: bytes, kind: bytes, address: Address) -> bytes:
    """The beginning of all keys of a kind that an address has.

    Args:
        slot: of the id, as two bytes.
    """
    id = address.id.encode()
    return slot + kind + address.typename.encode() + b"\0" + len(id).to_bytes(2, "big") + id


def cells_prefix(slot: bytes, kind: bytes, address: Address, name: str) -> bytes:
    """The prefix of the cells of one collection."""
    return cells_of_address(slot, kind, address) + name.encode() + b"\0"


def parse_cell_key(key: bytes) -> CellKey | None:
    """The parts of a stored key; ``None`` for keys of other kinds.

    Raises:
        CorruptionError: it is of one of these kinds, and damaged.
    """
    kind = key[KIND]
    if kind not in {MAP_KIND, BUFFER_KIND, REGISTERED_KIND}:
        return None
    try:
        typename_end = key.index(b"\0", 3)
        id_start = typename_end + 3
        id_end = id_start + int.from_bytes(key[typename_end + 1 : id_start], "big")
        name_end = key.index(b"\0", id_end)
        address = Address(key[3:typename_end].decode(), key[id_start:id_end].decode())
        return CellKey(kind, address, key[id_end:name_end].decode(), key[: name_end + 1], key[name_end + 1 :])
    except ValueError as error:
        raise CorruptionError(f"a stored key is damaged: {key!r:.200}") from error


def stored_address(key: bytes) -> Address | None:
    """The address that has something stored under this key: a record, or a part of a collection.

    Raises:
        CorruptionError: it is damaged.
    """
    if key[KIND] == STATE_KIND:
        return parse_state_key(key)
    found = parse_cell_key(key)
    return None if found is None else found.address


def stored_addresses(keys: Iterable[bytes]) -> dict[str, list[str]]:
    """The ids that have something stored, each once, by typename."""
    found: dict[str, dict[str, None]] = {}
    for key in keys:
        address = stored_address(key)
        if address is not None:
            found.setdefault(address.typename, {})[address.id] = None
    return {typename: list(ids) for typename, ids in found.items()}


def number_suffix(number: int) -> bytes:
    """The suffix of a buffer's element."""
    return number.to_bytes(NUMBER_BYTES, "big")


# ---- deadlines of cells ------------------------------------------------------------------------------------------------
def stamped(value: bytes, deadline_ms: int) -> bytes:
    """An encoded value with the time of its end in front."""
    return STAMP + deadline_ms.to_bytes(8, "big") + value


def deadline_of(raw: bytes) -> int | None:
    """When a cell expires: unix milliseconds; ``None``: never."""
    return int.from_bytes(raw[len(STAMP) : _STAMP_BYTES], "big") if raw.startswith(STAMP) else None


def value_in(raw: bytes) -> bytes:
    """The encoded value in a cell."""
    return raw[_STAMP_BYTES:] if raw.startswith(STAMP) else raw


def living(raw: bytes | None, now_ms: int) -> bytes | None:
    """The encoded value in a cell; ``None`` if there is none or its time is over."""
    if raw is None or not raw.startswith(STAMP):
        return raw
    return raw[_STAMP_BYTES:] if int.from_bytes(raw[len(STAMP) : _STAMP_BYTES], "big") > now_ms else None
