"""Targets: what shards, supervisor and other processes send each other (``shardfun.model``), and what it is made of."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import cbor2
import msgspec
from fuzz_registry import Target

from shardfun.errors import PayloadTypeError, ProtocolError
from shardfun.model import control
from shardfun.model.address import Address
from shardfun.model.cbor import load_cbor
from shardfun.model.columns import Batch, check_block, decode_block, encode_block
from shardfun.model.control import decode_to_shard, decode_to_supervisor, encode_control
from shardfun.model.frames import Data, Frame, decode_frame, encode_frame
from shardfun.model.payload import END, Encoded, Payloads, PayloadType, payload_type, payload_types
from shardfun.model.scalars import decode_scalars
from shardfun.model.upgrade import Upgrade


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Item(msgspec.Struct, frozen=True):
    number: int
    name: str
    weight: float | None = None


class Deep(msgspec.Struct, frozen=True):
    colour: Colour
    items: tuple[Item, ...] = ()


@dataclasses.dataclass
class Order:
    lines: list[Item]
    notes: dict[str, int]


def _older(version: int, fields: dict[str, Any]) -> dict[str, Any]:
    return {"number": fields.get("n", version), **{name: value for name, value in fields.items() if name != "n"}}


ITEM = payload_type(Item, "t/t")
UPGRADED = ITEM.upgraded_by(Upgrade(ITEM.name, 3, _older, ("old.Item",)))
PAYLOADS = Payloads((UPGRADED, *payload_types(int | str | float | Deep | Order | list[int] | bytes | None, "t/t")), "t/t")
ANY = Payloads((), "t/any")


def _values() -> list[Any]:
    order = Order([Item(1, "a")], {"x": 1})
    return [
        1,
        "text",
        2.5,
        Item(1, "n"),
        Deep(Colour.RED, (Item(2, "m", 0.5),)),
        b"raw",
        None,
        *map(PAYLOADS.prepare, ([1, 2], order)),
    ]


def _batches() -> list[Batch]:
    values = _values()
    senders = [None, Address("s/s", "1"), *[Address("s/t", str(number)) for number in range(len(values) - 2)]]
    ids = [f"i{number}" for number in range(len(values))]
    alike = [[value] * 3 for value in values] + [[END] * 2, [10**30, -5], [1.5, float("nan")]]
    return [
        Batch(ids, senders, None, values),
        Batch(["nul\0", "x"], [Address("s/s", "a\0"), None], None, ["a\0b", 2]),
        *(Batch([f"{number}" for number in range(len(same))], ["q"] * len(same), "s/s", same) for same in alike),
    ]


def blocks() -> list[list[Any]]:
    """Blocks of all kinds of values."""
    earlier = ["t/t", "1\x002", None, None, [["old.Item", [{"n": 4, "name": "x"}, {"name": "y"}]]], None]
    newer = ["t/t", "1", None, None, [[f"{ITEM.name}@9", [{"n": 4}]]], None]
    any_value = encode_block("t/any", ANY, Batch(["a", "b"], None, None, [ANY.prepare({"a": [1, {}]}), 7]))
    return [*(encode_block("t/t", PAYLOADS, batch) for batch in _batches()), earlier, newer, any_value]


# ---- frames --------------------------------------------------------------------------------------------------------------
def _messages_of(block: list[Any]) -> None:
    """Decode all columns of a block, as executing and as restoring it does; both must agree on how many messages there are."""
    for payloads in (PAYLOADS, ANY):
        for stored in (False, True):
            batch, bad = decode_block(payloads, block, stored=stored)
            assert len(batch.ids) == len(batch.values)
            assert all(type(id) is str for id in batch.ids)
            for value in batch.values:
                if type(value) is Encoded:  # what a user's function would be given
                    try:
                        value.type.decode(value.data)
                    except PayloadTypeError:
                        assert not stored, "a stored value is looked at when it is restored"
            for message in bad:
                assert type(message.id) is str
                assert message.reason


def _frame(data: bytes) -> Frame:
    frame = decode_frame(data)
    if type(frame.body) is Data:
        for block in frame.body.blocks:
            try:
                _messages_of(block)
            except ProtocolError:
                continue
    return frame


def _encode_frame(frame: Frame) -> bytes:
    match frame.body:
        case Data():
            return encode_frame(*frame[:3], frame.body.blocks)
        case body:
            parts: list[Any] = [type(body).__name__.lower(), *body]
            return encode_frame(*frame[:3], [parts[0], *parts[2:]] if parts[0] == "barrier" else parts)


def _frames() -> list[bytes]:
    bodies: list[list[Any]] = [
        ["barrier", 4],
        ["credit", 4],
        ["hello", 2, "nonce"],
        [],
        blocks(),
        *([block] for block in blocks()),
    ]
    return [encode_frame(3, number, (3 << 32) | 1, body) for number, body in enumerate(bodies)]


def _block(data: bytes) -> Any:
    try:
        block = load_cbor(data)
    except ValueError as error:
        raise ProtocolError("not CBOR") from error
    check_block(block)
    _messages_of(block)
    return block


def _column(data: bytes) -> Any:
    """Columns of each payload type, where any exception says "no": the caller looks at the values one by one."""
    try:
        column = load_cbor(data)
    except ValueError as error:
        raise ProtocolError("not CBOR") from error
    try:
        return list(decode_scalars(column))
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError("not a column") from error


# ---- payloads ------------------------------------------------------------------------------------------------------------
def _payload(data: bytes) -> Any:
    """One value of each type: what comes with a message from outside, or is stored."""
    found: list[Any] = []
    for payloads in (PAYLOADS, ANY):
        for name, described in payloads.by_name.items():
            try:
                if isinstance(described, PayloadType):
                    value = described.decode(data)
                    described.encode(value)
                else:
                    value = described.decode_item(data)
            except PayloadTypeError:
                continue
            found.append((name, value))
    return found


def _payload_seeds() -> list[bytes]:
    found = [cbor2.dumps({"n": 3, "name": "z"})]
    for value in [*_values()[:-2], 10**40, {"a": [1, None, {"b": b"c"}]}, [1, 2, 3], True]:
        for payloads in (PAYLOADS, ANY):
            described = payloads.by_class.get(type(value))
            if described is not None:
                found.append(described.encode(value))
    return [*found, PAYLOADS.by_class[Order].encode(Order([Item(1, "a")], {"x": 1}))]


# ---- control messages ----------------------------------------------------------------------------------------------------
def to_shard() -> list[control.ToShard]:
    """One of each, and some more."""
    return [
        control.Assign(1, 4, "ab" * 16, "/data"),
        control.Reset(
            3, 7, b"d" * 16, "nonce", careful=True, poison=[control.Poison(b"k" * 16, 3, "died")], suspects=[b"k" * 16]
        ),
        control.Start(3, {1: "ipc:///x"}),
        control.Trigger(3, 8),
        control.Abort(3, 8),
        control.Complete(3, 8, end=True),
        control.Finish(3),
        control.Letters(3, 5, "list", [], None, 10),
        control.Letters(3, 6, "replay", [b"\0\0d" + bytes(14)], "a/b", 1),
        control.LookAt(3, 7, "a/b", "é", "live", None, None, 10),
        control.LookAt(3, 8, "a/b", "1", "checkpoint", "prices", "bUFB", 1),
        control.ListIds(3, 9, "a/b", 5, b"\xff", 100),
    ]


def to_supervisor() -> list[control.ToSupervisor]:
    """One of each."""
    ends = {"at_end": True, "quiet": False, "ended": False, "published": True}
    return [
        control.Warm(17),
        control.Ready(3, {2: "tcp://127.0.0.1:1"}, ["note"]),
        control.Prepared(3, 8, b"d" * 16, 1000, 10, **ends, loop_s=0.5, positions={"in": {"offset": 7}}, parked=[b"k" * 16]),
        control.LettersDone(3, 5, [(b"\0\0d" + bytes(14), b"content")], 7, ["", "missing"], 8, ""),
        control.Found(3, 7, b"{}", "", ""),
        control.Refused(3, 8, "disk full"),
        control.Applied(3, 8),
        control.Changed(3, urgent=True),
        control.Loss(3, 1, "gap"),
        control.Fatal("backlog-limit", 7, "too much", "trace"),
        control.Heartbeat(3, 0.0, "", 1, 2, 3, 4, 5, 6, 7, 8, 9.5, metrics=[["a/b", "hits", "counter", 3]], troubles=["x"]),
    ]


TARGETS = (
    Target(
        "frame",
        _frame,
        (ProtocolError,),
        _frames,
        _encode_frame,
        words=(b"gbarrier", b"fcredit", b"ehello", b"\xd8\x4f", b"\xd8\x56"),
    ),
    Target("block", _block, (ProtocolError,), lambda: list(map(cbor2.dumps, blocks()))),
    Target("column", _column, (ProtocolError,), lambda: [cbor2.dumps(column) for block in blocks() for _, column in block[4]]),
    Target("payload", _payload, (), _payload_seeds),
    Target(
        "control-to-shard", decode_to_shard, (ProtocolError,), lambda: list(map(encode_control, to_shard())), encode_control
    ),
    Target(
        "control-to-supervisor",
        decode_to_supervisor,
        (ProtocolError,),
        lambda: list(map(encode_control, to_supervisor())),
        encode_control,
    ),
)
