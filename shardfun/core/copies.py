"""The class of the working copies of one function type: the author's state class, with slots and descriptors of ours.

Plain fields are slots. Fields that expire are descriptors, since reads and writes of them count. Collections are descriptors, too:
they are opened when they are asked for, so that an invocation pays only for what it uses.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import cbor2

from shardfun.core.absence import filling, is_default, unknown_name
from shardfun.core.buffers import Buffer
from shardfun.core.cell_keys import BUFFER_KIND, MAP_KIND, REGISTERED_KIND, SLOT_BYTES
from shardfun.core.function import STATE_KIND, CollectionSpec, FieldSpec, FunctionSpec
from shardfun.core.hidden import Hidden
from shardfun.core.maps import Map
from shardfun.core.registry import Descriptions, Place, Registry
from shardfun.core.scalar_maps import map_class
from shardfun.errors import PayloadTypeError

Collection = Map[Any, Any] | Buffer[Any] | Registry
_CELL_KINDS = {"map": MAP_KIND, "buffer": BUFFER_KIND, "registry": REGISTERED_KIND}


class Read(enum.Enum):
    """What an invocation did with an expiring field."""

    ONLY = enum.auto()
    AND_WRITTEN = enum.auto()


def slot_of_field(field: FieldSpec) -> str:
    """The slot of a copy that holds the value of a field."""
    return field.name if field.expiry is None else "_value_" + field.name


def copy_class(spec: FunctionSpec, descriptions: Descriptions, *, quick: bool) -> type:
    """A slotted subclass of the author's state class.

    Args:
        quick: maps are of the fastest class for their values, and not of the one that is the specification.
    """
    slots = {slot_of_field(field): field for field in spec.fields}
    collections = {item.name: item for item in spec.collections}

    def __contains__(copy: Any, name: str) -> bool:  # noqa: N807 - becomes one
        if name in collections:
            return bool(getattr(copy, name))
        for slot, field in slots.items():
            if field.name == name:
                return not is_default(field, getattr(copy, slot))
        raise unknown_name(copy, name)

    def _delete_instance(copy: Any) -> None:
        copy._fresh = True  # noqa: SLF001
        copy._hidden = None  # noqa: SLF001
        copy._marks = {}  # noqa: SLF001
        for slot, field in slots.items():
            setattr(copy, slot, field.default)
            delattr(copy, slot)
        for handle in copy._handles.values():  # noqa: SLF001
            handle.clear()

    namespace: dict[str, Any] = {
        "__slots__": (*slots, "_record", "_cells", "_now_ms", "_handles", "_marks", "_hidden", "_fresh"),
        "__module__": spec.state_class.__module__,
        "__contains__": __contains__,
        "_delete_instance": _delete_instance,
    }
    if slots:  # else nothing can be deleted, and without it reads are five times faster (see ``absence``)
        namespace["__getattr__"] = filling(slots)
    for field in spec.fields:
        if field.expiry is not None:
            namespace[field.name] = ExpiringField(field.name)
    for item in spec.collections:
        namespace[item.name] = OpenedCollection(item, spec.typename, descriptions, map_class(item) if quick else Map)
    return type(spec.state_class)(f"{spec.state_class.__name__}Copy", (spec.state_class,), namespace)


def generate_fill(fields: tuple[FieldSpec, ...]) -> Callable[[Any, Any], None]:
    """Code that copies the values of a record, field by field."""
    namespace: dict[str, Any] = {"loads": cbor2.loads}
    lines = ["    pass"]
    for field in fields:
        value = f"record.{field.name}"
        if not field.immutable:
            namespace["read_" + field.name] = field.from_plain
            value = f"read_{field.name}(loads(record._encoded_{field.name}))"
        lines.append(f"    copy.{slot_of_field(field)} = {value}")
    exec("def fill(copy, record):\n" + "\n".join(lines), namespace)  # noqa: S102
    return namespace["fill"]  # type: ignore[no-any-return]


class ExpiringField:
    """A field of a copy whose reads and writes are noted."""

    __slots__ = ("_name", "_slot")

    def __init__(self, name: str) -> None:
        self._name = name
        self._slot = "_value_" + name

    def __get__(self, copy: Any, _owner: type) -> Any:
        copy._marks.setdefault(self._name, Read.ONLY)  # noqa: SLF001
        return getattr(copy, self._slot)

    def __set__(self, copy: Any, value: Any) -> None:
        copy._marks[self._name] = Read.AND_WRITTEN  # noqa: SLF001
        setattr(copy, self._slot, value)

    def __delete__(self, copy: Any) -> None:
        copy._marks[self._name] = Read.AND_WRITTEN  # noqa: SLF001
        setattr(copy, self._slot, None)
        delattr(copy, self._slot)


class OpenedCollection:
    """A map, a buffer or a registry of a copy, opened when it is first asked for.

    Args:
        typename: of the function.
        map_class: of its maps.
    """

    __slots__ = ("_descriptions", "_head", "_id_at", "_last", "_make", "_map_class", "_name", "_spec", "_tail")

    def __init__(self, spec: CollectionSpec, typename: str, descriptions: Descriptions, map_class: type[Map[Any, Any]]) -> None:
        self._spec = spec
        self._name = spec.name
        # Maps, which are asked for most, are made in ``__get__``, a call less.
        self._make = {"map": None, "buffer": self._buffer, "registry": self._registry}[spec.kind]
        self._map_class = map_class
        self._last = b"", b""
        """Key and prefix of the last address, since messages for one often come one after the other. A pair: threads ask, too."""
        self._descriptions = descriptions
        # An address's cells have the slot, the typename and the id of its record's key, so that nothing is encoded again here.
        middle = typename.encode() + b"\0"
        self._id_at = SLOT_BYTES + len(STATE_KIND) + len(middle)
        self._head = _CELL_KINDS[spec.kind] + middle
        self._tail = spec.name.encode() + b"\0"

    def __get__(self, copy: Any, _owner: type) -> Collection:
        handle: Collection | None = copy._handles.get(self._name)  # noqa: SLF001
        if handle is None:
            key = copy._record._key  # noqa: SLF001
            last, prefix = self._last
            if key is not last:
                id = key[self._id_at :]
                prefix = key[:SLOT_BYTES] + self._head + len(id).to_bytes(2, "big") + id + self._tail
                self._last = key, prefix
            if self._make is None:
                handle = self._map_class(self._spec, copy._cells, prefix, copy._now_ms, copy._fresh)  # noqa: SLF001
            else:
                handle = self._make(copy, prefix)
            copy._handles[self._name] = handle  # noqa: SLF001
        return handle

    def _buffer(self, copy: Any, prefix: bytes) -> Collection:
        hidden, name = Hidden(copy._hidden), self._name  # noqa: SLF001
        bounds, deadline = hidden.bounds(name), hidden.deadline(name)
        return Buffer(self._spec, copy._cells, prefix, copy._now_ms, bounds, deadline, empty=copy._fresh)  # noqa: SLF001

    def _registry(self, copy: Any, prefix: bytes) -> Collection:
        place = Place(self._name, copy._record._address, prefix[:SLOT_BYTES], prefix)  # noqa: SLF001
        return Registry(place, copy._cells, copy._now_ms, Hidden(copy._hidden), self._descriptions, empty=copy._fresh)  # noqa: SLF001

    def __set__(self, copy: Any, value: Any) -> None:
        spec = self._spec
        hint = {
            "map": "change its entries, or clear() and update() it",
            "buffer": "use replace()",
            "registry": "register a name",
        }
        msg = f"state field {spec.name!r} is a {spec.kind} and cannot be assigned: {hint[spec.kind]}; got {value!r:.100}"
        raise PayloadTypeError(msg)

    def __delete__(self, copy: Any) -> None:
        self.__get__(copy, type(copy)).clear()
