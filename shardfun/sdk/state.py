"""Declaring state: ``class Cart(State): items: Value[int] = value(0)``.

To a type checker ``ctx.state.items`` is an ``int``: ``Value`` is a descriptor. At run time the runtime derives a slotted record class
from the declaration, so reading a field is a plain attribute access.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

import cbor2

from shardfun.core.function import CollectionSpec, FieldSpec
from shardfun.errors import DefinitionError, PayloadTypeError
from shardfun.model.conversion import convertible
from shardfun.model.payload import payload_types

T = TypeVar("T")
_MISSING: Any = object()


class Value(Generic[T]):
    """The declared form of one persisted value. Made by ``value``; read and written as a plain attribute of ``ctx.state``."""

    __slots__ = ("default", "default_factory", "name")

    def __init__(self, default: Any, default_factory: Callable[[], Any] | None) -> None:
        self.default = default
        self.default_factory = default_factory
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
        msg = f"{owner.__name__} was made by hand; state exists only as ctx.state inside a function"
        raise DefinitionError(msg)

    def __set__(self, instance: State, new: T) -> None:
        """Declared for type checkers; records have slots of their own."""
        msg = f"{type(instance).__name__} was made by hand; state exists only as ctx.state inside a function"
        raise DefinitionError(msg)


@overload
def value(default: T) -> Value[T]: ...
@overload
def value(*, default_factory: Callable[[], T]) -> Value[T]: ...
def value(default: Any = _MISSING, *, default_factory: Callable[[], Any] | None = None) -> Value[Any]:
    """Declare a persisted value.

    Args:
        default: what an address has before it sets the value. Must be immutable (a number, text, frozen struct, ...).
        default_factory: makes the default of a mutable type, such as ``list``. Mutable values work, but cost ten times an
            immutable one, since they are encoded after every invocation; prefer frozen structs and ``msgspec.structs.replace``.
    """
    if (default is _MISSING) == (default_factory is None):
        msg = "value(): expected a default or a default_factory, and not both"
        raise DefinitionError(msg)
    return Value(default, default_factory)


class _StateMeta(type):
    """Gives every state class empty slots, so that a mistyped field name is an AttributeError and records stay small."""

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> _StateMeta:
        namespace.setdefault("__slots__", ())
        return super().__new__(mcs, name, bases, namespace)


class State(metaclass=_StateMeta):
    """The base of all declared state. Methods and properties of a subclass are available on ``ctx.state``."""

    __slots__ = ()


def field_specs(cls: type[State], where: str) -> tuple[FieldSpec, ...]:
    """The fields of a state class, in order of declaration, bases first.

    Raises:
        DefinitionError: an annotation is missing or not supported, or a default does not fit.
    """
    try:
        hints = typing.get_type_hints(cls)
    except (NameError, TypeError) as error:
        msg = f"{where}: state {cls.__qualname__}: an annotation cannot be resolved: {error}"
        raise DefinitionError(msg) from error
    found: dict[str, FieldSpec] = {}
    for base in reversed(cls.__mro__):
        for name, declared in vars(base).items():
            if isinstance(declared, Value):
                found[name] = _field_spec(declared, hints.get(name), f"{where}: state field {cls.__qualname__}.{name}")
    for name in hints:
        if name not in found and typing.get_origin(hints[name]) is Value:
            msg = f"{where}: state field {cls.__qualname__}.{name}: expected '= value(...)' after the annotation"
            raise DefinitionError(msg)
    return tuple(found.values())


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
    spec = FieldSpec(declared.name, annotation, types, default)
    if declared.default_factory is None and isinstance(default, (list, dict, set, bytearray)):
        msg = f"{where}: a mutable default would be shared; use value(default_factory={type(default).__name__})"
        raise DefinitionError(msg)
    try:
        spec.from_plain(cbor2.loads(spec.encode(default)))
    except PayloadTypeError as error:
        msg = f"{where}: the default does not fit: {error}"
        raise DefinitionError(msg) from error
    return spec


def collection_specs(_cls: type[State], _where: str) -> tuple[CollectionSpec, ...]:
    """The maps, buffers and registries of a state class, in order of declaration, bases first."""
    return ()


def empty_state() -> type[State]:
    """The state of a function that declares none."""
    return _NoState


class _NoState(State):
    pass


def is_state_class(candidate: Any) -> bool:
    """Whether ``candidate`` is a class derived from ``State``."""
    return inspect.isclass(candidate) and issubclass(candidate, State)
