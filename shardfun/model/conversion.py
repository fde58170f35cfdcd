"""Values to plain ones (what CBOR carries: scalars, lists, maps) and back.

msgspec does it for builtins, enums, dataclasses, named tuples and structs. Pydantic models go through two hooks: pydantic dumps a
model to fields and validates them on the way back. Pydantic is an optional package and never imported here: a model can only be
declared by an application that has imported it.

msgspec takes no union of a class it does not know with anything but ``None``. ``convertible`` puts a stand-in class in the place
of such a union, which tells by the form of a plain value what it is.
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Iterator
from typing import Any

import msgspec

from shardfun.errors import DefinitionError

_UNIONS = (typing.Union, types.UnionType)
_MAPS = (
    msgspec.inspect.DataclassType,
    msgspec.inspect.DictType,
    msgspec.inspect.StructType,
    msgspec.inspect.TypedDictType,
)
_NOT_HASHABLE = (
    *_MAPS,
    msgspec.inspect.ByteArrayType,
    msgspec.inspect.CustomType,
    msgspec.inspect.ListType,
    msgspec.inspect.SetType,
)


def plain_of(value: Any) -> Any:
    """The value as scalars, lists and maps.

    Raises:
        TypeError, ValueError, RecursionError: something in it has no such form.
    """
    return msgspec.to_builtins(value, builtin_types=(bytes,), enc_hook=_encode_foreign)


def sorted_plain_of(value: Any) -> Any:
    """As ``plain_of``, with sets and maps in order, so that equal values look the same.

    Raises:
        TypeError, ValueError, RecursionError: something in it has no such form, or no order.
    """
    return msgspec.to_builtins(value, builtin_types=(bytes,), enc_hook=_encode_foreign, order="deterministic")


def value_of(plain: Any, annotation: Any) -> Any:
    """A plain value as one of the type ``annotation`` (as ``convertible`` gives it).

    Raises:
        msgspec.ValidationError: it is none. Constructors may be user code, so it can be any exception.
    """
    return msgspec.convert(plain, annotation, dec_hook=_decode_foreign)


# ---- declarations ------------------------------------------------------------------------------------------------------
def unalias(annotation: Any) -> Any:
    """The type behind ``NewType``, ``Annotated`` and ``type X = ...``."""
    while True:
        if typing.get_origin(annotation) is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":  # Python 3.12, and typing_extensions
            annotation = annotation.__value__
        else:
            return annotation


def union_members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the annotation alone."""
    annotation = unalias(annotation)
    if typing.get_origin(annotation) in _UNIONS:
        return tuple(member for part in typing.get_args(annotation) for member in union_members(part))
    return (annotation,)


def convertible(annotation: Any, where: str) -> Any:
    """The annotation in a form that msgspec converts to, checked all the way down.

    Args:
        where: what to call the place in an error, such as ``"shop/cart: message"``.

    Raises:
        DefinitionError: values of it cannot be encoded and decoded.
    """
    prepared = _stand_ins(annotation, where)
    try:
        info = msgspec.inspect.type_info(prepared)
    except (TypeError, NameError, ValueError, AttributeError) as error:
        msg = f"{where}: {annotation!r} cannot be encoded: {error}"
        raise DefinitionError(msg) from error
    for found in _parts(info, set()):
        if isinstance(found, msgspec.inspect.CustomType):
            _check_foreign(found.cls, annotation, where)
        elif isinstance(found, msgspec.inspect.DictType):
            _check_key(found.key_type, annotation, where)
    return prepared


def _parts(info: Any, seen: set[int]) -> Iterator[Any]:
    """Every type in a type description. ``seen``: descriptions of recursive types are cyclic."""
    if id(info) in seen:
        return
    seen.add(id(info))
    if isinstance(info, tuple):
        for item in info:
            yield from _parts(item, seen)
    elif isinstance(info, (msgspec.inspect.Type, msgspec.inspect.Field)):
        yield info
        for name in info.__struct_fields__:
            yield from _parts(getattr(info, name), seen)


def _check_key(info: Any, annotation: Any, where: str) -> None:
    """Keys of a dict must still be hashable when they are plain."""
    for found in _parts(info, set()):
        if isinstance(found, _NOT_HASHABLE):
            msg = f"{where}: {annotation!r}: keys of a dict can be scalars, dates, UUIDs, enums and tuples of these"
            raise DefinitionError(msg)


def _check_foreign(cls: type, annotation: Any, where: str) -> None:
    if issubclass(cls, Choice):
        return
    inside = "" if cls is annotation else f" (inside {annotation!r})"
    name = f"{where}: {cls.__module__}.{cls.__qualname__}{inside}"
    if not is_pydantic_model(cls):
        msg = f"{name} is not a supported type; make it a msgspec.Struct or a dataclass"
        raise DefinitionError(msg)
    model: Any = cls
    if not hasattr(model, "model_validate"):
        msg = f"{name}: expected a model of pydantic 2.11 or newer"
        raise DefinitionError(msg)
    try:
        model.model_json_schema()
    except Exception as error:  # a model may hold user code
        reason = str(error).partition("\n")[0]
        msg = f"{name}: a pydantic model whose fields cannot all be encoded: {reason}"
        raise DefinitionError(msg) from error
    for field, declared in model.model_fields.items():
        if declared.exclude:
            msg = f"{name}: the field {field!r} is excluded from encoding, so it would be lost; make it a private attribute"
            raise DefinitionError(msg)


# ---- pydantic ----------------------------------------------------------------------------------------------------------
def is_pydantic_model(cls: Any) -> bool:
    """Whether ``cls`` is a pydantic model, with fields of its own. Looks, and does not import."""
    base = getattr(sys.modules.get("pydantic.main"), "BaseModel", None)
    return base is not None and isinstance(cls, type) and issubclass(cls, base) and cls is not base


def _encode_foreign(value: Any) -> Any:
    if is_pydantic_model(type(value)):
        # By field name whatever the aliases, and an error instead of a warning for a value of a wrong class.
        fields = value.model_dump(round_trip=True, by_alias=False, warnings="error")
        return msgspec.to_builtins(fields, builtin_types=(bytes,), enc_hook=_encode_part)
    msg = f"{type(value).__module__}.{type(value).__qualname__} is not a supported type"
    raise TypeError(msg)


def _encode_part(value: Any) -> Any:
    """What pydantic has types of its own for: URLs, paths, addresses, secrets."""
    if hasattr(value, "get_secret_value"):
        return value.get_secret_value()
    return sys.modules["pydantic_core"].to_jsonable_python(value)


def _decode_foreign(cls: Any, plain: Any) -> Any:
    if issubclass(cls, Choice):
        return cls.choose(plain)
    try:
        # Never strict: a date comes as text.
        return cls.model_validate(plain, strict=False, by_name=True, by_alias=False)
    except ValueError as error:
        if not hasattr(error, "errors"):
            raise
        found = [f"{'.'.join(map(str, part['loc'])) or 'model'}: {part['msg']}" for part in error.errors(include_url=False)]
        msg = "; ".join(found)
        raise ValueError(msg) from error


# ---- unions with a pydantic model --------------------------------------------------------------------------------------
class _ChoiceMeta(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return True  # ``choose`` has checked it; msgspec asks again


class Choice(metaclass=_ChoiceMeta):
    """Stands for a union of one pydantic model and types whose plain form is no map. Made by ``convertible``."""

    model: Any
    others: Any

    @classmethod
    def choose(cls, plain: Any) -> Any:
        """The value of the member that ``plain`` is one of."""
        return value_of(plain, cls.model if type(plain) is dict else cls.others)


def _stand_ins(annotation: Any, where: str) -> Any:
    """Replace unions with a pydantic model in an annotation (not inside the classes that it names)."""
    members = union_members(annotation)
    models = [member for member in members if is_pydantic_model(member)]
    if models and any(member not in (None, type(None)) for member in members if member not in models[:1]):
        return _choice(members, models, where)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is None or origin in (typing.Literal, typing.Annotated):
        return annotation
    prepared = tuple(argument if argument is Ellipsis else _stand_ins(argument, where) for argument in arguments)
    if prepared == arguments:
        return annotation
    return typing.Union[prepared] if origin in _UNIONS else origin[prepared]  # noqa: UP007 - made from values


def _choice(members: tuple[Any, ...], models: list[Any], where: str) -> type[Choice]:
    plain_others = tuple(_stand_ins(member, where) for member in members if member not in models)
    text = " | ".join(getattr(member, "__qualname__", repr(member)) for member in members)
    if len(models) > 1 or models[0].__pydantic_root_model__:
        msg = f"{where}: {text}: models cannot be told apart in a stored value; "
        msg += "put the union, with a discriminator, into a model"
        raise DefinitionError(msg)
    for other in plain_others:
        if isinstance(msgspec.inspect.type_info(other), (*_MAPS, msgspec.inspect.AnyType)):
            msg = f"{where}: {text}: {models[0].__qualname__} and {other!r} are both stored as maps and cannot be told apart"
            raise DefinitionError(msg)
    chosen = models[0]

    class Chosen(Choice):
        model: Any = chosen
        others: Any = typing.Union[plain_others]  # noqa: UP007 - made from values

    return Chosen
