"""The state that a node has left in its data directory, as plain values, and what differs between two of them.

Left out is what may differ between two undisturbed runs: when a timer is due, a value expires, or a letter was parked, and the
runtime's own instances. The elements of a buffer, and those of a set that a field is declared to be, are compared without their order.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import cbor2

from shardfun.core.cell_keys import BUFFER_KIND, parse_cell_key, stored_address, value_in
from shardfun.core.function import DEAD_LETTER_KIND, HIDDEN, STATE_KIND
from shardfun.core.timer_cells import StoredTimer
from shardfun.core.timer_index import TIMER_PREFIX
from shardfun.errors import CorruptionError
from shardfun.model.address import RESERVED_NAMESPACE
from shardfun.model.letters import letter_of, plain
from shardfun.sdk.app import App
from shardfun.state.directory import DataDirectory
from shardfun.state.store import LevelDBStore
from shardfun.testing.declared import Declared

DESCRIBED_MAX: Final = 10
SHOWN_MAX: Final = 200


@dataclass(slots=True)
class StoredWorld:
    """Everything that is stored.

    Args:
        addresses: the parts of the state of each address: fields, entries of maps, registered values; as JSON.
        elements: of buffers; ``timers`` that are pending; ``letters``: dead ones. How many there are of each.
        reasons: of dead letters; not compared, since they may hold a time or a path.
    """

    addresses: dict[str, dict[str, str]] = field(default_factory=dict)
    elements: Counter[str] = field(default_factory=Counter)
    timers: Counter[str] = field(default_factory=Counter)
    letters: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)


def read_world(data_dir: Path, app: App) -> StoredWorld:
    """What a node that has ended has stored. The store is opened as a start would, and may be changed by that.

    Args:
        app: that has stored it.

    Raises:
        CorruptionError: it is damaged.
        StorageError: it cannot be read.
    """
    directory = DataDirectory(data_dir)
    identity = directory.identity()
    world, declared = StoredWorld(), Declared(app)
    if identity is None:
        return world
    manifest = directory.manifests.newest(identity.job)
    if manifest is None:
        return world
    for shard in range(identity.shards):
        store = LevelDBStore.open(directory.shard(shard), job=identity.job, shard=shard, shards=identity.shards)
        try:
            store.recover(manifest.checkpoint, manifest.digest(shard))
            for key, raw in store.scan():
                if key.startswith(TIMER_PREFIX):
                    _add_timer(world, key, raw)
                else:
                    _add(world, declared, key, raw)
        finally:
            store.close()
    return world


def _add(world: StoredWorld, declared: Declared, key: bytes, raw: bytes) -> None:
    kind = key[2:3]
    if kind == DEAD_LETTER_KIND:
        letter = letter_of(key, raw)
        world.letters[f"{letter.target} {letter.payload_type} {_json(letter.payload)}"] += 1
        world.reasons[letter.reason] += 1
        return
    address = stored_address(key)
    if address is None or address.typename.startswith(f"{RESERVED_NAMESPACE}/"):
        return

    def comparable(name: str, value: Any) -> str:
        return _json(plain(declared.comparable(address.typename, name, value)))

    parts = world.addresses.setdefault(str(address), {})
    if kind == STATE_KIND:
        record = _decoded(raw)
        values = {name: value for name, value in record.items() if not name.startswith(HIDDEN)}
        parts |= {name: comparable(name, value) for name, value in values.items()}
        return
    cell = parse_cell_key(key)
    assert cell is not None
    value = comparable(cell.name, _decoded(value_in(raw)))
    if kind == BUFFER_KIND:
        world.elements[f"{address} {cell.name}: {value}"] += 1
    else:
        parts[f"{cell.name}[{cell.suffix!r}]"] = value


def _add_timer(world: StoredWorld, key: bytes, raw: bytes) -> None:
    timer = StoredTimer(key[len(TIMER_PREFIX) :], raw)
    token = "" if timer.token is None else f", token {timer.token!r}"
    payload = _json(plain(timer.plain_payload))
    world.timers[f"{timer.typename}:{timer.id} {timer.payload_type} {payload} from {timer.sender}{token}"] += 1


def _decoded(raw: bytes) -> Any:
    try:
        return cbor2.loads(raw)
    except Exception as error:  # CBOR's semantic tags raise what they like
        raise CorruptionError(f"a stored value is damaged: {error!r:.200}") from error


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def compare_worlds(calm: StoredWorld, chaos: StoredWorld) -> list[str]:
    """What differs, one sentence each."""
    found = []
    different = [place for place in sorted(calm.addresses.keys() | chaos.addresses.keys()) if _differs(calm, chaos, place)]
    for place in different[:DESCRIBED_MAX]:
        expected, there = calm.addresses.get(place), chaos.addresses.get(place)
        if there is None:
            found.append(f"state of {place}: missing; expected {_shown(expected or {})}")
        elif expected is None:
            found.append(f"state of {place}: expected none, got {_shown(there)}")
        else:
            found.append(f"state of {place}: {_parts(expected, there)}")
    if len(different) > DESCRIBED_MAX:
        found.append(f"state of {len(different) - DESCRIBED_MAX} more addresses differs")
    for what, wanted, there_are in (
        ("element of a buffer", calm.elements, chaos.elements),
        ("pending timer", calm.timers, chaos.timers),
        ("dead letter", calm.letters, chaos.letters),
    ):
        found += [f"{what} missing: {text[:SHOWN_MAX]}" for text in sorted(wanted - there_are)[:DESCRIBED_MAX]]
        found += [f"{what} too many: {text[:SHOWN_MAX]}" for text in sorted(there_are - wanted)[:DESCRIBED_MAX]]
    return found


def _differs(calm: StoredWorld, chaos: StoredWorld, place: str) -> bool:
    return calm.addresses.get(place) != chaos.addresses.get(place)


def _shown(parts: Mapping[str, str]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in parts.items())[:SHOWN_MAX]


def _parts(expected: Mapping[str, str], there: Mapping[str, str]) -> str:
    changed = [name for name in dict.fromkeys([*expected, *there]) if expected.get(name) != there.get(name)]
    texts = [f"{name}: expected {expected.get(name, 'nothing')}, got {there.get(name, 'nothing')}" for name in changed]
    return "; ".join(texts)[: 2 * SHOWN_MAX]
