"""Default is absent: what it means for a state that a field was never set, or deleted.

A field that equals its default, by its encoding, is as one that was never set. ``del ctx.state.x`` empties the field's slot, and
``__getattr__``, which is only asked for empty slots, gives the default.

On Python 3.11 a class with ``__getattr__`` reads all of its slots five times slower. So record classes, which the fast runners work
on, have none until an invocation has deleted a field for the first time in this process: that one is undone and runs again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import cbor2

if TYPE_CHECKING:
    from shardfun.core.function import CompiledFunction, FieldSpec


def default_of(field: FieldSpec) -> Any:
    """The default of a field; of a mutable type, a fresh one."""
    return field.default if field.immutable else field.from_plain(cbor2.loads(field.encode(field.default)))


def is_default(field: FieldSpec, value: Any) -> bool:
    """Whether a value is as good as never set.

    Raises:
        PayloadTypeError: it is not of the declared type.
    """
    return value is field.default or field.encode(value) == field.encode(field.default)


def filling(slots: Mapping[str, FieldSpec]) -> Callable[[Any, str], Any]:
    """A ``__getattr__`` that fills an empty slot with the default of its field.

    Args:
        slots: by the name of the slot.
    """

    def __getattr__(state: Any, name: str) -> Any:  # noqa: N807 - becomes one
        field = slots.get(name)
        if field is None:
            raise unknown_name(state, name)
        value = default_of(field)
        setattr(state, name, value)
        return value

    return __getattr__


def unknown_name(state: Any, name: str) -> AttributeError:
    """The error for ``"name" in ctx.state``: a mistyped name should not pass as "not set"."""
    return AttributeError(f"{type(state).__name__!r} object has no attribute {name!r}", name=name, obj=state)


def record_methods(fields: tuple[FieldSpec, ...]) -> dict[str, Any]:
    """What a record class has beside its slots, where functions see the record itself."""
    by_name = {field.name: field for field in fields}

    def __contains__(record: Any, name: str) -> bool:  # noqa: N807 - becomes one
        if name not in by_name:
            raise unknown_name(record, name)
        return not is_default(by_name[name], getattr(record, name))

    def _delete_instance(record: Any) -> None:
        for field in fields:
            setattr(record, field.name, default_of(field))

    return {"__contains__": __contains__, "_delete_instance": _delete_instance}


def learn_deletion(function: CompiledFunction, record: Any) -> bool:
    """After a failed attempt: whether it failed because it had deleted a field, for the first time in this process.

    If so, it would not fail again: the record class is told what to do about it.
    """
    cls = type(record)
    fields = {field.name: field for field in function.spec.fields}
    if function.full or "__getattr__" in vars(cls) or all(hasattr(record, name) for name in fields):
        return False
    cls.__getattr__ = filling(fields)
    return True
