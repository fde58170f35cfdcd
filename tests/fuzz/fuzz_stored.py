"""Targets: what a shard has stored (``shardfun.core``): records, cells, timers, queues. LevelDB and the deltas check their bytes; what
gets this far was written by an earlier release or by a broken machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cbor2
import msgspec
from fuzz_model import PAYLOADS, blocks
from fuzz_registry import Target, joined, pieces

from shardfun import App, Buffer, Context, Map, Registry, State, Value, after_write, buffer, mapping, registry, value
from shardfun.cli.stored_state import AddressCounter, collections_of
from shardfun.core.cell_keys import (
    BUFFER_KIND,
    MAP_KIND,
    REGISTERED_KIND,
    cells_prefix,
    number_suffix,
    parse_cell_key,
    stamped,
    stored_address,
)
from shardfun.core.function import CompiledFunction, parse_state_key, state_key
from shardfun.core.looking import NOTHING, Wanted, look
from shardfun.core.snapshot import Cut, Queues, decode_queues, encode_queues
from shardfun.core.timer_cells import StoredTimer
from shardfun.errors import ConfigurationError, CorruptionError, PayloadTypeError, StorageError, UnknownTargetError
from shardfun.model.address import Address
from shardfun.model.columns import Batch
from shardfun.model.keyspace import slot_of
from shardfun.model.ordered_keys import key_type
from shardfun.model.questions import StateAnswer

app = App("fuzz")


class Price(msgspec.Struct, frozen=True):
    amount: int
    unit: str = "EUR"


class Shelf(State):
    count: Value[int] = value(0)
    names: Value[list[str]] = value(default_factory=list)
    last: Value[Price | None] = value(None, expire=after_write(hours=1))
    prices: Map[str, Price] = mapping(expire=after_write(hours=1))
    log: Buffer[int] = buffer()
    extra: Registry = registry()


@app.function("fuzz/shelf")
def shelf(ctx: Context[Shelf], message: int | str) -> None:
    ctx.state.count += 1


(SHELF,) = (
    function for function in app.compile() if isinstance(function, CompiledFunction) and function.spec.typename == "fuzz/shelf"
)
ADDRESS = Address("fuzz/shelf", "1")
SLOT = slot_of("1").to_bytes(2, "big")
KEY = key_type(str, "key")
RECORD = cbor2.dumps({"count": 3, "names": ["a"], "last": {"amount": 5}, "~": {"b": {"log": [0, 2]}, "x": {"last": 10**13}}})
REGISTRATION = cbor2.dumps({"kind": "value", "type": "int", "value": 4})
KINDS = (
    (MAP_KIND, "prices"),
    (BUFFER_KIND, "log"),
    (REGISTERED_KIND, "extra"),
    (MAP_KIND, "extra.m"),
    (BUFFER_KIND, "extra.b"),
)


class PlayedStore:
    """What is stored, as a dictionary."""

    def __init__(self, stored: dict[bytes, bytes]) -> None:
        self._stored = stored

    def get(self, key: bytes) -> bytes | None:
        return self._stored.get(key)

    def scan(self, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        return iter(sorted((key, raw) for key, raw in self._stored.items() if key.startswith(prefix) and key >= prefix + start))


def _record(data: bytes) -> Any:
    record = SHELF.blank("1")
    SHELF.fill(record, data)
    return SHELF.values_of(record)


def _store(data: bytes) -> PlayedStore:
    """The record of an address, and a cell of each of its collections."""
    record, *cells = pieces(data, 1 + 2 * len(KINDS))
    stored = {state_key(*ADDRESS): record}
    for (kind, name), suffix, raw in zip(KINDS, cells[::2], cells[1::2], strict=True):
        if raw:
            stored[cells_prefix(SLOT, kind, ADDRESS, name) + suffix] = raw
    return PlayedStore(stored)


def _stores() -> list[bytes]:
    price, number = cbor2.dumps({"amount": 1, "unit": "x"}), number_suffix(0)
    kinds = [cbor2.dumps({"kind": kind, "type": "int"}) for kind in ("value", "map", "buffer")]
    return [
        joined(RECORD, KEY.encode("k"), stamped(price, 10**13), number, b"\x05", b"n", REGISTRATION, KEY.encode("k"), b"\x01", number, b"\x02"),
        *(joined(RECORD, KEY.encode("k"), price, number, b"\x05", name, kind, b"\x02a\0\0", b"\x01", number, b"\x02") for name, kind in
          zip((b"n", b"m", b"b"), kinds, strict=True)),
        joined(cbor2.dumps({}), *[b""] * 9, b""),
    ]  # fmt: skip


def _look(data: bytes) -> list[bytes]:
    """As a running node shows it: the whole, and each part."""
    store = _store(data)
    answers = []
    for part in (None, "prices", "log", "extra", "extra.m", "extra.b"):
        try:
            found = look(SHELF, ADDRESS, NOTHING, store, 10**12, Wanted(part, None, 10))  # type: ignore[arg-type]
            answers.append(msgspec.json.encode(StateAnswer(checkpoint="1.1", **found)))
        except UnknownTargetError:
            continue
    return answers


def _inspect(data: bytes) -> bytes:
    """As ``shardfun inspect`` shows it, without the application."""
    return msgspec.json.encode(collections_of(_store(data), ADDRESS, 10))


def _cell_key(data: bytes) -> Any:
    AddressCounter().add(data)
    parse_state_key(data)
    return parse_cell_key(data), stored_address(data)


def _cell_keys() -> list[bytes]:
    return [
        state_key(*ADDRESS),
        *(cells_prefix(SLOT, kind, ADDRESS, name) + b"suffix" for kind, name in KINDS),
        SLOT + b"d" + bytes(14),
    ]


def _timer(data: bytes) -> Any:
    return StoredTimer(bytes(18), data)


def _timers() -> list[bytes]:
    return [
        cbor2.dumps(["token", "a/b", "1", "a/c", "2", "int", 5]),
        cbor2.dumps([None, "a/b", "1", "a/c", "2", "list", b"\x80"]),
    ]


# ---- queues --------------------------------------------------------------------------------------------------------------
def _cut() -> Cut:
    waiting = [("t/t", PAYLOADS, (Batch(["1", "2"], None, None, [1, "x"]),))]
    return Cut(
        checkpoint=(3 << 32) | 8,
        mailbox=waiting,
        outboxes={1: waiting},
        inbox=[b"frame"],
        positions={"in": {"offset": 7}},
        egress={"out": [1, 20, [b"record"]]},
        emitted={"out": 2},
        at_end=False,
        ended=False,
        dead_letters=1,
        records_in=5,
        invocations=6,
        timers_pending={"t/t": 1},
        timers_lowest=b"low",
        logs={1: [b"logged"]},
    )


def _queues() -> list[bytes]:
    *_, raw = encode_queues(_cut())
    plain = cbor2.loads(raw)
    assert raw is not None
    return [raw, cbor2.dumps(plain | {"mailbox": list(map(cbor2.dumps, blocks()))}), cbor2.dumps(plain | {"format": 1})]


def _encode_queues(queues: Queues) -> bytes:
    plain = msgspec.structs.asdict(queues) | {
        "mailbox": list(map(cbor2.dumps, queues.mailbox)),
        "outboxes": {peer: list(map(cbor2.dumps, each)) for peer, each in queues.outboxes.items()},
    }
    return cbor2.dumps(plain)


_LOOK_ERRORS = (UnknownTargetError, ConfigurationError, PayloadTypeError, CorruptionError, StorageError)
TARGETS = (
    Target("record", _record, (PayloadTypeError,), lambda: [RECORD, cbor2.dumps({}), cbor2.dumps({"count": 1, "gone": [1]})]),
    Target("looked-at", _look, _LOOK_ERRORS, _stores, words=(b"ekind", b"evalue", b"\xd9\x53\x46", b"~")),
    Target(
        "inspected",
        _inspect,
        (CorruptionError, ValueError, LookupError, TypeError),
        _stores,
        words=(b"ekind", b"evalue", b"\xd9\x53\x46"),
    ),
    Target("cell-key", _cell_key, (CorruptionError,), _cell_keys),
    Target("timer", _timer, (CorruptionError,), _timers),
    Target("queues", decode_queues, (CorruptionError,), _queues, _encode_queues),
)
