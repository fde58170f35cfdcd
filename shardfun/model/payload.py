"""Payload types: what a message or a state field may hold, how it is encoded, and whether it may be shared.

A declared type is looked at once, when the application is defined. It answers three questions for the rest of the system: is a
value of it immutable all the way down (then the object itself may travel inside a process and be compared by identity), how
is a whole column of values encoded (a per-value encoder costs ten times as much), and how is a single one.

Encoding goes through CBOR with plain values. Nothing here calls a pickle, and decoding creates only declared classes.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import typing
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final

import cbor2
import msgspec

from shardfun.errors import DefinitionError, PayloadTypeError
from shardfun.model.cbor import load_cbor
from shardfun.model.conversion import convertible, plain_of, unalias, union_members, value_of
from shardfun.model.immutability import is_immutable, record_hints
from shardfun.model.scalars import columns_of, decode_scalars, encode_any_scalars, encode_scalars, expect_form
from shardfun.model.upgrade import EarlierType, Upgrade, earlier_types, versioned

SCALARS: frozenset[type] = frozenset((int, str, float, bool, bytes, type(None)))
MAIN_ELSEWHERE: Final = "__shardfun_main__"
"""The name of the user's ``__main__`` in the processes of its node: so that what stands below its guard is not run there, too."""
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
        column_types: of the fields, the types of their columns.
        upgrade: how values of earlier versions are read; ``name`` has the present version then.
    """

    name: str
    annotation: Any
    cls: type
    immutable: bool
    fields: tuple[str, ...] = ()
    column_types: tuple[Any, ...] = ()
    upgrade: Upgrade | None = None

    def upgraded_by(self, upgrade: Upgrade) -> PayloadType:
        """This type, at a later version or with an earlier name."""
        return dataclasses.replace(self, name=versioned(upgrade.name, upgrade.version), upgrade=upgrade)

    # ---- one value -------------------------------------------------------------------------------------------------
    def to_plain(self, value: Any) -> Any:
        """The value as what CBOR carries: scalars, lists and maps.

        Raises:
            PayloadTypeError: something inside the value has no such form.
        """
        if self.cls in SCALARS:
            return value
        try:
            return plain_of(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise self._unencodable(error) from error

    def from_plain(self, plain: Any) -> Any:
        """The value back.

        Raises:
            PayloadTypeError: ``plain`` is not one of this type.
        """
        if type(plain) is self.cls and self.cls in SCALARS:
            return plain
        try:
            return value_of(plain, self.annotation)
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
            raise self._unencodable(error) from error

    def _unencodable(self, error: Exception) -> PayloadTypeError:
        return PayloadTypeError(f"{self.name}: the value cannot be encoded: {error}")

    def decode(self, data: bytes) -> Any:
        """The value back, freshly made.

        Raises:
            PayloadTypeError: the bytes are not one of this type.
        """
        try:
            plain = load_cbor(data)
        except ValueError as error:
            msg = f"{self.name}: damaged encoding: {error}"
            raise PayloadTypeError(msg) from error
        return self.from_plain(plain)

    def validate(self, value: Any) -> None:
        """Check the fields, too, of a value whose class is right: constructors of structs do not.

        Raises:
            PayloadTypeError: naming the field, or what cannot be encoded.
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
        return plain_of(values)

    def decode_column(self, data: Any) -> Sequence[Any]:
        """Undo ``encode_column``, trusting that a shard of the same application has made it: scalars are not looked at.

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
            return list(map(self.cls, *self._field_columns(data)))
        return self._convert_column(data, self.annotation)

    def decode_stored(self, data: Any) -> Sequence[Any]:
        """As ``decode_column``, of a column that an earlier version of the application may have made: checks every value.

        Raises:
            Exception: as ``decode_column``.
        """
        if self.cls in SCALARS:
            return self._convert_column(decode_scalars(data), self.annotation)
        if self.fields:
            columns = map(self._convert_column, self._field_columns(data), self.column_types)
            return list(map(self.cls, *columns))
        values = self.decode_column(data)
        if not self.immutable:
            for value in values:
                self.decode(value.data)
        return values

    def _field_columns(self, data: Any) -> list[Sequence[Any]]:
        if tuple(expect_form(data, dict)) != self.fields:
            msg = f"{self.name}: expected the fields {self.fields}, got {tuple(data)}"
            raise PayloadTypeError(msg)
        return columns_of(data)

    @staticmethod
    def _convert_column(column: Any, annotation: Any) -> Sequence[Any]:
        return value_of(column, list[annotation])  # type: ignore[no-any-return]

    def encode_item(self, value: Any) -> Any:
        """One value (or ``Encoded``) as it would stand in a column.

        Raises:
            Exception: it cannot be encoded; ``columns.ENCODE_ERRORS``.
        """
        if self.cls in SCALARS:
            return value
        if not self.immutable:
            return value.data
        if self.fields:
            return {name: getattr(value, name) for name in self.fields}
        return plain_of(value)

    def decode_item(self, item: Any) -> Any:
        """One value of a column that does not decode as a whole, perhaps because the declaration has changed since.

        Args:
            item: as in the column; of a flat record the fields by name.

        Raises:
            PayloadTypeError: it is not one of this type.
        """
        if not self.immutable:
            value = self.decode(item) if type(item) is bytes else self.from_plain(item)
            return Encoded(self, self.encode(value))
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
        DefinitionError: values of it cannot be encoded and decoded, or no value can ever be of exactly its class.
    """
    annotation = unalias(annotation)
    if annotation is None:
        annotation = type(None)
    if annotation is End:
        return END_TYPE
    origin = typing.get_origin(annotation) or annotation
    cls = _CONTAINERS.get(origin, origin)
    if not isinstance(cls, type):
        msg = f"{where}: {annotation!r} is not a supported type; use builtins, structs, dataclasses, enums or unions of these"
        raise DefinitionError(msg)
    _check_class(cls, where)
    prepared = annotation if cls in SCALARS else convertible(annotation, where)
    immutable = is_immutable(annotation)
    flat = _flat_fields(annotation) if immutable else {}
    return PayloadType(type_name(annotation), prepared, cls, immutable, tuple(flat), tuple(flat.values()))


def payload_types(annotation: Any, where: str) -> tuple[PayloadType, ...]:
    """The members of a declared (union) type; ``()`` for ``Any`` and ``object``: everything CBOR can carry.

    Raises:
        DefinitionError: a member is not supported, or two members have values of one class and cannot be told apart.
    """
    if annotation in (Any, object, inspect.Parameter.empty):
        return ()
    found: dict[type, PayloadType] = {}
    names: dict[str, PayloadType] = {}
    for member in union_members(annotation):
        described = payload_type(member, where)
        if described.cls in found:
            msg = (
                f"{where}: {found[described.cls].name} and {described.name} cannot be told apart by the class of a value: "
                f"both are of class {described.cls.__qualname__}; declare one of them, or a class of its own for each"
            )
            raise DefinitionError(msg)
        if described.name in names:
            msg = f"{where}: two classes are called {described.name}: they cannot be told apart in a checkpoint; rename one"
            raise DefinitionError(msg)
        found[described.cls] = names[described.name] = described
    return tuple(found.values())


def _check_class(cls: type, where: str) -> None:
    """Refuse what msgspec can decode but nobody can send, since values are known by their exact class."""
    if typing.is_typeddict(cls):
        msg = f"{where}: {cls.__qualname__} is a TypedDict, whose values are plain dicts; use a struct, a dataclass or dict[str, Any]"
    elif cls in (Any, object):
        msg = f"{where}: {cls.__qualname__} in a union takes in all the others; declare it alone, or leave it out"
    elif inspect.isabstract(cls) or cls in (msgspec.Struct, enum.Enum):
        msg = f"{where}: {cls.__module__}.{cls.__qualname__} is abstract: no value is of exactly this class; name the classes of the values"
    elif issubclass(cls, enum.Enum) and not cls.__members__:
        msg = f"{where}: the enum {cls.__qualname__} has no members"
    else:
        return
    raise DefinitionError(msg)


def _flat_fields(annotation: Any) -> dict[str, Any]:
    """The fields of a record whose values are all scalars and whose constructor takes them by position, and their types."""
    if not isinstance(annotation, type):
        return {}
    if issubclass(annotation, msgspec.Struct):
        names: tuple[str, ...] = annotation.__struct_fields__
    elif dataclasses.is_dataclass(annotation):
        if any(not field.init or field.kw_only for field in dataclasses.fields(annotation)):
            return {}
        names = tuple(field.name for field in dataclasses.fields(annotation))
    else:
        return {}
    hints = record_hints(annotation, extras=True)
    if hints is None or not names:
        return {}
    for name in names:
        if any((type(None) if member is None else member) not in SCALARS for member in union_members(hints[name])):
            return {}
    positional = [p for p in inspect.signature(annotation).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    return {name: hints[name] for name in names} if tuple(p.name for p in positional) == names else {}


def type_name(annotation: Any) -> str:
    """The name of a declared type in frames and queues.

    Types of a script are ``__main__.Name`` in every process of a node, also in those that have loaded it under another name.
    """
    if isinstance(annotation, type) and not typing.get_args(annotation):
        name = annotation.__qualname__
        module = "__main__" if annotation.__module__ == MAIN_ELSEWHERE else annotation.__module__
        return name if module == "builtins" else f"{module}.{name}"
    return str(annotation).replace(f"{MAIN_ELSEWHERE}.", "__main__.")


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
        self.by_name: dict[str, PayloadType | EarlierType] = {item.name: item for item in chosen}
        for item in chosen:
            if item.upgrade is not None:
                earlier = earlier_types(item, item.upgrade)
                taken = sorted(self.by_name.keys() & earlier.keys())
                if taken:
                    msg = f"{where}: {taken[0]} is a payload type, so it cannot be an earlier name of {item.upgrade.name}"
                    raise DefinitionError(msg)
                self.by_name |= earlier
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
            expected = " | ".join(item.name for item in self.by_class.values() if item is not END_TYPE)
            msg = f"{self.where} accepts {expected}, not {type(value).__qualname__}: {value!r:.100}"
            raise PayloadTypeError(msg)
        return value if found.immutable else Encoded(found, found.encode(value))
