"""``Registry``: states that a function names at run time: single values, maps and buffers.

What is registered under a name, its kind and its types, is stored with the address, so a name means the same in every invocation.
A registered value is a cell of its own; maps and buffers are stored as declared ones are, under ``field.name``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast, overload

import cbor2

from shardfun.core.buffers import Bounds, Buffer
from shardfun.core.cell_keys import (
    BUFFER_KIND,
    MAP_KIND,
    NAME_BYTES_MAX,
    cells_prefix,
    value_in,
)
from shardfun.core.cells import CellReader
from shardfun.core.function import CollectionSpec, FieldSpec
from shardfun.core.hidden import Hidden
from shardfun.core.maps import CLOSED, Closed, Map, Write
from shardfun.core.options import Expiry
from shardfun.core.registered import KIND, TYPE, RegisteredValue
from shardfun.errors import InvocationError
from shardfun.model.address import Address
from shardfun.model.conversion import convertible
from shardfun.model.ordered_keys import KeyType, key_type
from shardfun.model.payload import PayloadType, payload_types

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")
_MISSING: Any = object()
DESCRIPTIONS_MAX = 1000

COLLECTION_KINDS = {"map": MAP_KIND, "buffer": BUFFER_KIND}


class Descriptions:
    """What the types mean that the registries of one function type were asked for. Looking at a type takes far longer than using it.

    ``expiring``: whether any registered state expires, as far as this process has seen.
    """

    __slots__ = ("_items", "_keys", "expiring")

    def __init__(self) -> None:
        self._items: dict[Any, tuple[Any, tuple[PayloadType, ...]]] = {}
        self._keys: dict[Any, KeyType] = {}
        self.expiring = False

    def item(self, annotation: Any, name: str, default: Any) -> FieldSpec:
        """What a type of values means.

        Raises:
            DefinitionError: values of it cannot be stored.
        """
        found = self._items.get(annotation)
        if found is None:
            types = payload_types(annotation, f"registered state {name!r}")
            found = (convertible(annotation, f"registered state {name!r}") if types else annotation, types)
            self._remember(self._items, annotation, found)
        return FieldSpec(name, *found, default)

    def key(self, annotation: Any, name: str) -> KeyType:
        """What a type of keys means.

        Raises:
            DefinitionError: there is no order for keys of that type.
        """
        what = f"state field {name!r}: key"
        found = self._keys.get(annotation)
        if found is None:
            found = key_type(annotation, what)
            self._remember(self._keys, annotation, found)
        return found if found.what == what else dataclasses.replace(found, what=what)

    @staticmethod
    def _remember(known: dict[Any, Any], annotation: Any, found: Any) -> None:
        if len(known) >= DESCRIPTIONS_MAX:
            known.clear()
        known[annotation] = found


class Place(NamedTuple):
    """Where a registry is: the field's name, the address with its slot, and the prefix of its registrations."""

    name: str
    address: Address
    slot: bytes
    prefix: bytes


class Registry:
    """States of one address that are registered by name when they are needed. Declared with ``extra: Registry = registry()``.

    Each method gives the state of that name, and registers it if it is new. The kind and the types of a name cannot be changed
    afterwards: another kind or type is an error, in the same invocation and in any later one.
    """

    __slots__ = ("_cells", "_cleared", "_describe", "_hidden", "_name", "_now_ms", "_open", "_place", "_prefix")

    def __init__(
        self, place: Place, cells: CellReader, now_ms: int, hidden: Hidden, describe: Descriptions, *, empty: bool
    ) -> None:
        self._name = place.name
        self._place = place
        self._cells = cells
        self._now_ms = now_ms
        self._hidden = hidden
        self._describe = describe
        self._cleared = empty
        self._prefix = place.prefix
        self._open: dict[str, _Opened] = {}

    def __repr__(self) -> str:
        return f"<Registry {self._name}>"

    @overload
    def value(self, name: str, type: type[T], *, default: T, expire: Expiry | None = None) -> RegisteredValue[T]: ...
    @overload
    def value(
        self, name: str, type: type[T], *, default_factory: Callable[[], T], expire: Expiry | None = None
    ) -> RegisteredValue[T]: ...
    @overload
    def value(self, name: str, type: Any, *, default: Any, expire: Expiry | None = None) -> RegisteredValue[Any]: ...
    def value(
        self,
        name: str,
        type: Any,
        *,
        default: Any = _MISSING,
        default_factory: Callable[[], Any] | None = None,
        expire: Expiry | None = None,
    ) -> RegisteredValue[Any]:
        """A single value.

        Args:
            name: 1 to 255 bytes of text.
            type: of the value, as in a declaration.
            default: what it is before it is set; ``default_factory`` makes one of a mutable type.
            expire: ``after_write(...)`` or ``after_access(...)``: when it goes back to the default by itself.

        Raises:
            InvocationError: the name is registered as something else, or is no name.
            DefinitionError: the type cannot be stored.
            PayloadTypeError: the default is not of the type.
        """
        if (default is _MISSING) == (default_factory is None):
            msg = f"registry {self._name!r}: value({name!r}): expected a default or a default_factory, and not both"
            raise InvocationError(msg)
        item = self._describe.item(type, self._full(name), default if default_factory is None else default_factory())
        item.encode_checked(item.default)
        opened = self._take(name, "value", item.type_name)
        if opened.handle is None:
            registration = cbor2.dumps({KIND: "value", TYPE: item.type_name})
            opened.handle = RegisteredValue(item, registration, opened.stored, expire, self._now_ms)
            self._open[name] = opened
        self._note(expire)
        return cast("RegisteredValue[Any]", opened.handle)

    def map(self, name: str, key: type[K], value: type[V], *, expire: Expiry | None = None) -> Map[K, V]:
        """A map.

        Raises:
            InvocationError: the name is registered as something else, or is no name.
            DefinitionError: a type cannot be stored.
        """
        full = self._full(name)
        keys, item = self._describe.key(key, full), self._describe.item(value, full, None)
        opened = self._take(name, "map", f"{keys.name}, {item.type_name}")
        if opened.handle is None:
            spec = CollectionSpec(full, "map", keys, item, expire)
            opened.handle = Map(spec, self._cells, self._prefix_of(MAP_KIND, name), self._now_ms, opened.fresh)
            self._open[name] = opened
        self._note(expire)
        return cast("Map[K, V]", opened.handle)

    def buffer(self, name: str, type: type[T], *, expire: Expiry | None = None) -> Buffer[T]:
        """A buffer.

        Raises:
            InvocationError: the name is registered as something else, or is no name.
            DefinitionError: the type cannot be stored.
        """
        full = self._full(name)
        item = self._describe.item(type, full, None)
        opened = self._take(name, "buffer", item.type_name)
        if opened.handle is None:
            spec = CollectionSpec(full, "buffer", None, item, expire)
            bounds, deadline = (None, None) if opened.fresh else (self._hidden.bounds(full), self._hidden.deadline(full))
            prefix = self._prefix_of(BUFFER_KIND, name)
            opened.handle = Buffer(spec, self._cells, prefix, self._now_ms, bounds, deadline, empty=opened.fresh)
            self._open[name] = opened
        self._note(expire)
        return cast("Buffer[T]", opened.handle)

    def names(self) -> list[str]:
        """All names that are registered, in order."""
        stored = [] if self._cleared else [suffix.decode() for suffix, _ in self._cells.scan(self._prefix)]
        return sorted({*stored, *self._open})

    def __contains__(self, name: object) -> bool:
        if name in self._open:
            return True
        return type(name) is str and not self._cleared and self._cells.get(self._prefix, name.encode()) is not None

    def __bool__(self) -> bool:
        return bool(self.names())

    def clear(self) -> None:
        """Forget every name and what is stored under it."""
        if self._cells is CLOSED:
            Closed().fail()
        for opened in self._open.values():
            opened.handle.close()
        self._open = {}
        self._cleared = True

    # ---- how ------------------------------------------------------------------------------------------------------------
    def _full(self, name: str) -> str:
        return f"{self._name}.{name}"

    def _prefix_of(self, kind: bytes, name: str) -> bytes:
        return cells_prefix(self._place.slot, kind, self._place.address, self._full(name))

    def _note(self, expire: Expiry | None) -> None:
        if expire is not None:
            self._describe.expiring = True

    def _take(self, name: str, kind: str, types: str) -> _Opened:
        """The registration of a name, which must be of this kind and these types if there is one."""
        opened = self._open.get(name) if type(name) is str else None
        if opened is None:
            if type(name) is not str or not 0 < len(name.encode()) <= NAME_BYTES_MAX or "\0" in name:
                msg = f"registry {self._name!r}: expected a name of 1 to {NAME_BYTES_MAX} bytes, got {name!r:.100}"
                raise InvocationError(msg)
            raw = None if self._cleared else self._cells.get(self._prefix, name.encode())
            known = {KIND: kind, TYPE: types} if raw is None else cbor2.loads(value_in(raw))
            opened = _Opened(known[KIND], known[TYPE], raw, self._cleared)
        if (opened.kind, opened.types) != (kind, types):
            msg = (
                f"registry {self._name!r}: {name!r} is registered as a {opened.kind} of {opened.types}, and asked for as a "
                f"{kind} of {types}; use another name, or the same kind and types"
            )
            raise InvocationError(msg)
        return opened

    # ---- the end of the invocation --------------------------------------------------------------------------------------
    def writes(self, buffers: dict[str, tuple[Bounds | None, int | None]]) -> list[Write]:
        """What has to be put into the cells.

        Args:
            buffers: gets the new bounds and deadlines of the buffers, by their full names.

        Raises:
            PayloadTypeError: a value is not of its type any more, or cannot be encoded.
        """
        own: dict[bytes, bytes | None] = {}
        found: list[Write] = [(self._prefix, own)]
        if self._cleared:
            self._remove_others(own, found, buffers)
        for name, opened in self._open.items():
            handle = opened.handle
            cell: bytes | None = None
            if type(handle) is RegisteredValue:
                cell = handle.cell()
            elif opened.stored is None:
                cell = cbor2.dumps({KIND: opened.kind, TYPE: opened.types})
            if cell is not None:
                own[name.encode()] = cell
            if type(handle) is Map:
                found.append(handle.writes())
            elif type(handle) is Buffer:
                more, bounds, deadline = handle.writes()
                found.append(more)
                buffers[self._full(name)] = bounds, deadline
        return found

    def _remove_others(
        self, own: dict[bytes, bytes | None], found: list[Write], buffers: dict[str, tuple[Bounds | None, int | None]]
    ) -> None:
        """What is stored and was not asked for since everything was cleared goes away."""
        for suffix, raw in self._cells.scan(self._prefix):
            name, kind = suffix.decode(), cbor2.loads(value_in(raw))[KIND]
            opened = self._open.get(name)
            if opened is None:
                own[suffix] = None
            if kind in COLLECTION_KINDS and (opened is None or opened.kind != kind):  # else its own ``writes`` empties it
                prefix = self._prefix_of(COLLECTION_KINDS[kind], name)
                found.append((prefix, dict.fromkeys(each for each, _ in self._cells.scan(prefix))))
                buffers[self._full(name)] = None, None

    def close(self) -> None:
        """The invocation is over: any use raises."""
        for opened in self._open.values():
            opened.handle.close()
        self._cells = CLOSED
        self._open = {}


class _Opened:
    """A name that this invocation has asked for. ``fresh``: what is stored under it is to be forgotten."""

    __slots__ = ("fresh", "handle", "kind", "stored", "types")

    def __init__(self, kind: str, types: str, stored: bytes | None, fresh: bool) -> None:  # noqa: FBT001 - private, named above
        self.kind = kind
        self.types = types
        self.stored = stored
        self.fresh = fresh
        self.handle: Any = None
