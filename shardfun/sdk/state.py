"""Declaring state: ``class Cart(State): items: Value[int] = value(0)``.

To a type checker ``ctx.state.items`` is an ``int``: ``Value`` is a descriptor. At run time the runtime derives a slotted record class
from the declaration, so reading a field is a plain attribute access.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import Any, Generic, Literal, TypeVar, cast, overload

import cbor2

from shardfun.core.buffers import Buffer
from shardfun.core.function import CollectionSpec, FieldSpec
from shardfun.core.maps import Map
from shardfun.core.options import Expiry
from shardfun.core.registry import Registry
from shardfun.errors import DefinitionError, PayloadTypeError
from shardfun.model.conversion import convertible
from shardfun.model.ordered_keys import key_type
from shardfun.model.payload import payload_types

T = TypeVar("T")
_MISSING: Any = object()


class Value(Generic[T]):
    """The declared form of one persisted value. Made by ``value``; read and written as a plain attribute of ``ctx.state``."""

    __slots__ = ("default", "default_factory", "expire", "name")

    def __init__(self, default: Any, default_factory: Callable[[], Any] | None, expire: Expiry | None = None) -> None:
        self.default = default
        self.default_factory = default_factory
        self.expire = expire
        self.name = "?"

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Value[T]: ...
    @overload
    def __get__(self, instance: State, owner: type) -> T: ...
    def __get__(self, instance: State | None, owner: type) -> Value[T] | T:
        """The declaration on the class. Instances exist only as records of the runtime, which have slots of their own."""
        if instance is None:
            return self
        raise _by_hand(owner)

    def __set__(self, instance: State, new: T) -> None:
        """Declared for type checkers; records have slots of their own."""
        raise _by_hand(type(instance))

    def __delete__(self, instance: State) -> None:
        """Declared for type checkers: back to the default."""
        raise _by_hand(type(instance))


def _by_hand(cls: type) -> DefinitionError:
    return DefinitionError(f"{cls.__name__} was made by hand; state exists only as ctx.state inside a function")


@overload
def value(default: T, *, expire: Expiry | None = None) -> Value[T]: ...
@overload
def value(*, default_factory: Callable[[], T], expire: Expiry | None = None) -> Value[T]: ...
def value(
    default: Any = _MISSING, *, default_factory: Callable[[], Any] | None = None, expire: Expiry | None = None
) -> Value[Any]:
    """Declare a persisted value.

    Args:
        default: what an address has before it sets the value. Must be immutable (a number, text, frozen struct, ...).
        default_factory: makes the default of a mutable type, such as ``list``. Mutable values work, but cost ten times an
            immutable one, since they are encoded after every invocation; prefer frozen structs and ``msgspec.structs.replace``.
        expire: ``after_write(...)`` or ``after_access(...)``: when the value goes back to its default by itself.
    """
    if (default is _MISSING) == (default_factory is None):
        msg = "value(): expected a default or a default_factory, and not both"
        raise DefinitionError(msg)
    return Value(default, default_factory, expire)


class _Collection:
    """The declared form of a map, a buffer or a registry."""

    __slots__ = ("expire", "kind", "name")

    def __init__(self, kind: Literal["map", "buffer", "registry"], expire: Expiry | None) -> None:
        self.kind = kind
        self.expire = expire
        self.name = "?"

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: State | None, owner: type) -> _Collection:
        if instance is None:
            return self
        raise _by_hand(owner)


def mapping(*, expire: Expiry | None = None) -> Map[Any, Any]:
    """Declare a map. The annotation says of what, as in ``prices: Map[str, float]``.

    Args:
        expire: when an entry goes away by itself, each on its own.
    """
    return cast("Map[Any, Any]", _Collection("map", expire))


def buffer(*, expire: Expiry | None = None) -> Buffer[Any]:
    """Declare a buffer. The annotation says of what, as in ``recent: Buffer[Order]``.

    Args:
        expire: with ``after_write(...)`` each element goes away by itself, with ``after_access(...)`` the buffer as a whole.
    """
    return cast("Buffer[Any]", _Collection("buffer", expire))


def registry() -> Registry:
    """Declare a registry, for states that are named at run time. The annotation is ``Registry``."""
    return cast("Registry", _Collection("registry", None))


class _StateMeta(type):
    """Gives every state class empty slots, so that a mistyped field name is an AttributeError and records stay small."""

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> _StateMeta:
        namespace.setdefault("__slots__", ())
        return super().__new__(mcs, name, bases, namespace)


class State(metaclass=_StateMeta):
    """The base of all declared state. Methods and properties of a subclass are available on ``ctx.state``."""

    __slots__ = ()

    def __contains__(self, name: str) -> bool:
        """Whether a field differs from its default, or a collection is not empty: ``"items" in ctx.state``."""
        raise _by_hand(type(self))


def field_specs(cls: type[State], where: str) -> tuple[FieldSpec, ...]:
    """The fields of a state class, in order of declaration, bases first.

    Raises:
        DefinitionError: an annotation is missing or not supported, or a default does not fit.
    """
    hints, attributes = _hints(cls, where), _declared(cls)
    found: dict[str, FieldSpec] = {}
    for name, declared in attributes.items():
        if isinstance(declared, Value):
            found[name] = _field_spec(declared, hints.get(name), f"{where}: state field {cls.__qualname__}.{name}")
    for name, hint in hints.items():
        if name in found:
            continue
        form = typing.get_origin(hint) or hint
        if form is Value:
            msg = f"{where}: state field {cls.__qualname__}.{name}: expected '= value(...)' after the annotation"
            raise DefinitionError(msg)
        collection = isinstance(attributes.get(name), _Collection) or any(form is kind for kind, _, _ in _FORMS.values())
        if form is not typing.ClassVar and not collection:
            shown = getattr(hint, "__name__", hint) if typing.get_origin(hint) is None else hint
            msg = (
                f"{where}: state field {cls.__qualname__}.{name}: expected '{name}: Value[{shown}] = value(...)', got the plain "
                f"annotation '{shown}', which would not be stored; 'ClassVar[...]' if it is a constant"
            )
            raise DefinitionError(msg)
    return tuple(found.values())


def _hints(cls: type[State], where: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except (NameError, TypeError) as error:
        msg = f"{where}: state {cls.__qualname__}: an annotation cannot be resolved: {error}"
        raise DefinitionError(msg) from error


def _declared(cls: type[State]) -> dict[str, Any]:
    """What a state class declares, bases first; a subclass may declare a name anew."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        found |= vars(base)
    return found


def _field_spec(declared: Value[Any], hint: Any, where: str) -> FieldSpec:
    if hint is None:
        msg = f"{where}: expected an annotation such as 'Value[int]'"
        raise DefinitionError(msg)
    if hint is Value:
        annotation: Any = Any
    elif typing.get_origin(hint) is Value:
        (annotation,) = typing.get_args(hint)
    else:
        msg = f"{where}: expected the annotation 'Value[...]', got {hint!r}"
        raise DefinitionError(msg)
    types = payload_types(annotation, where)
    if types:
        annotation = convertible(annotation, where)
    default = declared.default if declared.default_factory is None else declared.default_factory()
    spec = FieldSpec(declared.name, annotation, types, default, _checked_expiry(declared.expire, where))
    open_classes = {list, dict, set, bytearray} | {member.cls for member in types if not member.immutable}
    if declared.default_factory is None and type(default) in open_classes:
        made = type(default).__name__ if not default else f"lambda: {default!r:.60}"
        msg = f"{where}: a mutable default would be shared; use value(default_factory={made})"
        raise DefinitionError(msg)
    try:
        spec.from_plain(cbor2.loads(spec.encode(default)))
    except PayloadTypeError as error:
        msg = f"{where}: the default does not fit: {error}"
        raise DefinitionError(msg) from error
    return spec


def _checked_expiry(expire: Any, where: str) -> Expiry | None:
    if expire is None or type(expire) is Expiry:
        return expire
    msg = f"{where}: expire: expected after_write(...) or after_access(...), got {expire!r:.100}"
    raise DefinitionError(msg)


_FORMS: dict[str, tuple[type, str, str]] = {
    "map": (Map, "Map[K, V]", "mapping(...)"),
    "buffer": (Buffer, "Buffer[T]", "buffer(...)"),
    "registry": (Registry, "Registry", "registry()"),
}


def collection_specs(cls: type[State], where: str) -> tuple[CollectionSpec, ...]:
    """The maps, buffers and registries of a state class, in order of declaration, bases first.

    Raises:
        DefinitionError: an annotation is missing or not supported.
    """
    hints = _hints(cls, where)
    found: dict[str, CollectionSpec] = {}
    for name, declared in _declared(cls).items():
        if isinstance(declared, _Collection):
            found[name] = _collection_spec(declared, hints.get(name), f"{where}: state field {cls.__qualname__}.{name}")
    for name, hint in hints.items():
        for form, annotation, factory in _FORMS.values():
            if (typing.get_origin(hint) or hint) is form and name not in found:
                msg = f"{where}: state field {cls.__qualname__}.{name}: expected '= {factory}' after '{annotation}'"
                raise DefinitionError(msg)
    return tuple(found.values())


def _collection_spec(declared: _Collection, hint: Any, where: str) -> CollectionSpec:
    form, annotation, factory = _FORMS[declared.kind]
    name = declared.name
    arguments = typing.get_args(hint)
    if (typing.get_origin(hint) or hint) is not form or len(arguments) != len(getattr(form, "__parameters__", ())):
        msg = f"{where}: expected the annotation '{annotation}' for {factory}, got {hint!r}"
        raise DefinitionError(msg)
    if name.startswith("_"):
        msg = f"{where}: expected a name that does not begin with an underscore"
        raise DefinitionError(msg)
    expiry = _checked_expiry(declared.expire, where)
    if not arguments:
        return CollectionSpec(name, declared.kind)
    keys = key_type(arguments[0], f"{where}: key") if declared.kind == "map" else None
    if keys is not None:
        keys = dataclasses.replace(keys, what=f"state field {name!r}: key")
    types = payload_types(arguments[-1], where)
    item = FieldSpec(name, convertible(arguments[-1], where) if types else arguments[-1], types, None)
    return CollectionSpec(name, declared.kind, keys, item, expiry)


def empty_state() -> type[State]:
    """The state of a function that declares none."""
    return _NoState


class _NoState(State):
    pass


def is_state_class(candidate: Any) -> bool:
    """Whether ``candidate`` is a class derived from ``State``."""
    return inspect.isclass(candidate) and issubclass(candidate, State)
