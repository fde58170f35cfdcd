"""Frames and control messages: what was sent comes out; of anything else only ``ProtocolError``."""

from __future__ import annotations

import contextlib
from typing import Any

import cbor2
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardfun.errors import ProtocolError
from shardfun.model import control, frames
from shardfun.model.address import Address
from shardfun.model.columns import Batch, decode_block, encode_block
from shardfun.model.control import decode_to_shard, decode_to_supervisor, encode_control
from shardfun.model.frames import Barrier, Credit, Data, Frame, Hello, decode_frame, encode_frame
from shardfun.model.payload import Payloads, payload_types


class Item(msgspec.Struct, frozen=True):
    number: int
    name: str


PAYLOADS = Payloads(payload_types(int | str | Item | list | None, "t/t"), "t/t")
MIXED = Batch(
    ["a", "b\0", "c", "d", "e"],
    [None, Address("s/s", "1"), Address("s/t", "2"), None, None],
    None,
    [1, "x", Item(1, "n"), PAYLOADS.prepare([1]), None],
)
BLOCKS = [
    encode_block("t/t", PAYLOADS, MIXED),
    encode_block("t/t", PAYLOADS, Batch(["a", "b"], None, None, [Item(1, "n"), Item(2, "m")])),
]
FRAME = encode_frame(3, 7, (3 << 32) | 1, BLOCKS)


def test_data() -> None:
    frame = decode_frame(FRAME)
    assert frame[:3] == (3, 7, (3 << 32) | 1)
    assert type(frame.body) is Data
    assert frame.body.blocks == BLOCKS
    assert frame.body.messages == 7
    assert frame.body.raw is FRAME
    assert decode_frame(encode_frame(1, 1, 0, [])).body == Data([], 0, encode_frame(1, 1, 0, []))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (["barrier", 4], Barrier(9, 4)),
        (["credit", 4], Credit(4)),
        (["hello", 2, "nonce"], Hello(2, "nonce")),
    ],
)
def test_control_bodies(body: list[Any], expected: Any) -> None:
    assert decode_frame(encode_frame(1, 2, 9, body)) == Frame(1, 2, 9, expected)


@pytest.mark.parametrize(
    "item",
    [
        None, [], {}, "frame", [1, 2, 3], [1, 2, 3, {}], [1, 2, 3, [], 5], [-1, 2, 3, []], [1, True, 3, []], [1, 2, 3.0, []],
        [1, 2, 3, ["barrier"]], [1, 2, 3, ["barrier", "x"]], [1, 2, 3, ["barrier", True]], [1, 2, 3, ["barrier", -1]],
        [1, 2, 3, ["credit", -1]], [1, 2, 3, ["hello", -1, "n"]], [1, 2, 3, ["hello", 1, b"n"]],
        [1, 2, 3, ["other"]], [1, 2, 3, [5]], [1, 2, 3, [["t/t", "x"]]],
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_frame(item: Any) -> None:
    with pytest.raises(ProtocolError):
        decode_frame(cbor2.dumps(item))


def test_a_frame_that_is_too_large_is_not_even_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "FRAME_BYTES_MAX", 10)
    with pytest.raises(ProtocolError, match="expected at most 10"):
        decode_frame(FRAME)


MESSAGES = [
    control.Assign(1, 4, "ab" * 16, "/data"),
    control.Reset(3, 7, b"d" * 16, "nonce"),
    control.Reset(3, 7, b"", "nonce", careful=True, poison=[control.Poison(b"k" * 16, 3, "died")]),
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
    control.Warm(17),
    control.Ready(3, {2: "tcp://127.0.0.1:1"}, ["note"]),
    control.Prepared(
        3,
        8,
        b"d" * 16,
        1000,
        10,
        at_end=True,
        quiet=False,
        ended=False,
        published=True,
        loop_s=0.5,
        positions={"in": {"offset": 7}},
        parked=[b"k" * 16],
    ),
    control.LettersDone(3, 5, [(b"\0\0d" + bytes(14), b"content")], 7, ["", "missing"], 8, ""),
    control.Found(3, 7, b"{}", "", ""),
    control.Refused(3, 8, "disk full"),
    control.Applied(3, 8),
    control.Changed(3, urgent=True),
    control.Loss(3, 1, "gap"),
    control.Fatal("ingress", 6, "gone", ""),
    control.Heartbeat(3, 0.1, "a/b", 1, 2, 3, 4, 5, 6, 7, 8, 0.5),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_control_round_trip_in_one_direction_only(message: Any) -> None:
    to_shard = isinstance(message, control.ToShard)
    right, wrong = (decode_to_shard, decode_to_supervisor) if to_shard else (decode_to_supervisor, decode_to_shard)
    raw = encode_control(message)
    assert right(raw) == message
    with pytest.raises(ProtocolError):
        wrong(raw)


def test_all_control_messages_are_tested() -> None:
    assert set(map(type, MESSAGES)) == {*control.ToShard.__args__, *control.ToSupervisor.__args__}


@pytest.mark.parametrize("decode", [decode_to_shard, decode_to_supervisor])
def test_a_control_message_that_is_too_large(decode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "CONTROL_BYTES_MAX", 3)
    with pytest.raises(ProtocolError, match="expected at most 3"):
        decode(encode_control(control.Applied(1, 2)))


# ---- arbitrary and damaged bytes -----------------------------------------------------------------------------------------
@st.composite
def damaged(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    raw = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        position = draw(st.integers(0, len(raw) - 1))
        match draw(st.integers(0, 3)):
            case 0:
                raw[position] = draw(st.integers(0, 255))
            case 1:
                raw[position] ^= 1 << draw(st.integers(0, 7))
            case 2:
                raw[position:position] = draw(st.binary(min_size=1, max_size=4))
            case _:
                del raw[position : position + draw(st.integers(1, 3))]
        raw = raw or bytearray(b"\0")
    return bytes(raw)


def take_apart(raw: bytes) -> None:
    try:
        frame = decode_frame(raw)
        if type(frame.body) is Data:
            for block in frame.body.blocks:
                batch, undecodable = decode_block(PAYLOADS, block)
                assert len(batch.ids) == len(batch.values)
                assert all(type(id) is str for id in batch.ids)
                assert all(type(message.id) is str for message in undecodable)
    except ProtocolError:
        pass


@given(st.binary(max_size=60) | damaged([FRAME, *(encode_frame(1, 1, 0, [block]) for block in BLOCKS)]))
@settings(max_examples=400)
def test_damaged_frames(raw: bytes) -> None:
    take_apart(raw)


@given(st.recursive(
    st.integers() | st.text(max_size=3) | st.binary(max_size=3) | st.none() | st.booleans() | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=3), max_leaves=12,
))  # fmt: skip
@settings(max_examples=200)
def test_well_formed_nonsense(item: Any) -> None:
    take_apart(cbor2.dumps([1, 1, 0, item]))
    take_apart(cbor2.dumps([1, 1, 0, [["t/t", "a", None, None, item, None]]]))
    take_apart(cbor2.dumps([1, 1, 0, [["t/t", "a", None, None, [["int", item]], None]]]))


@given(st.binary(max_size=60) | damaged([encode_control(message) for message in MESSAGES]))
@settings(max_examples=300)
def test_damaged_control_messages(raw: bytes) -> None:
    for decode in (decode_to_shard, decode_to_supervisor):
        with contextlib.suppress(ProtocolError):
            assert isinstance(decode(raw), msgspec.Struct)


@pytest.mark.parametrize("decode", [decode_frame, decode_to_shard])
def test_nesting_beyond_all_limits(decode: Any) -> None:
    with pytest.raises(ProtocolError):
        decode(b"\x81" * 100_000 + b"\0")
    with pytest.raises(ProtocolError):
        decode(b"\x9b" + b"\xff" * 8)
    with pytest.raises(ProtocolError):
        decode(b"\xd8\x1c\x81\xd8\x1d\x00")  # a list that holds itself
