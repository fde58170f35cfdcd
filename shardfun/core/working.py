"""Working copies: the state that one invocation of a *full* function type works on, written back in one step.

Functions with maps, buffers or expiring values, and those that await or run in a thread, do not see the record. They see a copy
that belongs to their invocation. So a cut, a query or an eviction in the middle of an ``await`` meets the record as it was, a
failed invocation leaves nothing to undo, and what one invocation has changed becomes visible at once when it returns.

``begin`` makes a copy, ``commit`` writes it back: first everything that may fail (checks, encoding), then everything that may not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cbor2

from shardfun.core.cells import Cells
from shardfun.core.function import CompiledFunction
from shardfun.core.records import RecordTable


class Copies:
    """Makes and writes back the working copies of one function type.

    Args:
        function: a full one.
    """

    __slots__ = ("_class", "_function")

    def __init__(self, function: CompiledFunction) -> None:
        assert function.full
        self._function = function
        self._class = _copy_class(function)

    def begin(self, record: Any, cells: Cells, now_ms: int) -> Any:
        """A copy of a record for one invocation.

        Args:
            now_ms: unix milliseconds; what has expired then is at its default.
        """
        copy: Any = object.__new__(self._class)
        copy._record = record  # noqa: SLF001
        copy._cells = cells  # noqa: SLF001
        copy._now_ms = now_ms  # noqa: SLF001
        for field in self._function.spec.fields:
            name = field.name
            value = (
                getattr(record, name) if field.immutable else field.from_plain(cbor2.loads(getattr(record, "_encoded_" + name)))
            )
            setattr(copy, name, value)
        return copy

    def commit(self, copy: Any, table: RecordTable) -> None:
        """Write a copy back to its record.

        Raises:
            PayloadTypeError, UnicodeEncodeError: a value is not of its declared type; nothing is written.
        """
        record = copy._record  # noqa: SLF001
        changed: list[Callable[[], None]] = []
        for field in self._function.spec.fields:
            value, name = getattr(copy, field.name), field.name
            if field.immutable:
                if value is not getattr(record, name):
                    field.check(value)
                    changed.append(lambda name=name, value=value: setattr(record, name, value))  # type: ignore[misc]
            else:
                encoded = field.encode(value)
                if encoded != getattr(record, "_encoded_" + name):
                    changed.append(lambda f=field, e=encoded: self._function.set_mutable(record, f, e))  # type: ignore[misc]
        if changed:
            if record._epoch is not table.epoch:  # noqa: SLF001
                table.touch(record)
            for write in changed:
                write()
            table.mark_dirty(record)


def _copy_class(function: CompiledFunction) -> type:
    """A slotted subclass of the author's state class."""
    spec = function.spec
    slots = [field.name for field in spec.fields] + [item.name for item in spec.collections]
    slots += ["_record", "_cells", "_now_ms"]
    return type(spec.state_class)(
        f"{spec.state_class.__name__}Copy",
        (spec.state_class,),
        {"__slots__": tuple(slots), "__module__": spec.state_class.__module__},
    )
