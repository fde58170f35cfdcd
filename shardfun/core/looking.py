"""Looking at an address from outside, without disturbing it: its fields, and pages of its maps, buffers and registries.

What there is in memory is taken at once, between two pieces of work (``sight_of``): the record's values by reference, and copies of
the changed cells of this one address. The rest, which reads the store and converts values, may happen later and elsewhere
(``look``), as long as no more than the changes seen are applied to the store meanwhile: overlaid with them, it gives the same.
Without anything from memory, it gives the state of the last applied checkpoint.

What has expired is not shown, as an invocation would not see it. Whatever is stored, one look reads and shows a bounded amount.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

import cbor2

from shardfun.core.cell_keys import (
    BUFFER_KIND,
    MAP_KIND,
    REGISTERED_KIND,
    SLOT_BYTES,
    cells_prefix,
    deadline_of,
    living,
    number_suffix,
    value_in,
)
from shardfun.core.cells import Stored
from shardfun.core.dispatch import Dispatcher
from shardfun.core.function import CollectionSpec, CompiledFunction
from shardfun.core.hidden import DEADLINES, IDLE, Hidden
from shardfun.core.options import ExpiryMode
from shardfun.core.registered import KIND, TYPE, VALUE
from shardfun.core.registry import COLLECTION_KINDS
from shardfun.errors import CorruptionError, UnknownTargetError, nearest
from shardfun.model.address import Address
from shardfun.model.cbor import load_cbor
from shardfun.model.json_like import json_like, omitted
from shardfun.model.keyspace import slot_of
from shardfun.model.ordered_keys import decode_key
from shardfun.model.page_tokens import place_of, token_of

LOOKED_MAX: Final = 5000
"""Stored or changed keys that one page looks at; there may be many that have expired or were deleted."""
VALUE_BYTES_MAX: Final = 1 << 19
"""Of an encoded value; a longer one is not shown. As JSON a text may become six times as long, so bytes, which do not, count a quarter."""
FIELDS_BYTES_MAX: Final = 1 << 20
ITEMS_BYTES_MAX: Final = 1 << 20
"""Of all fields, and of all items of one answer, unless it is a single item."""

Group = dict[bytes, bytes | None]
"""Changed cells of one prefix, by suffix; ``None``: deleted."""

_KINDS: Final = {"map": MAP_KIND, "buffer": BUFFER_KIND, "registry": REGISTERED_KIND}
_PartKind = Literal["map", "buffer", "registry"]


@dataclass(frozen=True, slots=True)
class Sight:
    """What is in memory of an address, and not in the store.

    Args:
        values: ``values_of`` its record; ``None``: as stored.
        changes: of its cells, by prefix.
    """

    values: tuple[Any, ...] | None
    changes: dict[bytes, Group]


NOTHING: Final = Sight(None, {})


class Wanted(NamedTuple):
    """Which part of an address, from where on, and how many items of each part at most."""

    part: str | None
    after: str | None
    limit: int


def function_of(dispatcher: Dispatcher, typename: str) -> CompiledFunction:
    """The function of a name. Unlike ``Dispatcher.resolve`` it makes no function type of a name of a namespace.

    Raises:
        UnknownTargetError: there is none.
    """
    target = dispatcher.types.get(typename)
    return dispatcher.namespaces.find(typename, dispatcher.types)[0] if target is None else target.function


def sight_of(dispatcher: Dispatcher, address: Address, function: CompiledFunction, part: str | None) -> Sight:
    """What is in memory now. Costs a few reads, and a copy of the cells that have changed since the last applied checkpoint."""
    values = None
    target = dispatcher.types.get(address.typename)
    if target is not None:
        blocked = target.blocked.get(address.id)
        record = None if blocked is None else blocked.record
        if record is None:
            record = target.records.find(address.id)
        values = None if record is None else function.values_of(record)
    cells = dispatcher.table.cells
    changes = {prefix: group for prefix in _prefixes(address, function, part) if (group := cells.changes_of(prefix))}
    return Sight(values, changes)


def _prefixes(address: Address, function: CompiledFunction, part: str | None) -> list[bytes]:
    slot = slot_of(address.id).to_bytes(SLOT_BYTES, "big")
    found = [cells_prefix(slot, _KINDS[spec.kind], address, spec.name) for spec in function.spec.collections]
    if part is not None and "." in part:
        found += [cells_prefix(slot, kind, address, part) for kind in COLLECTION_KINDS.values()]
    return found


# ---- the whole -----------------------------------------------------------------------------------------------------------
def look(
    function: CompiledFunction, address: Address, sight: Sight, store: Stored, now_ms: int, wanted: Wanted
) -> dict[str, Any]:
    """What is to be shown: the arguments of ``questions.StateAnswer`` without the checkpoint.

    Args:
        now_ms: unix milliseconds; what has expired then is not shown.

    Raises:
        UnknownTargetError: there is no such part.
        ConfigurationError: ``wanted.after`` is no continuation.
        PayloadTypeError: the stored state does not fit its declaration.
        CorruptionError, StorageError: the store cannot be read.
    """
    values = sight.values
    if values is None:
        record = function.blank(address.id)
        function.fill(record, store.get(record._key))  # noqa: SLF001
        values = function.values_of(record)
    try:
        return _Seen(function, address, values, sight.changes, store, now_ms).answer(wanted)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        # Of what the runtime keeps beside the author's values. Nobody has to die for a question.
        raise CorruptionError(f"the state of {address} is damaged: {error!r:.200}") from error


class _Seen:
    """One look at an address."""

    def __init__(
        self,
        function: CompiledFunction,
        address: Address,
        values: tuple[Any, ...],
        changes: dict[bytes, Group],
        store: Stored,
        now_ms: int,
    ) -> None:
        self._spec = function.spec
        self._address = address
        self._slot = slot_of(address.id).to_bytes(SLOT_BYTES, "big")
        self._values = values
        self._changes = changes
        self._store = store
        self._now_ms = now_ms
        self._hidden = hidden = Hidden(values[-1] if function.full else None)
        idle = hidden.plain.get(IDLE)
        self._gone = function.spec.options.expire_idle_ms is not None and idle is not None and idle <= now_ms
        """The instance has expired as a whole."""
        self._room = ITEMS_BYTES_MAX

    def answer(self, wanted: Wanted) -> dict[str, Any]:
        fields, exists = self._fields()
        declared = {spec.name: spec for spec in self._spec.collections}
        chosen = None if wanted.part is None else self._chosen(wanted.part, declared)
        parts: dict[str, dict[str, Any]] = {}
        if chosen is not None:
            kind, spec = chosen
            assert wanted.part is not None
            start = place_of(wanted.after, _KINDS[kind])
            parts[wanted.part] = self._part(kind, wanted.part, spec, start, wanted.limit)
        for name, spec in declared.items():
            if name in parts:
                continue
            page = self._part(spec.kind, name, spec, b"", wanted.limit if chosen is None else 1)
            exists = exists or bool(page["items"]) or page["next"] is not None
            if chosen is None:
                parts[name] = page
        if chosen is not None:
            page = parts[str(wanted.part)]
            exists = exists or bool(page["items"]) or page["next"] is not None or wanted.after is not None
        return {
            "address": str(self._address),
            "exists": exists,
            "fields": fields,
            "expires": self._deadlines(),
            "parts": parts,
            "next": None if chosen is None else parts[str(wanted.part)]["next"],
        }

    # ---- single values --------------------------------------------------------------------------------------------------
    def _fields(self) -> tuple[dict[str, Any], bool]:
        """The fields, and whether one of them is not at its default."""
        found: dict[str, Any] = {}
        exists, room = False, FIELDS_BYTES_MAX
        for field, value in zip(self._spec.fields, self._values, strict=False):
            deadline = None if field.expiry is None else self._hidden.deadline(field.name)
            default = field.encode(field.default)
            if self._gone or (deadline is not None and deadline <= self._now_ms):
                encoded = default
            else:
                encoded = field.encode(value) if field.immutable else value
            exists = exists or encoded != default
            weight = _weight(encoded)
            fits = weight <= min(room, VALUE_BYTES_MAX)
            room -= weight if fits else 0
            found[field.name] = json_like(cbor2.loads(encoded)) if fits else omitted(len(encoded))
        return found, exists

    def _deadlines(self) -> dict[str, float]:
        """When what is declared to expire does."""
        if self._gone:
            return {}
        plain = self._hidden.plain
        permanent = {field.name for field in self._spec.fields if field.expiry is None}
        deadlines = {name: ms for name, ms in plain.get(DEADLINES, {}).items() if name not in permanent}
        if self._spec.options.expire_idle_ms is not None and IDLE in plain:
            deadlines[""] = plain[IDLE]
        return {name: ms / 1000 for name, ms in deadlines.items() if ms > self._now_ms}

    # ---- parts ----------------------------------------------------------------------------------------------------------
    def _chosen(self, part: str, declared: dict[str, CollectionSpec]) -> tuple[_PartKind, CollectionSpec | None]:
        """The kind of a part, and its declaration, if it is not registered."""
        name, dot, registered = part.partition(".")
        spec = declared.get(name)
        if spec is not None and not dot:
            return spec.kind, spec
        if spec is None or spec.kind != "registry":
            hint = nearest(name, declared) if declared else "; it has no maps, buffers and registries"
            raise UnknownTargetError(f"{self._spec.typename} has no part {part!r:.200}{hint}")
        prefix, suffix = cells_prefix(self._slot, REGISTERED_KIND, self._address, name), registered.encode(errors="replace")
        group = self._changes.get(prefix, {})
        raw = None if self._gone else group[suffix] if suffix in group else self._store.get(prefix + suffix)
        if raw is None:
            raise UnknownTargetError(f"{self._address}: nothing is registered under {part!r:.200}")
        match _loads(value_in(raw), "a registration")[KIND]:
            case ("map" | "buffer") as kind:
                return kind, None
        raise UnknownTargetError(f"{part!r:.200} is a single value; the part {name!r} shows it")

    def _part(self, kind: _PartKind, name: str, spec: CollectionSpec | None, start: bytes, limit: int) -> dict[str, Any]:
        """One page of a map, a buffer or a registry. What is registered has no ``spec``."""
        prefix = cells_prefix(self._slot, _KINDS[kind], self._address, name)
        stop: bytes | None = None
        shows_expired = False
        empty = self._gone
        if kind == "registry":  # what is registered stays so when its value has expired
            shows_expired = True
        elif kind == "buffer":
            bounds, deadline = self._hidden.bounds(name), self._hidden.deadline(name)
            whole = spec is None or (spec.expiry is not None and spec.expiry.mode is ExpiryMode.AFTER_ACCESS)
            empty = empty or bounds is None or (whole and deadline is not None and deadline <= self._now_ms)
            if bounds is not None:
                start, stop = max(start, number_suffix(bounds[0])), number_suffix(bounds[1])
                shows_expired = len(bounds) == 2 and (spec is None or spec.expiry is None or whole)
        if empty:
            return {"kind": kind, "items": [], "next": None}
        pairs, place = self._page(prefix, start, stop, limit, shows_expired=shows_expired)
        items = [self._item(kind, suffix, raw) for suffix, raw in pairs]
        return {"kind": kind, "items": items, "next": None if place is None else token_of(_KINDS[kind], place)}

    def _page(
        self, prefix: bytes, start: bytes, stop: bytes | None, limit: int, *, shows_expired: bool
    ) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        """Some living cells from ``start`` on, and where to go on; ``None`` at the end.

        Not ``Cells.scan``, which sorts all changes of a map at once.
        """
        if self._room <= 0:
            return [], start
        changes = self._changes.get(prefix, {})
        in_range = (suffix for suffix in changes if suffix >= start and (stop is None or suffix < stop))
        mine = heapq.nsmallest(LOOKED_MAX + 1, in_range)
        horizon = mine.pop() if len(mine) > LOOKED_MAX else None
        """What is known ends before this."""
        merged: Group = {suffix: changes[suffix] for suffix in mine}
        unshadowed = size = 0
        skip = len(prefix)
        for looked, (key, raw) in enumerate(self._store.scan(prefix, start)):
            suffix = key[skip:]
            if (stop is not None and suffix >= stop) or (horizon is not None and suffix >= horizon):
                break
            if looked >= LOOKED_MAX or unshadowed > limit or size > self._room:
                horizon = suffix
                break
            if suffix not in changes:
                merged[suffix] = raw
                alive = shows_expired or living(raw, self._now_ms) is not None
                unshadowed += alive
                size += len(raw) if alive else 0
        return self._first(merged, horizon, limit, shows_expired=shows_expired)

    def _first(
        self, merged: Group, horizon: bytes | None, limit: int, *, shows_expired: bool
    ) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        found: list[tuple[bytes, bytes]] = []
        for suffix in sorted(merged):
            if horizon is not None and suffix >= horizon:
                break
            raw = merged[suffix]
            if raw is None or not (shows_expired or living(raw, self._now_ms) is not None):
                continue
            weight = _weight(value_in(raw))
            weight = len(suffix) + (weight if weight <= VALUE_BYTES_MAX else 0)
            if len(found) == limit or (found and weight > self._room):
                return found, suffix
            self._room -= weight
            found.append((suffix, raw))
        return found, horizon

    def _item(self, kind: _PartKind, suffix: bytes, raw: bytes) -> dict[str, Any]:
        item: dict[str, Any] = {}
        if kind == "buffer":
            item["key"] = int.from_bytes(suffix, "big")
        elif kind == "map":
            try:
                item["key"] = shown_key(decode_key(suffix))
            except ValueError as error:
                raise CorruptionError(f"the state of {self._address} is damaged: {error}") from error
        else:
            item["key"] = suffix.decode()
        deadline = deadline_of(raw)
        alive = deadline is None or deadline > self._now_ms
        if deadline is not None and alive:
            item["expires"] = deadline / 1000
        encoded = value_in(raw)
        if _weight(encoded) > VALUE_BYTES_MAX:
            item["value"] = omitted(len(encoded))
        elif kind == "registry":
            plain = _loads(encoded, "a registration")
            shown = (KIND, TYPE, VALUE) if alive else (KIND, TYPE)
            item["value"] = {name: json_like(plain[name]) for name in shown if name in plain}
        else:
            item["value"] = json_like(_loads(encoded, f"the state of {self._address}"))
        return item


def shown_key(key: Any) -> Any:
    """A map's key as JSON knows it: a tuple as a list, dates and UUIDs as text."""
    match key:
        case tuple():
            return [shown_key(part) for part in key]
        case date() | UUID():
            return str(key)
        case _:
            return json_like(key)


def _weight(encoded: bytes) -> int:
    """The size of a value, as the limits count it."""
    is_bytes = encoded[:1] >= b"\x40" and encoded[:1] < b"\x60"  # the first byte of a byte string in CBOR
    return len(encoded) // 4 if is_bytes else len(encoded)


def _loads(raw: bytes, what: str) -> Any:
    try:
        return load_cbor(raw)
    except ValueError as error:
        raise CorruptionError(f"{what} is damaged: {error}") from error
