"""What can run: a function type as its author declared it, and its compiled form.

``FunctionSpec`` comes from the SDK. ``CompiledFunction`` adds what is generated once per process: the record class, which is an
address's whole entry in memory, and the code that encodes it. A record is stored as a CBOR map from field name to value, so that
stored state can be read without the application and fields can be added and removed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import cbor2

from shardfun.core.absence import record_methods
from shardfun.core.options import PLAIN_OPTIONS, Expiry, FunctionOptions
from shardfun.core.small_ints import ENCODED_INTS, decoded_ints, encoded_ints
from shardfun.errors import CorruptionError, DefinitionError, PayloadTypeError
from shardfun.model.address import Address
from shardfun.model.cbor import shown
from shardfun.model.conversion import plain_of, value_of
from shardfun.model.keyspace import slot_of
from shardfun.model.ordered_keys import KeyType
from shardfun.model.payload import SCALARS, Payloads, PayloadType, type_name
from shardfun.model.upgrade import FIRST_VERSION, Upgrade, newer

STATE_KIND = b"s"
DEAD_LETTER_KIND = b"d"
RECORD_BYTES = 360  # the smallest record: object, key, address tuple, dict entry
VERSION = "~v"  # in a stored record, the version of the state class, if it is not the first
HIDDEN = "~"  # in a stored record, what the runtime itself keeps for an address: deadlines, bounds of buffers


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class FieldSpec:
    """One declared state field.

    Args:
        annotation: the declared type, which may be a union, as ``convertible`` gives it; ``types`` its members.
        default: a value of that type; for a mutable type, a fresh copy is made for every address.
        expiry: when the value goes back to its default by itself.
    """

    name: str
    annotation: Any
    types: tuple[PayloadType, ...]
    default: Any
    expiry: Expiry | None = None

    immutable: bool = dataclasses.field(init=False)
    """Compared by identity and restored from a saved slot; other fields are re-encoded after every invocation."""
    classes: frozenset[type] = dataclasses.field(init=False)
    """The exact classes a value may have; empty: anything CBOR can carry."""
    scalar: bool = dataclasses.field(init=False)
    """Whether all values are CBOR scalars as they are."""
    encoded_ints: Sequence[bytes] = dataclasses.field(init=False)
    """Of a scalar that may be a whole number, small ones as CBOR, by themselves."""
    decoded_ints: Mapping[bytes, int] = dataclasses.field(init=False)
    """The same the other way round."""

    def __post_init__(self) -> None:
        """Derive once what every load of a record asks."""
        classes = frozenset(member.cls for member in self.types)
        object.__setattr__(self, "immutable", bool(self.types) and all(member.immutable for member in self.types))
        object.__setattr__(self, "classes", classes)
        object.__setattr__(self, "scalar", bool(self.types) and classes <= SCALARS)
        counts = self.scalar and int in classes
        object.__setattr__(self, "encoded_ints", encoded_ints() if counts else ())
        object.__setattr__(self, "decoded_ints", decoded_ints() if counts else {})

    def to_plain(self, value: Any) -> Any:
        """The value as CBOR carries it."""
        return value if self.scalar else plain_of(value)

    def encode(self, value: Any) -> bytes:
        """The value as CBOR.

        Raises:
            PayloadTypeError: it is not of the declared type, or holds something that cannot be encoded.
        """
        if self.types and type(value) not in self.classes:
            raise self.mismatch(value)
        try:
            return cbor2.dumps(self.to_plain(value))
        except (TypeError, ValueError, RecursionError, cbor2.CBOREncodeError) as error:
            msg = f"state field {self.name!r}: the value cannot be encoded: {error}"
            raise PayloadTypeError(msg) from error

    def encode_checked(self, value: Any) -> bytes:
        """As ``encode``, and what is inside the value is checked, too: constructors of structs do not.

        Raises:
            PayloadTypeError: it, or a part of it, is not of the declared type, or cannot be encoded.
        """
        kind = type(value)
        if kind is int and 0 <= value < len(self.encoded_ints):
            encoded: bytes = self.encoded_ints[value]
            return encoded
        if self.scalar and kind in self.classes and kind is not str:  # nothing in it can fail
            return cbor2.dumps(value)
        encoded = self.encode(value)
        if self.types and not self.scalar:
            try:
                value_of(cbor2.loads(encoded), self.annotation)
            except Exception as error:  # a constructor may be user code
                msg = f"state field {self.name!r}: the value is not of the declared type: {error}"
                raise PayloadTypeError(msg) from error
        return encoded

    def from_plain(self, plain: Any) -> Any:
        """A stored value back.

        Raises:
            PayloadTypeError: it is not of the declared type (the declaration has changed).
        """
        if (self.scalar and type(plain) in self.classes) or not self.types:
            return plain
        try:
            return value_of(plain, self.annotation)
        except Exception as error:  # a constructor may be user code
            msg = f"state field {self.name!r}: the stored value is not of the declared type: {error}"
            raise PayloadTypeError(msg) from error

    def check(self, value: Any) -> None:
        """Check a new value of an immutable field as far as it costs nothing: its class, and that a text can be encoded.

        Raises:
            PayloadTypeError, UnicodeEncodeError: it could not be stored.
        """
        if type(value) not in self.classes:
            raise self.mismatch(value)
        if type(value) is str:
            value.encode()

    def mismatch(self, value: Any) -> PayloadTypeError:
        """The error for a value of a wrong class."""
        return PayloadTypeError(
            f"state field {self.name!r}: expected {self.type_name}, got {type(value).__qualname__}: {value!r:.100}"
        )

    @property
    def type_name(self) -> str:
        """The declared type as text."""
        return " | ".join(member.name for member in self.types) or "Any"


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class CollectionSpec:
    """One declared collection: state whose parts are cells of their own, so that touching one does not load the others.

    Args:
        key: the declared type of a map's keys.
        item: describes the values of a map or the elements of a buffer (its default means nothing); ``None`` for a registry.
    """

    name: str
    kind: Literal["map", "buffer", "registry"]
    key: KeyType | None = None
    item: FieldSpec | None = None
    expiry: Expiry | None = None


Handler = Callable[[Any, Any], Any]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class FunctionSpec:
    """A function type as declared.

    Args:
        handler: called with (context, payload); may be a coroutine function, if ``options`` say so.
        on_end: called with (context) for each address with stored state when a bounded run is at its end.
        state_class: the author's ``State`` subclass; the record class derives from it.
        accepts: declared payload types; empty: anything.
        upgrade: of the state class.
    """

    typename: str
    handler: Handler
    on_end: Callable[[Any], None] | None
    state_class: type
    fields: tuple[FieldSpec, ...]
    accepts: tuple[PayloadType, ...]
    collections: tuple[CollectionSpec, ...] = ()
    options: FunctionOptions = PLAIN_OPTIONS
    upgrade: Upgrade | None = None

    @property
    def full(self) -> bool:
        """Whether invocations need a working copy of the state (``core.working``).

        The others see the record itself: as long as all they have is single values that stay, and run to the end at once, that
        is all it takes, and it is several times faster.
        """
        options = self.options
        expiring = options.expire_idle_ms is not None or any(field.expiry is not None for field in self.fields)
        return bool(self.collections) or expiring or options.style != "plain"


class CompiledFunction:
    """A spec with its generated record class, once per process.

    ``values_of(record)`` gives the tuple that ``encode_values`` turns into the stored bytes: for a mutable field it holds the
    encoded value, because there bytes are the truth and the object is a cache. In types with working copies the last of them is
    what the runtime itself keeps (``HIDDEN``): a dictionary that is never changed, only replaced, or ``None``.

    A record whose values are all at their default is not stored: ``encode_values`` gives ``None`` for it.
    """

    __slots__ = ("encode_values", "full", "key_suffix", "mutable_fields", "payloads", "record_class", "spec", "values_of")

    def __init__(self, spec: FunctionSpec) -> None:
        self.spec = spec
        self.full = spec.full
        self.mutable_fields = tuple(field for field in spec.fields if not field.immutable)
        self.payloads = Payloads(spec.accepts, spec.typename)
        self.key_suffix = STATE_KIND + spec.typename.encode() + b"\0"
        self.record_class = _record_class(spec)
        self.values_of = _generate_values_of(spec)
        self.encode_values = _generate_encoder(spec)

    def named(self, typename: str) -> CompiledFunction:
        """The same function, which is declared for a namespace, as the function type of one name of it."""
        other = object.__new__(CompiledFunction)
        for name in self.__slots__:
            setattr(other, name, getattr(self, name))
        other.spec = dataclasses.replace(self.spec, typename=typename)
        other.payloads = Payloads(self.spec.accepts, typename)
        other.key_suffix = STATE_KIND + typename.encode() + b"\0"
        return other

    def blank(self, id: str) -> Any:
        """A record that knows its key and address, with no field set yet (see ``fill``)."""
        record: Any = object.__new__(self.record_class)
        record._key = slot_of(id).to_bytes(2, "big") + self.key_suffix + id.encode()  # noqa: SLF001
        record._address = Address(self.spec.typename, id)  # noqa: SLF001
        record._epoch = record._dirty = None  # noqa: SLF001
        record._size = RECORD_BYTES  # noqa: SLF001
        if self.full:
            record._hidden = None  # noqa: SLF001
        return record

    def fill(self, record: Any, stored: bytes | None) -> None:
        """Set the fields from stored bytes. What is not stored gets its default, what is not declared is dropped.

        Raises:
            PayloadTypeError: a stored value does not fit its declaration, or cannot be upgraded; or there are no values.
        """
        plain = {} if stored is None else self._loaded(stored)
        if stored is not None and (self.spec.upgrade is not None or VERSION in plain):
            plain = self._upgraded(plain)
        if self.full:
            record._hidden = plain.get(HIDDEN)  # noqa: SLF001
        for field in self.spec.fields:
            name = field.name
            if field.immutable:
                setattr(record, name, field.from_plain(plain[name]) if name in plain else field.default)
            else:
                encoded = cbor2.dumps(plain[name]) if name in plain else field.encode(field.default)
                self.set_mutable(record, field, encoded)

    def _loaded(self, stored: bytes) -> dict[str, Any]:
        try:
            plain = cbor2.loads(stored)
        except (cbor2.CBORDecodeError, ValueError, TypeError) as error:
            msg = f"the stored state is damaged: {error}"
            raise PayloadTypeError(msg) from error
        if type(plain) is not dict or not isinstance(plain.get(VERSION, FIRST_VERSION), int):
            msg = f"the stored state is damaged: expected fields by name, got {shown(plain)}"
            raise PayloadTypeError(msg)
        return plain

    def _upgraded(self, plain: dict[str, Any]) -> dict[str, Any]:
        """The stored fields as of the present version of the state class; what the runtime keeps beside them stays."""
        upgrade, version = self.spec.upgrade, plain.get(VERSION, FIRST_VERSION)
        if upgrade is None:
            raise PayloadTypeError(newer(type_name(self.spec.state_class), version, FIRST_VERSION))
        fields = {name: value for name, value in plain.items() if not name.startswith(HIDDEN)}
        hidden = {name: value for name, value in plain.items() if name.startswith(HIDDEN)}
        try:
            return {**plain_of(upgrade.apply(version, fields)), **hidden}
        except (TypeError, ValueError) as error:
            msg = f"the upgrade of {upgrade.name} from version {version}: a field cannot be encoded: {error}"
            raise PayloadTypeError(msg) from error

    def restore(self, record: Any, values: tuple[Any, ...]) -> None:
        """Set a record's fields back to ``values_of`` of an earlier moment."""
        for field, value in zip(self.spec.fields, values, strict=not self.full):
            if field.immutable:
                setattr(record, field.name, value)
            else:
                self.set_mutable(record, field, value)

    def restore_mutable(self, record: Any, encoded: tuple[bytes, ...]) -> None:
        """Decode the mutable fields again from what they were: an object that a failed invocation changed is dropped."""
        for field, data in zip(self.mutable_fields, encoded, strict=True):
            self.set_mutable(record, field, data)

    @staticmethod
    def set_mutable(record: Any, field: FieldSpec, encoded: bytes) -> None:
        """Set a mutable field from its encoding."""
        setattr(record, "_encoded_" + field.name, encoded)
        setattr(record, field.name, field.from_plain(cbor2.loads(encoded)))


def state_key(typename: str, id: str) -> bytes:
    """The stored key of an address's record: slot, kind, typename, NUL, id."""
    return slot_of(id).to_bytes(2, "big") + STATE_KIND + typename.encode() + b"\0" + id.encode()


def parse_state_key(key: bytes) -> Address | None:
    """The address of a stored record's key; ``None`` for keys of other kinds.

    Raises:
        CorruptionError: it is damaged.
    """
    if key[2:3] != STATE_KIND:
        return None
    typename, _, id = key[3:].partition(b"\0")
    try:
        return Address(typename.decode(), id.decode())
    except UnicodeDecodeError as error:
        raise CorruptionError(f"a stored key is damaged: {key!r:.200}") from error


def _record_class(spec: FunctionSpec) -> type:
    """A slotted subclass of the author's state class: methods and type checks of theirs, storage of ours."""
    for field in spec.fields:
        if field.name.startswith("_") or not field.name.isidentifier():
            msg = f"{spec.typename}: state field {field.name!r}: expected a name that does not begin with an underscore"
            raise DefinitionError(msg)
    slots = [field.name for field in spec.fields]
    slots += ["_encoded_" + field.name for field in spec.fields if not field.immutable]
    slots += ["_key", "_address", "_epoch", "_dirty", "_size"]
    if spec.full:
        slots.append("_hidden")
    return type(spec.state_class)(
        f"{spec.state_class.__name__}Record",
        (spec.state_class,),
        {"__slots__": tuple(slots), "__module__": spec.state_class.__module__, **record_methods(spec.fields)},
    )


def _generate_values_of(spec: FunctionSpec) -> Callable[[Any], tuple[Any, ...]]:
    parts = [f"record.{f.name}" if f.immutable else f"record._encoded_{f.name}" for f in spec.fields]
    if spec.full:
        parts.append("record._hidden")
    namespace: dict[str, Any] = {}
    exec(f"def values_of(record): return ({''.join(part + ', ' for part in parts)})", namespace)  # noqa: S102
    return namespace["values_of"]  # type: ignore[no-any-return]


def _generate_encoder(spec: FunctionSpec) -> Callable[[tuple[Any, ...]], bytes | None]:
    """Code that joins constant bytes (map head, field names) with encoded values: 3 times faster than ``dumps`` of a dict."""
    namespace: dict[str, Any] = {"dumps": cbor2.dumps, "HIDDEN": cbor2.dumps(HIDDEN)}
    names = [f"v{position}" for position in range(len(spec.fields))]
    fixed = b"" if spec.upgrade is None or spec.upgrade.version == FIRST_VERSION else cbor2.dumps(VERSION)
    if fixed:
        assert spec.upgrade is not None
        fixed += cbor2.dumps(spec.upgrade.version)
    items = len(names) + bool(fixed)
    parts = [repr(_map_head(items) + fixed)]
    for name, field in zip(names, spec.fields, strict=True):
        parts.append(repr(cbor2.dumps(field.name)))
        if not field.immutable:
            parts.append(name)
        elif field.classes == {int}:
            namespace["ints"] = encoded_ints()
            parts.append(f"(ints[{name}] if 0 <= {name} < {ENCODED_INTS} else dumps({name}))")
        elif field.scalar:
            parts.append(f"dumps({name})")
        else:
            namespace["plain_" + name] = field.to_plain
            parts.append(f"dumps(plain_{name}({name}))")
    namespace["absent"] = (
        _map_head(items) + fixed + b"".join(cbor2.dumps(field.name) + field.encode(field.default) for field in spec.fields)
    )
    hidden = ""
    if spec.full:
        hidden = "    if hidden:\n        return more + encoded[len(head):] + HIDDEN + dumps(hidden)\n"
        namespace["head"], namespace["more"] = _map_head(items), _map_head(items + 1)
        names.append("hidden")
    unpack = f"    {', '.join(names)}, = values\n" if names else ""
    source = f"def encode_values(values):\n{unpack}    encoded = {' + '.join(parts)}\n{hidden}"
    source += "    return None if encoded == absent else encoded\n"
    exec(source, namespace)  # noqa: S102
    return namespace["encode_values"]  # type: ignore[no-any-return]


def _map_head(items: int) -> bytes:
    """The first bytes of a CBOR map."""
    return cbor2.dumps({str(i): None for i in range(items)})[: 1 if items < 24 else 2]
