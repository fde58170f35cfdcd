"""Whether every value of a declared type is immutable all the way down.

A frozen struct that holds a list keeps its identity while the list changes: sharing it would leak the change, and comparing it
by identity would lose it. So fields are looked at, too, and anything not known to be immutable is not.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import inspect
import typing
import uuid
from typing import Any

import msgspec

from shardfun.model.conversion import is_pydantic_model, unalias, union_members

LEAVES: frozenset[Any] = frozenset(
    (
        int, str, float, bool, bytes, type(None), None,
        dt.datetime, dt.date, dt.time, dt.timedelta, uuid.UUID, decimal.Decimal,
    )
)  # fmt: skip


def is_immutable(annotation: Any) -> bool:
    """Whether every value of a declared type is immutable."""
    return _immutable(annotation, frozenset())


def _immutable(annotation: Any, seen: frozenset[Any]) -> bool:
    annotation = unalias(annotation)
    if annotation in LEAVES or annotation in seen:
        return True
    members = union_members(annotation)
    if len(members) > 1:
        return all(_immutable(member, seen) for member in members)
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return True
    if origin in (tuple, frozenset):
        return all(member is Ellipsis or _immutable(member, seen) for member in typing.get_args(annotation))
    cls = origin or annotation
    if not isinstance(cls, type):
        return False
    if issubclass(cls, enum.Enum):
        return True
    if not _is_frozen_record(cls):
        return False
    hints = record_hints(annotation)
    return hints is not None and all(_immutable(hint, seen | {annotation}) for hint in hints.values())


def _is_frozen_record(cls: Any) -> bool:
    if is_pydantic_model(cls):
        config = cls.model_config
        return bool(config.get("frozen")) and config.get("extra") != "allow" and not cls.__private_attributes__
    if issubclass(cls, msgspec.Struct):
        return bool(cls.__struct_config__.frozen)
    return dataclasses.is_dataclass(cls) and bool(getattr(cls, "__dataclass_params__").frozen)  # noqa: B009 - not in the stubs


def record_hints(annotation: Any, *, extras: bool = False) -> dict[str, Any] | None:
    """The types of a record's fields by attribute name, type variables replaced; ``None`` if they cannot be resolved.

    Args:
        annotation: a class, or a generic alias of one.
        extras: keep ``Annotated``, which holds constraints.
    """
    cls = typing.get_origin(annotation) or annotation
    if is_pydantic_model(cls):
        return {name: field.annotation for name, field in cls.model_fields.items()}
    try:
        hints = typing.get_type_hints(cls, include_extras=extras)
    except (NameError, TypeError):
        return None
    variables = _variables(annotation)
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        for name in inspect.get_annotations(base):
            hint = hints.get(name)
            if typing.get_origin(hint) is not typing.ClassVar and hint is not typing.ClassVar:
                found[name] = _substitute(hint, variables.get(base, {}))
    return found


def _variables(annotation: Any) -> dict[type, dict[Any, Any]]:
    """For each generic class that a record is made of, what its type variables stand for."""
    origin = typing.get_origin(annotation)
    cls = origin or annotation
    own = dict(zip(getattr(cls, "__parameters__", ()), typing.get_args(annotation), strict=False)) if origin else {}
    found = {cls: own}
    for base in cls.__dict__.get("__orig_bases__", ()):
        if isinstance(typing.get_origin(base), type) and typing.get_origin(base) is not typing.Generic:
            found |= _variables(_substitute(base, own))
    return found


def _substitute(hint: Any, variables: dict[Any, Any]) -> Any:
    if isinstance(hint, typing.TypeVar):
        return variables.get(hint, hint)
    parameters = getattr(hint, "__parameters__", ())
    if not parameters or not variables or isinstance(hint, type):
        return hint
    return hint[tuple(variables.get(parameter, parameter) for parameter in parameters)]
