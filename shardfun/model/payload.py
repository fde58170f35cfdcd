"""Payload types: what a message or a state field may hold, how it is encoded, and whether it may be shared.

A declared type is looked at once, when the application is defined. It answers three questions for the rest of the system: is a
value of it immutable all the way down (then the object itself may travel inside a process and be compared by identity), how
is a whole column of values encoded (a per-value encoder costs ten times as much), and how is a single one.

Encoding goes through CBOR with plain values. Nothing here calls a pickle, and decoding creates only declared classes.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import inspect
import types
import typing
import uuid
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any

import cbor2
import msgspec

from shardfun.errors import DefinitionError, PayloadTypeError
from shardfun.model.scalars import columns_of, decode_scalars, encode_any_scalars, encode_scalars, expect_form

SCALARS: frozenset[type] = frozenset((int, str, float, bool, bytes, type(None)))
_LEAVES = SCALARS | {
    dt.datetime,
    dt.date,
    dt.time,
    dt.timedelta,
    uuid.UUID,
    decimal.Decimal,
}
_CONTAINERS: dict[Any, type] = {list: list, dict: dict, set: set, tuple: tuple, frozenset: frozenset}


class Encoded:
    """A message payload of a mutable type: encoded when sent, decoded afresh for each attempt to run it."""

    __slots__ = ("data", "type")

    def __init__(self, type: PayloadType, data: bytes) -> None:
        self.type = type
        self.data = data


class End:
    """The payload of the message that an address gets when a bounded run is at its end. There is one, ``END``."""

    __slots__ = ()


END = End()


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class PayloadType:
    """One declared type.

    Args:
        name: stands in frames and stored queues; stable as long as the class keeps its module and name.
        annotation: what msgspec converts to; ``cls`` the exact class of its values.
        immutable: whether values may be shared (see ``is_immutable``).
        fields: for flat records, the attribute names whose columns are sent; ``()`` for everything else.
    """

    name: str
    annotation: Any
    cls: type
    immutable: bool
    fields: tuple[str, ...] = ()

    # ---- one value -------------------------------------------------------------------------------------------------
    def to_plain(self, value: Any) -> Any:
        """The value as what CBOR carries: scalars, lists and maps."""
        return value if self.cls in SCALARS else msgspec.to_builtins(value, builtin_types=(bytes,))

    def from_plain(self, plain: Any) -> Any:
        """The value back.

        Raises:
            PayloadTypeError: ``plain`` is not one of this type.
        """
        if type(plain) is self.cls and self.cls in SCALARS:
            return plain
        try:
            return msgspec.convert(plain, self.annotation)
        except Exception as error:  # a constructor may be user code
            msg = f"stored or received value is not a {self.name}: {error}"
            raise PayloadTypeError(msg) from error

    def encode(self, value: Any) -> bytes:
        """One value as CBOR.

        Raises:
            PayloadTypeError: something inside the value cannot be encoded.
        """
        try:
            return cbor2.dumps(self.to_plain(value))
        except (TypeError, ValueError, RecursionError, cbor2.CBOREncodeError) as error:
            msg = f"{self.name}: the value cannot be encoded: {error}"
            raise PayloadTypeError(msg) from error

    def decode(self, data: bytes) -> Any:
        """The value back, freshly made.

        Raises:
            PayloadTypeError: the bytes are not one of this type.
        """
        try:
            plain = cbor2.loads(data)
        except (cbor2.CBORDecodeError, ValueError, TypeError) as error:
            msg = f"{self.name}: damaged encoding: {error}"
            raise PayloadTypeError(msg) from error
        return self.from_plain(plain)

    def validate(self, value: Any) -> None:
        """Check the fields, too, of a value whose class is right: constructors of structs do not.

        Raises:
            PayloadTypeError: naming the field.
        """
        self.from_plain(self.to_plain(value))

    # ---- a column of values ----------------------------------------------------------------------------------------
    def encode_column(self, values: Sequence[Any]) -> Any:
        """Values of this type, in order, as one CBOR-able item."""
        if self.cls in SCALARS:
            return encode_scalars(self.cls, values)
        if self.cls is End:
            return len(values)
        if not self.immutable:
            return [value.data for value in values]
        if self.fields:
            return {name: encode_any_scalars(list(map(attrgetter(name), values))) for name in self.fields}
        return msgspec.to_builtins(values, builtin_types=(bytes,))

    def decode_column(self, data: Any) -> Sequence[Any]:
        """Undo ``encode_column``.

        Raises:
            Exception: some value is not one of this type (``decode_item`` tells which). Constructors may be user code, so it
                can be any.
        """
        if self.cls in SCALARS:
            return decode_scalars(data)
        if self.cls is End:
            return [END] * len(decode_scalars(expect_form(data, int)))
        if not self.immutable:
            return [Encoded(self, expect_form(item, bytes)) for item in expect_form(data, list)]
        if self.fields:
            if tuple(expect_form(data, dict)) != self.fields:
                msg = f"{self.name}: expected the fields {self.fields}, got {tuple(data)}"
                raise PayloadTypeError(msg)
            return list(map(self.cls, *columns_of(data)))
        column_type: Any = list[self.annotation]  # type: ignore[name-defined]  # a type made from a value
        return msgspec.convert(data, column_type)  # type: ignore[no-any-return]

    def decode_item(self, item: Any) -> Any:
        """One value of a column that does not decode as a whole, perhaps because the declaration has changed since.

        Args:
            item: as in the column; of a flat record the fields by name.

        Raises:
            PayloadTypeError: it is not one of this type.
        """
        if not self.immutable:
            return Encoded(self, item) if type(item) is bytes else Encoded(self, self.encode(self.from_plain(item)))
        if type(item) is bytes and self.cls is not bytes:
            return self.decode(item)
        if type(item) is not dict or not self.fields:
            return self.from_plain(item)
        try:
            value = self.cls(**{name: item[name] for name in self.fields if name in item})
        except Exception as error:  # a constructor may be user code
            msg = f"stored or received value is not a {self.name}: {error}"
            raise PayloadTypeError(msg) from error
        self.validate(value)
        return value


# ---- looking at declarations -------------------------------------------------------------------------------------------
def payload_type(annotation: Any, where: str) -> PayloadType:
    """Describe one declared type that is not a union.

    Args:
        annotation: a class or a generic alias such as ``list[int]``.
        where: what to call the place in an error, such as ``"shop/cart: message"``.

    Raises:
        DefinitionError: values of it cannot be encoded and decoded.
    """
    if annotation is None:
        annotation = type(None)
    if annotation is End:
        return END_TYPE
    origin = typing.get_origin(annotation) or annotation
    cls = _CONTAINERS.get(origin, origin)
    if not isinstance(cls, type):
        msg = f"{where}: {annotation!r} is not a supported type; use builtins, structs, dataclasses, enums or unions of these"
        raise DefinitionError(msg)
    if cls not in SCALARS:
        _check_convertible(annotation, cls, where)
    immutable = is_immutable(annotation)
    return PayloadType(_type_name(annotation, cls), annotation, cls, immutable, _flat_fields(annotation) if immutable else ())


def union_members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the annotation alone."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def payload_types(annotation: Any, where: str) -> tuple[PayloadType, ...]:
    """The members of a declared (union) type; ``()`` for ``Any`` and ``object``: everything CBOR can carry.

    Raises:
        DefinitionError: a member is not supported, or two members have values of one class and cannot be told apart.
    """
    if annotation in (Any, object, inspect.Parameter.empty):
        return ()
    found: dict[type, PayloadType] = {}
    for member in union_members(annotation):
        described = payload_type(member, where)
        if described.cls in found:
            msg = f"{where}: {found[described.cls].name} and {described.name} cannot be told apart by the class of a value"
            raise DefinitionError(msg)
        found[described.cls] = described
    return tuple(found.values())


def is_immutable(annotation: Any) -> bool:
    """Whether every value of a declared type is immutable all the way down. Anything not known to be is not.

    A frozen struct that holds a list keeps its identity while the list changes: sharing it would leak the change, and
    comparing it by identity would lose it. So fields are looked at, too.
    """
    return _immutable(annotation, frozenset())


def _immutable(annotation: Any, seen: frozenset[Any]) -> bool:
    if annotation is None or annotation in _LEAVES or annotation in seen or annotation is End:
        return True
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return all(_immutable(member, seen) for member in typing.get_args(annotation))
    if origin is typing.Literal:
        return True
    if origin in (tuple, frozenset):
        return all(member is Ellipsis or _immutable(member, seen) for member in typing.get_args(annotation))
    if origin is typing.Annotated:
        return _immutable(typing.get_args(annotation)[0], seen)
    if not isinstance(annotation, type):
        return False
    if issubclass(annotation, enum.Enum):
        return True
    if _is_frozen_record(annotation):
        hints = _hints(annotation)
        return hints is not None and all(_immutable(hint, seen | {annotation}) for hint in hints.values())
    return False


def _is_frozen_record(cls: type) -> bool:
    if issubclass(cls, msgspec.Struct):
        return cls.__struct_config__.frozen
    if dataclasses.is_dataclass(cls):
        return bool(cls.__dataclass_params__.frozen)  # type: ignore[attr-defined]
    return False


def _hints(cls: type) -> dict[str, Any] | None:
    """The annotations of a record's fields; ``None`` if they cannot be resolved (then it counts as mutable)."""
    try:
        hints = typing.get_type_hints(cls, include_extras=False)
    except (NameError, TypeError):
        return None
    return {name: hint for name, hint in hints.items() if typing.get_origin(hint) is not typing.ClassVar}


def _flat_fields(annotation: Any) -> tuple[str, ...]:
    """The fields of a record whose values are all scalars and whose constructor takes them by position."""
    if not isinstance(annotation, type):
        return ()
    if issubclass(annotation, msgspec.Struct):
        names: tuple[str, ...] = annotation.__struct_fields__
    elif dataclasses.is_dataclass(annotation):
        if any(not field.init or field.kw_only for field in dataclasses.fields(annotation)):
            return ()
        names = tuple(field.name for field in dataclasses.fields(annotation))
    else:
        return ()
    hints = _hints(annotation)
    if hints is None or not names:
        return ()
    for name in names:
        if any((type(None) if member is None else member) not in SCALARS for member in union_members(hints[name])):
            return ()
    positional = [p for p in inspect.signature(annotation).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    return names if tuple(p.name for p in positional) == names else ()


def _type_name(annotation: Any, cls: type) -> str:
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    return str(annotation)


def _check_convertible(annotation: Any, cls: type, where: str) -> None:
    try:
        info = msgspec.inspect.type_info(annotation)
    except (TypeError, NameError, ValueError) as error:
        msg = f"{where}: {annotation!r} cannot be encoded: {error}"
        raise DefinitionError(msg) from error
    for unknown in _unknown_classes(info, set()):
        inside = "" if unknown is cls else f" (inside {annotation!r})"
        msg = f"{where}: {unknown.__module__}.{unknown.__qualname__}{inside} is not a supported type"
        raise DefinitionError(f"{msg}; make it a msgspec.Struct or a dataclass")


def _unknown_classes(info: Any, seen: set[int]) -> Iterator[type]:
    """The classes in a type description that msgspec knows nothing of. ``seen``: descriptions of recursive types are cyclic."""
    if id(info) in seen:
        return
    seen.add(id(info))
    if isinstance(info, msgspec.inspect.CustomType):
        yield info.cls
    elif isinstance(info, tuple):
        for item in info:
            yield from _unknown_classes(item, seen)
    elif isinstance(info, (msgspec.inspect.Type, msgspec.inspect.Field)):
        for name in info.__struct_fields__:
            yield from _unknown_classes(getattr(info, name), seen)


END_TYPE = PayloadType("shardfun.end", End, End, immutable=True)
_ANY_SCALARS = {cls: PayloadType(cls.__name__, cls, cls, immutable=True) for cls in sorted(SCALARS, key=lambda c: c.__name__)}
_ANY_CONTAINERS = {
    cls: PayloadType(f"any-{cls.__name__}", annotation, cls, immutable=False)
    for cls, annotation in ((list, list), (dict, dict))
}


class Payloads:
    """The payload types that one function accepts: by the class of a value when sending, by name when receiving.

    Args:
        declared: from ``payload_types``; empty: every scalar, and lists and dicts of what CBOR can carry.
    """

    __slots__ = ("by_class", "by_name", "shared", "where")

    def __init__(self, declared: Sequence[PayloadType], where: str) -> None:
        chosen = tuple(declared) or (*_ANY_SCALARS.values(), *_ANY_CONTAINERS.values())
        self.where = where
        self.by_class: dict[type, PayloadType] = {item.cls: item for item in chosen}
        self.by_name: dict[str, PayloadType] = {item.name: item for item in chosen}
        self.by_class[End] = self.by_name[END_TYPE.name] = END_TYPE
        self.shared: frozenset[type] = frozenset(item.cls for item in chosen if item.immutable)
        """Classes whose values may stay objects inside this process: the hot path of ``send`` tests only this."""

    def prepare(self, value: Any) -> Any:
        """What to put into a message for a value whose class is not in ``shared``: its encoding.

        Raises:
            PayloadTypeError: the class is not declared.
        """
        found = self.by_class.get(type(value))
        if found is None or found is END_TYPE:
            expected = " | ".join(name for name in self.by_name if name != END_TYPE.name)
            msg = f"{self.where} accepts {expected}, not {type(value).__qualname__}: {value!r:.100}"
            raise PayloadTypeError(msg)
        return value if found.immutable else Encoded(found, found.encode(value))
