"""Expiry in the background: what has expired goes away from the disk, also where no message comes any more.

Functions never see what has expired, so nobody waits for this. A *round* goes over the stored keys of the function types that
declare an expiry, slot by slot, in small pieces with pauses. What it finds expired it looks at again as it is now, and changes it
as a function would: in the record or the cells, as part of the next checkpoint. Addresses that are busy are left for the next round.

A deleted instance may have a million map entries. They are deleted piece by piece, the record last. Until then the record says that
the instance is dead, and a message that comes in between finds it empty.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cbor2

from shardfun.core.absence import default_of
from shardfun.core.cell_keys import (
    BUFFER_KIND,
    MAP_KIND,
    REGISTERED_KIND,
    cells_prefix,
    deadline_of,
    living,
    number_suffix,
    parse_cell_key,
    value_in,
)
from shardfun.core.dispatch import Dispatcher
from shardfun.core.function import HIDDEN, STATE_KIND, CompiledFunction
from shardfun.core.function_type import FunctionType
from shardfun.core.hidden import BOUNDS, DEADLINES, IDLE, Plain, with_idle, with_parts
from shardfun.core.registered import KIND, registration_without
from shardfun.core.registry import COLLECTION_KINDS
from shardfun.errors import InvocationError, PayloadTypeError
from shardfun.model.address import EVERY_NAME, Address
from shardfun.model.keyspace import slot_range

SEEK_KEYS = 4  # finding a range in the store takes about as long as reading so many keys of it
PEEK_SLOTS_MAX = 64
ROUND_MS_MIN = 1000
TTL_PARTS = 4  # a round in so many parts of the shortest time to live

Step = Iterator[None]
"""Work in pieces: it goes on when the next piece is due."""


class Sweeper:
    """See the module. One in each ``ShardCore``.

    ``expired``: grows with everything that is found expired and changed.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.expired = 0
        self._dispatcher = dispatcher
        self._table = dispatcher.table
        self._cells = dispatcher.table.cells
        self._limits = dispatcher.limits
        self._round: Step | None = None
        self._next_ms: int | None = None
        self._types_seen = 0
        self._functions: dict[str, CompiledFunction] = {}
        """Those of which something may expire, by the name they were declared with."""
        self._registered: dict[str, bool] = {}
        """By function type with a registry: whether a round has found a registered state that expires."""
        self._done = 0
        """What the present piece has done, in keys."""

    def retire(self) -> None:
        """Break the reference cycle of a round under way (see ``ShardCore.retire``)."""
        self._round = None

    # ---- when -----------------------------------------------------------------------------------------------------------
    @property
    def wake_at_ms(self) -> int | None:
        """When the next piece is due: unix milliseconds; ``None``: nothing expires here."""
        dispatcher = self._dispatcher
        if self._types_seen != len(dispatcher.order):
            self._types_seen = len(dispatcher.order)
            self._functions = _candidates(dispatcher)
        if self._next_ms is None and self._functions and self._watched():
            self._next_ms = dispatcher.now_ms + self._round_ms
        return self._next_ms

    def work(self) -> bool:
        """Do the next piece, if it is due; whether it was."""
        due_ms, now_ms = self.wake_at_ms, self._dispatcher.now_ms
        if due_ms is None or now_ms < due_ms:
            return False
        if self._round is None:
            self._round = self._walk(now_ms)
        self._done = 0
        next(self._round, None)
        if self._round is not None:
            self._next_ms = now_ms + self._limits.expiry_pause_ms
        return True

    @property
    def _round_ms(self) -> int:
        shortest = min(ttl for function in self._functions.values() for ttl in _times_to_live(function))
        return min(self._limits.expiry_round_ms, max(ROUND_MS_MIN, shortest // TTL_PARTS))

    def _watched(self) -> list[str]:
        """The names of the functions to look at. Of registries that is only known after a first look at what is stored."""
        return [
            name
            for name, function in self._functions.items()
            if _declares_expiry(function) or self._registered.get(name, True) or self._is_registering(function)
        ]

    def _is_registering(self, function: CompiledFunction) -> bool:
        """Whether a state that expires has been registered in this process."""
        return any(
            target.copies is not None and target.copies.descriptions.expiring
            for target in self._dispatcher.order
            if target.function.record_class is function.record_class
        )

    # ---- a round --------------------------------------------------------------------------------------------------------
    def _walk(self, started_ms: int) -> Step:
        """One round."""
        watched = self._watched()
        self._registered |= dict.fromkeys(watched, False)
        ranges = sorted(pair for name in watched for pair in _ranges(name, self._functions[name]))
        slot, end = slot_range(self._dispatcher.shard, self._dispatcher.shards)
        peek_after = empty = 1
        while slot < end:
            found = False
            for part, name in ranges:
                prefix, start = slot.to_bytes(2, "big") + part, b""
                while True:
                    self._done += SEEK_KEYS
                    last = None
                    for suffix, raw in self._cells.scan_stored(prefix, start):
                        last = suffix
                        yield from self._look(name, prefix + suffix, raw)
                        self._done += 1
                        if self._done >= self._limits.expiry_keys:
                            break
                    else:
                        found |= last is not None or bool(start)
                        break
                    start = suffix + b"\0"
                    yield
            slot += 1
            empty = 1 if found else empty + 1
            if empty > peek_after:  # a key that is not ours may stand in every slot: then looking ahead does not help
                ahead = self._next_slot(slot)
                peek_after = 1 if ahead - slot > peek_after else min(2 * peek_after, PEEK_SLOTS_MAX)
                slot, empty = ahead, 1
            if self._done >= self._limits.expiry_keys:
                yield
        self._round = None
        self._next_ms = max(started_ms + self._round_ms, self._dispatcher.now_ms + self._limits.expiry_pause_ms)
        if not self._watched():
            self._next_ms = None

    def _next_slot(self, slot: int) -> int:
        """The next slot that has any key."""
        self._done += SEEK_KEYS
        key = next((key for key, _ in self._cells.scan_stored(b"", slot.to_bytes(2, "big"))), None)
        return 1 << 15 if key is None else int.from_bytes(key[:2], "big")

    def _look(self, name: str, key: bytes, raw: bytes) -> Step:
        """Look at one stored key. ``name``: of the function as it was declared."""
        now_ms = self._dispatcher.now_ms
        if key[2:3] == STATE_KIND:
            yield from self._look_at_record(name, key, raw)
            return
        deadline = deadline_of(raw)
        if deadline is None:
            return
        self._registered[name] = True
        found = parse_cell_key(key) if deadline <= now_ms else None
        if found is None or self._is_busy(found.address):
            return
        present = self._cells.get(found.prefix, found.suffix)
        if present is not None and living(present, now_ms) is None:
            self._cells.put(
                found.prefix, found.suffix, registration_without(present) if found.kind == REGISTERED_KIND else None
            )
            self.expired += 1

    def _is_busy(self, address: Address) -> bool:
        """Whether an invocation is under way that began when what has expired since was alive, and still has to see it."""
        target = self._dispatcher.types.get(address.typename)
        return target is not None and address.id in target.blocked

    def _look_at_record(self, name: str, key: bytes, raw: bytes) -> Step:
        hidden: Plain = cbor2.loads(raw).get(HIDDEN) or {}
        typename, _, id = key[3:].partition(b"\0")
        address = Address(typename.decode(), id.decode())
        bounds = hidden.get(BOUNDS, {})
        if DEADLINES in hidden or any(len(each) > 2 for each in bounds.values()):
            self._registered[name] = True
        target = self._dispatcher.types.get(address.typename)
        function = self._functions[name] if target is None else target.function
        now_ms, idle_ms = self._dispatcher.now_ms, function.spec.options.expire_idle_ms
        due = idle_ms is not None and hidden.get(IDLE, 0) <= now_ms
        due = due or any(deadline <= now_ms for deadline in hidden.get(DEADLINES, {}).values())
        for buffer, each in bounds.items() if not due else ():
            if len(each) > 2:
                self._done += SEEK_KEYS
                raw_first = self._cells.get(cells_prefix(key[:2], BUFFER_KIND, address, buffer), number_suffix(each[0]))
                due = due or (raw_first is not None and living(raw_first, now_ms) is None)
        if due:
            try:
                target = self._dispatcher.resolve(address.typename)
            except InvocationError:  # one name of a namespace too many
                return
            yield from self._expire_record(target, address.id)

    # ---- records --------------------------------------------------------------------------------------------------------
    def _record(self, target: FunctionType, id: str) -> Any | None:
        """The record of an address as it is now, ready to be changed; ``None`` if it is busy, or cannot be read."""
        if id in target.blocked:
            return None
        record = target.records.young.get(id)
        if record is None:
            try:
                record = self._table.load(target.records, id)
            except PayloadTypeError:
                return None
        return record

    @staticmethod
    def _exists(target: FunctionType, record: Any) -> bool:
        """False if it is deleted, and the store only has not heard of it yet."""
        function = target.function
        return function.encode_values(function.values_of(record)) is not None

    def _write(self, record: Any, hidden: Plain | None) -> None:
        if record._epoch is not self._table.epoch:  # noqa: SLF001
            self._table.touch(record)
        record._hidden = hidden  # noqa: SLF001
        self._table.mark_dirty(record)
        self.expired += 1

    def _expire_record(self, target: FunctionType, id: str) -> Step:
        record = self._record(target, id)
        if record is None or target.copies is None:
            return
        spec, now_ms = target.function.spec, self._dispatcher.now_ms
        idle_ms, hidden = spec.options.expire_idle_ms, record._hidden  # noqa: SLF001
        if idle_ms is not None:
            deadline = None if hidden is None else hidden.get(IDLE)
            if deadline is None:
                if self._exists(target, record):  # stored before this was declared: its time begins now
                    self._write(record, with_idle(hidden, now_ms + idle_ms))
                return
            if deadline <= now_ms:
                yield from self._bury(target, id)
                return
        if hidden is None:
            return
        over = [name for name, deadline in hidden.get(DEADLINES, {}).items() if deadline <= now_ms]
        buffers = hidden.get(BOUNDS, {})
        values = [name for name in over if name not in buffers]
        if values:  # also of fields that are not declared to expire any more: their deadlines mean nothing
            self._write(record, with_parts(hidden, DEADLINES, dict.fromkeys(values, None)))
            for field in spec.fields:
                if field.name in values and field.expiry is not None:
                    self._reset(target, record, field)
        for name, bounds in buffers.items():
            if name in over or len(bounds) > 2:
                yield from self._trim(target, id, name, whole=name in over)

    @staticmethod
    def _reset(target: FunctionType, record: Any, field: Any) -> None:
        if field.immutable:
            setattr(record, field.name, field.default)
        else:
            target.function.set_mutable(record, field, field.encode(default_of(field)))

    def _trim(self, target: FunctionType, id: str, name: str, *, whole: bool) -> Step:
        """Remove the elements of a buffer that have expired, or all of them."""
        while True:
            if self._done >= self._limits.expiry_keys:  # what came before has used up this piece
                yield
            record = self._record(target, id)
            hidden: Plain | None = None if record is None else record._hidden  # noqa: SLF001
            bounds = None if hidden is None else hidden.get(BOUNDS, {}).get(name)
            if record is None or hidden is None or bounds is None:
                return
            if whole and hidden.get(DEADLINES, {}).get(name, self._dispatcher.now_ms + 1) > self._dispatcher.now_ms:
                return  # used in between
            prefix = cells_prefix(record._key[:2], BUFFER_KIND, record._address, name)  # noqa: SLF001
            first, after = bounds[0], bounds[1]
            while first < after and self._done < self._limits.expiry_keys:
                suffix = number_suffix(first)
                raw = self._cells.get(prefix, suffix)
                if not whole and raw is not None and living(raw, self._dispatcher.now_ms) is not None:
                    after = first
                    break
                self._cells.put(prefix, suffix, None)
                self._done += 1
                first += 1
            self._done += SEEK_KEYS
            if first == bounds[0]:
                return
            empty = first == bounds[1]
            hidden = with_parts(hidden, BOUNDS, {name: None if empty else [first, *bounds[1:]]})
            self._write(record, with_parts(hidden, DEADLINES, {name: None}) if empty else hidden)
            if first == after:
                return
            yield

    def _bury(self, target: FunctionType, id: str) -> Step:
        """Delete an instance that was idle for too long."""
        record = self._record(target, id)
        assert record is not None
        self._write(record, with_idle(record._hidden, 0))  # noqa: SLF001 - dead, whatever the clock does
        slot, address = record._key[:2], record._address  # noqa: SLF001
        for kind, name in self._collections(target, slot, address):
            prefix, start = cells_prefix(slot, kind, address, name), b""
            while True:
                for suffix, _ in self._cells.scan(prefix, start):
                    self._cells.put(prefix, suffix, None)
                    self._done += 1
                    start = suffix
                    if self._done >= self._limits.expiry_keys:
                        break
                else:
                    break
                self.expired += 1
                yield
                record = self._record(target, id)
                if record is None or record._hidden is None or record._hidden.get(IDLE) != 0:  # noqa: SLF001
                    return  # a message has come in between, and found it empty
        self._write(record, None)
        for field in target.function.spec.fields:
            self._reset(target, record, field)

    def _collections(self, target: FunctionType, slot: bytes, address: Any) -> Iterator[tuple[bytes, str]]:
        """Kind and name of everything that an address has in cells, registrations behind what was registered."""
        for item in target.function.spec.collections:
            if item.kind != "registry":
                yield COLLECTION_KINDS[item.kind], item.name
                continue
            for suffix, raw in list(self._cells.scan(cells_prefix(slot, REGISTERED_KIND, address, item.name))):
                kind = COLLECTION_KINDS.get(cbor2.loads(value_in(raw))[KIND])
                if kind is not None:
                    yield kind, f"{item.name}.{suffix.decode()}"
            yield REGISTERED_KIND, item.name


def _candidates(dispatcher: Dispatcher) -> dict[str, CompiledFunction]:
    """The functions of which something may expire. Names of a namespace are looked at together."""
    found = dict(dispatcher.namespaces.declared)
    of_namespaces = [function.record_class for function in found.values()]
    found |= {
        target.typename: target.function for target in dispatcher.order if target.function.record_class not in of_namespaces
    }
    return {name: function for name, function in found.items() if _declares_expiry(function) or _has_registry(function)}


def _has_registry(function: CompiledFunction) -> bool:
    return any(item.kind == "registry" for item in function.spec.collections)


def _declares_expiry(function: CompiledFunction) -> bool:
    return any(True for _ in _declared_times(function))


def _declared_times(function: CompiledFunction) -> Iterator[int]:
    spec = function.spec
    if spec.options.expire_idle_ms is not None:
        yield spec.options.expire_idle_ms
    for expiry in (*(field.expiry for field in spec.fields), *(item.expiry for item in spec.collections)):
        if expiry is not None:
            yield expiry.ttl_ms


def _times_to_live(function: CompiledFunction) -> Iterator[int]:
    yield from _declared_times(function)
    yield 1 << 62  # of registered states nothing is known


def _ranges(name: str, function: CompiledFunction) -> Iterator[tuple[bytes, str]]:
    """What the keys of a slot begin with, behind the slot, if they are to be looked at; and the name of the function."""
    spec = function.spec
    text = (name[:-1] if name.endswith(EVERY_NAME) else name + "\0").encode()
    registry = _has_registry(function)
    records = spec.options.expire_idle_ms is not None or any(field.expiry is not None for field in spec.fields)
    records |= any(item.kind == "buffer" and item.expiry is not None for item in spec.collections)
    if registry or any(item.kind == "map" and item.expiry is not None for item in spec.collections):
        yield MAP_KIND + text, name
    if registry:
        yield REGISTERED_KIND + text, name
    if registry or records:
        yield STATE_KIND + text, name
