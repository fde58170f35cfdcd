"""Looks into a shard without touching it: the state of an address, the addresses that have some, the dead letters."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import cbor2

from shardfun.core.cell_keys import stored_address
from shardfun.core.cells import Stored
from shardfun.core.function import DEAD_LETTER_KIND, STATE_KIND, CollectionSpec
from shardfun.core.function_type import FunctionType
from shardfun.core.shard import ShardCore
from shardfun.errors import PayloadTypeError, nearest
from shardfun.model.letters import DeadLetter, letter_of


def state_of(core: ShardCore, store: Stored, typename: str, id: str) -> SimpleNamespace:
    """The state of an address now: values as they are, maps as dicts, buffers as lists. Changing it changes nothing."""
    target = core.dispatcher.resolve(typename)
    record = _record(store, target, id)
    if target.copies is None:
        fields = target.function.spec.fields
        return SimpleNamespace(
            **{field.name: field.from_plain(cbor2.loads(field.encode(getattr(record, field.name)))) for field in fields}
        )
    state = target.copies.begin(record, core.table.cells, core.dispatcher.now_ms)
    spec = target.function.spec
    found = {field.name: getattr(state, field.name) for field in spec.fields}
    for item in spec.collections:
        found[item.name] = _collection(item, getattr(state, item.name))
    return SimpleNamespace(**found)


def _collection(item: CollectionSpec, collection: Any) -> Any:
    if item.kind == "map":
        return dict(collection.items())
    return list(collection.view()) if item.kind == "buffer" else collection.names()


def _record(store: Stored, target: FunctionType, id: str) -> Any:
    """The record of an address, wherever it is; one that is not in memory is not put there."""
    found = target.records.find(id)
    if found is None:
        blocked = target.blocked.get(id)
        found = None if blocked is None else blocked.record
    if found is None:
        found = target.function.blank(id)
        target.function.fill(found, store.get(found._key))  # noqa: SLF001 - a record's key has no public name: users see records
    return found


def set_state(core: ShardCore, typename: str, id: str, values: Mapping[str, Any]) -> None:
    """Give an address a state, as if functions had made it.

    Raises:
        PayloadTypeError: there is no such field, or a value does not fit its declaration.
    """
    target = core.dispatcher.resolve(typename)
    spec = target.function.spec
    known = [field.name for field in spec.fields] + [item.name for item in spec.collections]
    for name in values:
        if name not in known:
            raise PayloadTypeError(f"state of {typename}: there is no field {name!r}{nearest(name, known)}")
    record = core.table.load(target.records, id)
    if target.copies is not None:
        state = target.copies.begin(record, core.table.cells, core.dispatcher.now_ms)
        for name, value in values.items():
            _set(spec.collections, state, name, value)
        target.copies.commit(state, core.table)
        return
    core.table.touch(record)
    for field in spec.fields:
        if field.name in values:
            encoded = field.encode(values[field.name])
            if field.immutable:
                setattr(record, field.name, field.from_plain(cbor2.loads(encoded)))
            else:
                target.function.set_mutable(record, field, encoded)
    core.table.mark_dirty(record)


def _set(collections: tuple[CollectionSpec, ...], state: Any, name: str, value: Any) -> None:
    found = next((item for item in collections if item.name == name), None)
    if found is None:
        setattr(state, name, value)
    elif found.kind == "map":
        getattr(state, name).update(value)
    elif found.kind == "buffer":
        getattr(state, name).replace(list(value))
    else:
        raise PayloadTypeError(f"state field {name!r}: a registry cannot be given; let the function make it")


def addresses_of(core: ShardCore, store: Stored, typename: str) -> list[str]:
    """The ids of a function type that have state now, in order: a record, or a part of a collection."""
    target = core.dispatcher.resolve(typename)
    function, records = target.function, target.records
    live = records.all()
    live |= {id: blocked.record for id, blocked in target.blocked.items() if blocked.record is not None}
    found = {id for id, record in live.items() if function.encode_values(function.values_of(record)) is not None}
    for key in _stored(core, store):
        address = stored_address(key)
        if address is not None and address.typename == typename and (key[2:3] != STATE_KIND or address.id not in live):
            found.add(address.id)
    return sorted(found)


def _stored(core: ShardCore, store: Stored) -> dict[bytes, bytes]:
    """Everything but records as it is now; records as of the last checkpoint."""
    everything = {**dict(store.scan()), **core.table.cells.unapplied()}
    return {key: raw for key, raw in everything.items() if raw is not None}


def dead_letters_of(core: ShardCore, store: Stored) -> list[DeadLetter]:
    """The dead letters of a shard, oldest first."""
    found = [(key, raw) for key, raw in _stored(core, store).items() if key[2:3] == DEAD_LETTER_KIND]
    return [letter_of(key, raw) for key, raw in sorted(found, key=lambda item: item[0][3:])]
