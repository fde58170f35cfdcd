"""What is stored for one address, as values: its fields, maps, buffers and registered states, without the application.

An entry that has expired is shown as long as it is stored: a stopped node has no time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import date
from typing import Any, Final, Protocol
from uuid import UUID

import msgspec

from shardfun.core.cell_keys import (
    BUFFER_KIND,
    MAP_KIND,
    REGISTERED_KIND,
    cells_of_address,
    deadline_of,
    parse_cell_key,
    stored_address,
    value_in,
)
from shardfun.core.function import HIDDEN
from shardfun.core.hidden import DEADLINES, IDLE
from shardfun.core.registered import KIND, TYPE, VALUE
from shardfun.model.address import Address
from shardfun.model.cbor import load_cbor
from shardfun.model.keyspace import slot_of
from shardfun.model.letters import plain
from shardfun.model.ordered_keys import decode_key

_KINDS: Final = {MAP_KIND: "map", BUFFER_KIND: "buffer", REGISTERED_KIND: "registry"}


class StoredItem(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of a map, an element of a buffer, or a registered name.

    Args:
        key: the key, the number, or the name.
        value: of a registered name: its kind and types, and the value if it is not at its default.
        expires: unix seconds; ``None``: never.
    """

    key: Any
    value: Any
    expires: float | None = None


class StoredCollection(msgspec.Struct, frozen=True, kw_only=True):
    """One map, buffer or registry. ``count``: of all items; ``items``: the first ones, as many as were asked for."""

    name: str
    kind: str
    count: int
    items: list[StoredItem]


class AddressCounter:
    """Counts the addresses that have something stored, by typename. Keys come in order, so those of one slot come together."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._slot = b""
        self._seen: set[Address] = set()
        self._last = b"\xff\xff\xff"

    def add(self, key: bytes) -> None:
        """Look at a key, of whatever kind."""
        if key.startswith(self._last):
            return  # another part of the same collection
        if key[:2] != self._slot:
            self._slot = key[:2]
            self._seen.clear()
        cell = parse_cell_key(key)
        if cell is not None:
            self._last = cell.prefix
        address = stored_address(key) if cell is None else cell.address
        if address is not None and address not in self._seen:
            self._seen.add(address)
            self.counts[address.typename] += 1


class Scanned(Protocol):
    """A store that can be scanned."""

    def scan(self, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Keys that begin with ``prefix``, and their values, in order."""


def collections_of(store: Scanned, address: Address, limit: int) -> list[StoredCollection]:
    """The collections of an address.

    Args:
        limit: items to fetch of each.

    Raises:
        ValueError, LookupError, TypeError: a key or a value is damaged.
    """
    slot = slot_of(address.id).to_bytes(2, "big")
    found: list[StoredCollection] = []
    for kind in _KINDS:
        found += _grouped(store.scan(cells_of_address(slot, kind, address)), limit)
    return found


def _grouped(pairs: Iterable[tuple[bytes, bytes]], limit: int) -> Iterator[StoredCollection]:
    name, kind, count = "", b"", 0
    items: list[StoredItem] = []
    for key, raw in pairs:
        parsed = parse_cell_key(key)
        assert parsed is not None
        if parsed.name != name and count:
            yield StoredCollection(name=name, kind=_KINDS[kind], count=count, items=items)
            count, items = 0, []
        name, kind = parsed.name, parsed.kind
        count += 1
        if len(items) < limit:
            items.append(_item(kind, parsed.suffix, raw))
    if count:
        yield StoredCollection(name=name, kind=_KINDS[kind], count=count, items=items)


def _item(kind: bytes, suffix: bytes, raw: bytes) -> StoredItem:
    value = plain(load_cbor(value_in(raw)))
    if kind == REGISTERED_KIND:
        value = {part: value[part] for part in (KIND, TYPE, VALUE) if part in value}
        key: Any = suffix.decode()
    else:
        key = _plain_key(decode_key(suffix)) if kind == MAP_KIND else int.from_bytes(suffix, "big")
    deadline = deadline_of(raw)
    return StoredItem(key=key, value=value, expires=None if deadline is None else deadline / 1000)


def _plain_key(key: Any) -> Any:
    match key:
        case tuple():
            return [_plain_key(part) for part in key]
        case date() | UUID():
            return str(key)
        case _:
            return plain(key)


def fields_of(record: dict[str, Any]) -> dict[str, Any]:
    """The author's fields of a stored record."""
    return {name: value for name, value in record.items() if not name.startswith(HIDDEN)}


def deadlines_of(record: dict[str, Any]) -> dict[str, float]:
    """When fields of a stored record expire, in unix seconds; ``""`` is the instance."""
    hidden = record.get(HIDDEN) or {}
    found = {name: deadline / 1000 for name, deadline in hidden.get(DEADLINES, {}).items()}
    return found | ({"": hidden[IDLE] / 1000} if IDLE in hidden else {})
