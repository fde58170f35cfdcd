"""What a checkpoint holds besides changed state, as bytes and back."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from single_core import core_of, put

from shardfun import App, Context
from shardfun.core import snapshot
from shardfun.core.shard import ShardCore
from shardfun.core.snapshot import EMPTY_QUEUES, Queues, decode_queues, encode_queues
from shardfun.errors import CorruptionError
from shardfun.model.doors import PublishedPosition
from shardfun.model.frames import decode_frame, encode_frame


def core() -> ShardCore:
    app = App("snapshots")

    @app.function("t/f")
    def f(ctx: Context, message: int | list[int]) -> None: ...

    return core_of(app, shards=2)


def taken(core: ShardCore) -> tuple[bytes, int]:
    """The encoded cut and the number of pieces it took."""
    pieces = list(encode_queues(core.take_cut(9)))
    assert all(piece is None for piece in pieces[:-1])
    assert pieces[-1] is not None
    return pieces[-1], len(pieces)


def test_everything_that_waits_is_in_it() -> None:
    shard = core()
    put(shard, "t/f", ("a", 1), ("b", [2]))
    shard.dispatcher.types["t/f"].queues[1].append(shard.dispatcher.types["t/f"].mailbox.snapshot()[0])
    raw = encode_frame(1, 1, 0, [["t/f", "c", None, None, [["int", [5]]], None]])
    shard.links[0].receive(decode_frame(raw))
    shard.positions["in"] = {"offset": 7}
    shard.egress["out"].add([(None, "", None, b"r")])
    shard.records_in = 4
    cut = shard.take_cut(9)
    assert not cut.quiet
    cut.logs[1] = [raw, raw]
    queues = decode_queues(list(encode_queues(cut))[-1])
    assert (queues.checkpoint, queues.positions, queues.records_in) == (9, {"in": {"offset": 7}}, 4)
    assert (queues.inbox, queues.logs) == ([raw], {1: [raw, raw]})
    assert queues.egress == {"out": (0, 0, [b"r"])}
    assert queues.mailbox == queues.outboxes[1]
    assert queues.mailbox[0][:2] == ["t/f", "a\0b"]


def test_an_empty_shard_is_quiet() -> None:
    shard = core()
    cut = shard.take_cut(9)
    assert cut.quiet
    assert decode_queues(list(encode_queues(cut))[-1]).mailbox == []
    assert not shard.changed


def test_large_queues_are_encoded_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "ENCODE_MESSAGES", 10)
    shard = core()
    put(shard, "t/f", *[("a", number) for number in range(35)])
    raw, pieces = taken(shard)
    assert pieces == 4 + 1
    assert [len(block[1].split("\0")) for block in decode_queues(raw).mailbox] == [10, 10, 10, 5]


def test_what_happens_after_the_cut_does_not_show() -> None:
    shard = core()
    put(shard, "t/f", ("a", 1), ("a", 2))
    cut = shard.take_cut(9)
    shard.run(1)
    put(shard, "t/f", ("b", 3))
    assert decode_queues(list(encode_queues(cut))[-1]).mailbox[0][1] == "a\0a"


def test_a_restored_shard_cuts_the_same() -> None:
    shard = core()
    put(shard, "t/f", ("a", 1), ("b", [2]))
    raw, _ = taken(shard)
    restored = core()
    restored._restore(decode_queues(raw))
    again, _ = taken(restored)
    assert again == raw
    assert restored.egress["out"].published == PublishedPosition(0, 0)


GOOD = {name: getattr(EMPTY_QUEUES, name) for name in Queues.__struct_fields__}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "queues section"),
        (b"\xff", "queues section"),
        (cbor2.dumps([]), "Expected `object`"),
        (cbor2.dumps({}), "missing required field"),
        (cbor2.dumps(GOOD | {"format": 9}), "expected format 1 or 2, got 9"),
        (cbor2.dumps(GOOD | {"mailbox": [5]}), "mailbox"),
        (cbor2.dumps(GOOD | {"logs": {"x": []}}), "logs"),
        (cbor2.dumps(GOOD | {"egress": {"out": [1, 2]}}), "egress"),
        (b"\x81" * 100_000 + b"\0", "queues section"),
    ],
)
def test_malformed_bytes_are_corruption(raw: bytes, reason: str) -> None:
    with pytest.raises(CorruptionError, match=reason):
        decode_queues(raw)


@given(st.integers(0, 200), st.integers(0, 255), st.binary(max_size=30))
@settings(max_examples=150)
def test_any_bytes_are_queues_or_corruption(position: int, byte: int, arbitrary: bytes) -> None:
    damaged = bytearray(cbor2.dumps(GOOD))
    damaged[position % len(damaged)] = byte
    for raw in (bytes(damaged), arbitrary):
        try:
            found: Any = decode_queues(raw)
        except CorruptionError:
            continue
        assert type(found) is Queues
