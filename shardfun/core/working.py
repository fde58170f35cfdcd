"""Working copies: the state that one invocation of a *full* function type works on, written back in one step.

Functions with maps, buffers or expiring values, and those that await or run in a thread, do not see the record. They see a copy
that belongs to their invocation. So a cut, a query or an eviction in the middle of an ``await`` meets the record as it was, a
failed invocation leaves nothing to undo, and what one invocation has changed becomes visible at once when it returns.

``begin`` makes a copy, ``commit`` writes it back: first everything that may fail (checks, encoding), then everything that may not.

``Copies`` is the specification, and what ``run_plain`` uses. ``quick_copies`` gives what does the same faster.
"""

from __future__ import annotations

from typing import Any

import cbor2

from shardfun.core.absence import is_default
from shardfun.core.buffers import Bounds, Buffer
from shardfun.core.cells import CellReader
from shardfun.core.copies import Read, copy_class, generate_fill, slot_of_field
from shardfun.core.function import CompiledFunction, FieldSpec
from shardfun.core.hidden import BOUNDS, DEADLINES, IDLE, Hidden, Plain, with_idle, with_parts
from shardfun.core.maps import Map, Write
from shardfun.core.options import is_worth_moving
from shardfun.core.records import RecordTable
from shardfun.core.registry import Descriptions

Change = tuple[FieldSpec, Any, Any]
"""A field and its new value; of a mutable one its encoding, and the value decoded from that."""


class Copies:
    """Makes and writes back the working copies of one function type.

    Args:
        function: a full one.
        quick: with the fastest classes of maps.

    ``descriptions``: of the types that registries were asked for.
    """

    __slots__ = (
        "_class",
        "_collections",
        "_expiring",
        "_fields",
        "_fill",
        "_function",
        "_idle_ms",
        "descriptions",
    )

    def __init__(self, function: CompiledFunction, *, quick: bool = False) -> None:
        assert function.full
        spec = function.spec
        self.descriptions = Descriptions()
        self._function = function
        self._collections = spec.collections
        self._fields = tuple((field, slot_of_field(field)) for field in spec.fields)
        self._expiring = tuple(pair for pair in self._fields if pair[0].expiry is not None)
        self._idle_ms = spec.options.expire_idle_ms
        self._class = copy_class(spec, self.descriptions, quick=quick)
        self._fill = generate_fill(spec.fields)

    def begin(self, record: Any, cells: CellReader, now_ms: int) -> Any:
        """A copy of a record for one invocation.

        Args:
            now_ms: unix milliseconds; what has expired then is at its default.

        Raises:
            PayloadTypeError: a stored value does not fit its declaration.
        """
        copy: Any = object.__new__(self._class)
        copy._record = record  # noqa: SLF001
        copy._cells = cells  # noqa: SLF001
        copy._now_ms = now_ms  # noqa: SLF001
        copy._handles = {}  # noqa: SLF001
        copy._marks = {}  # noqa: SLF001
        copy._fresh = False  # noqa: SLF001
        copy._hidden = hidden = record._hidden  # noqa: SLF001
        if hidden is not None and self._idle_ms is not None and hidden.get(IDLE, now_ms + 1) <= now_ms:
            copy._delete_instance()  # noqa: SLF001
            return copy
        self._fill(copy, record)
        if hidden is not None and DEADLINES in hidden:
            for field, slot in self._expiring:
                if hidden[DEADLINES].get(field.name, now_ms + 1) <= now_ms:
                    delattr(copy, slot)
        return copy

    def commit(self, copy: Any, table: RecordTable) -> None:
        """Write a copy back to its record and cells, which ends the use of its collections.

        Raises:
            PayloadTypeError, UnicodeEncodeError: a value is not of its declared type; nothing is written.
        """
        try:
            changes = self._changes(copy) if self._fields else []
            writes, hidden = self._collected(copy)
        finally:
            for handle in copy._handles.values():  # noqa: SLF001
                handle.close()
        if self._expiring:
            hidden = self._with_deadlines(copy, hidden, changes)
        record = copy._record  # noqa: SLF001
        if self._idle_ms is not None:
            hidden = self._with_idle(copy, hidden, changes, writes)
        # From here on nothing fails.
        if changes or hidden != record._hidden:  # noqa: SLF001
            if record._epoch is not table.epoch:  # noqa: SLF001
                table.touch(record)
            for field, value, fresh in changes:
                setattr(record, field.name, fresh)
                if not field.immutable:
                    setattr(record, "_encoded_" + field.name, value)
            record._hidden = hidden  # noqa: SLF001
            table.mark_dirty(record)
        put_all = table.cells.put_all
        for prefix, cells in writes:
            put_all(prefix, cells)

    # ---- what may fail --------------------------------------------------------------------------------------------------
    def _changes(self, copy: Any) -> list[Change]:
        """The fields that differ from the record."""
        record = copy._record  # noqa: SLF001
        found: list[Change] = []
        for field, slot in self._fields:
            value, name = getattr(copy, slot), field.name
            if field.immutable:
                if value is not getattr(record, name):
                    field.check(value)
                    if not field.scalar:
                        field.encode(value)
                    found.append((field, value, value))
            else:
                encoded = field.encode(value)
                if encoded != getattr(record, "_encoded_" + name):
                    found.append((field, encoded, field.from_plain(cbor2.loads(encoded))))
        return found

    def _collected(self, copy: Any) -> tuple[list[Write], Plain | None]:
        """What has to be put into the cells, and the hidden data with the bounds of buffers."""
        handles = copy._handles  # noqa: SLF001
        if copy._fresh:  # noqa: SLF001
            for spec in self._collections:
                getattr(copy, spec.name)
        writes: list[Write] = []
        buffers: dict[str, tuple[Bounds | None, int | None]] = {}
        for name, handle in handles.items():
            if isinstance(handle, Map):
                writes.append(handle.writes())
            elif type(handle) is Buffer:
                more, bounds, deadline = handle.writes()
                writes.append(more)
                buffers[name] = bounds, deadline
            else:
                writes += handle.writes(buffers)
        hidden: Plain | None = copy._hidden  # noqa: SLF001
        if buffers:
            hidden = with_parts(hidden, BOUNDS, {name: bounds for name, (bounds, _) in buffers.items()})
            hidden = with_parts(hidden, DEADLINES, {name: deadline for name, (_, deadline) in buffers.items()})
        return writes, hidden

    def _with_deadlines(self, copy: Any, hidden: Plain | None, changes: list[Change]) -> Plain | None:
        """The hidden data with the deadlines of the values that were written, or read."""
        changed = {field.name for field, _, _ in changes}
        marks, now_ms, before = copy._marks, copy._now_ms, Hidden(hidden)  # noqa: SLF001
        deadlines: dict[str, int | None] = {}
        for field, slot in self._expiring:
            name, mark, deadline = field.name, marks.get(field.name), before.deadline(field.name)
            if mark is None and name not in changed and deadline is not None:
                continue
            expiry = field.expiry
            assert expiry is not None
            if is_default(field, getattr(copy, slot)):
                deadlines[name] = None
            elif deadline is None or name in changed or mark is Read.AND_WRITTEN or expiry.is_renewed_by_read(deadline, now_ms):
                deadlines[name] = now_ms + expiry.ttl_ms
        return with_parts(hidden, DEADLINES, deadlines)

    def _with_idle(self, copy: Any, hidden: Plain | None, changes: list[Change], writes: list[Write]) -> Plain | None:
        """The hidden data with the deadline of the instance, which a message puts off."""
        assert self._idle_ms is not None
        now_ms = copy._now_ms  # noqa: SLF001
        deadline = None if hidden is None else hidden.get(IDLE)
        if not self._exists(copy, hidden, changes, writes):
            return None
        return with_idle(hidden, now_ms + self._idle_ms) if is_worth_moving(deadline, self._idle_ms, now_ms) else hidden

    def _exists(self, copy: Any, hidden: Plain | None, changes: list[Change], writes: list[Write]) -> bool:
        """Whether there is anything to keep. An instance whose maps may have entries is believed to have some."""
        if hidden is not None and (len(hidden) > 1 or IDLE not in hidden or self._collections):
            return True
        if any(value is not None for _, cells in writes for value in cells.values()):
            return True
        function = self._function
        values = dict(zip((field.name for field, _ in self._fields), function.values_of(copy._record), strict=False))  # noqa: SLF001
        values |= {field.name: value for field, value, _ in changes}
        return function.encode_values((*values.values(), None)) is not None


class MapCopies(Copies):
    """Of a function type whose state is maps and nothing else: no more is done than these need, which is half."""

    __slots__ = ()

    def begin(self, record: Any, cells: CellReader, now_ms: int) -> Any:
        """As of ``Copies``."""
        copy: Any = object.__new__(self._class)
        copy._record = record  # noqa: SLF001
        copy._cells = cells  # noqa: SLF001
        copy._now_ms = now_ms  # noqa: SLF001
        copy._handles = {}  # noqa: SLF001
        copy._fresh = False  # noqa: SLF001
        copy._hidden = record._hidden  # noqa: SLF001
        return copy

    def commit(self, copy: Any, table: RecordTable) -> None:
        """As of ``Copies``."""
        if copy._fresh:  # noqa: SLF001
            super().commit(copy, table)
            return
        handles = copy._handles.values()  # noqa: SLF001
        writes: list[Write] = []
        try:
            for handle in handles:
                writes.append(handle.finish())  # noqa: PERF401 - before Python 3.12 a comprehension is a call
        except BaseException:
            for handle in handles:
                handle.close()
            raise
        put_all = table.cells.put_all
        for prefix, changes in writes:
            put_all(prefix, changes)


def quick_copies(function: CompiledFunction) -> Copies:
    """The fastest copies for a full function."""
    spec = function.spec
    only_maps = not spec.fields and spec.options.expire_idle_ms is None and all(item.kind == "map" for item in spec.collections)
    return MapCopies(function, quick=True) if only_maps else Copies(function, quick=True)
