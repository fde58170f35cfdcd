"""Columns: whatever mix of messages goes in comes out in order, and a message that does not fit harms no other."""

from __future__ import annotations

import enum
from typing import Any

import cbor2
import msgspec
import pytest
from cbor2 import CBORTag
from hypothesis import given, settings
from hypothesis import strategies as st

from shardfun.errors import ProtocolError
from shardfun.model.address import Address
from shardfun.model.columns import Batch, batch_of_rows, block_size, check_block, decode_block, encode_block
from shardfun.model.payload import END, Encoded, Payloads, payload_type, payload_types


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Flat(msgspec.Struct, frozen=True):
    number: int
    name: str
    share: float | None = None
    sure: bool = False


class Nested(msgspec.Struct, frozen=True):
    flat: Flat
    ids: tuple[int, ...] = ()


class Basket(msgspec.Struct):
    items: list[str]


class Strict(msgspec.Struct, frozen=True):
    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise LookupError(self.number)


UNION = int | str | float | bool | bytes | None | Flat | Nested | Basket | Color
PAYLOADS = Payloads(payload_types(UNION, "test/target"), "test/target")
BASKET = PAYLOADS.by_class[Basket]
GONE: Any = Payloads([payload_type(Gone, "gone") for Gone in (frozenset[int],)], "gone")  # knows none of the names below

texts = st.text(st.sampled_from("aé\0,"), max_size=3)
ids = st.text(st.sampled_from("aé\0:"), min_size=1, max_size=3)
numbers = st.integers() | st.integers(min_value=(1 << 63) - 1, max_value=1 << 70)
floats = st.floats(allow_nan=False)
flats = st.builds(Flat, numbers, texts, st.none() | floats, st.booleans())
values = st.one_of(
    numbers,
    st.booleans(),
    floats,
    texts,
    st.binary(max_size=3),
    st.none(),
    flats,
    st.builds(Nested, flats, st.lists(st.integers(0, 9), max_size=2).map(tuple)),
    st.lists(texts, max_size=2).map(lambda items: PAYLOADS.prepare(Basket(items))),
    st.sampled_from(Color),
    st.just(END),
)
senders = st.none() | st.builds(Address, st.sampled_from(["a/b", "a/c", "ü/x"]), texts)


def seen(value: Any) -> tuple[type, Any]:
    """Comparable with exact classes all the way down."""
    if type(value) is Encoded:
        return Basket, value.type.decode(value.data).items
    if type(value) is Flat:
        return Flat, [seen(getattr(value, name)) for name in value.__struct_fields__]
    return type(value), repr(value)


def carried(block: list[Any]) -> list[Any]:
    return cbor2.loads(cbor2.dumps(block))


def sender_of(batch: Batch, position: int) -> Address | None:
    if batch.senders is None:
        return None
    sender = batch.senders[position]
    return Address(batch.sender_type, sender) if batch.sender_type is not None else sender


def batch_of(*payload: Any) -> Batch:
    return Batch([f"id{position}" for position in range(len(payload))], None, None, payload)


messages = st.lists(st.tuples(ids, senders, values), min_size=1, max_size=12)
one_kind = st.sampled_from([numbers, texts, floats, flats, st.booleans()]).flatmap(
    lambda kind: st.lists(st.tuples(ids, senders, kind), min_size=1, max_size=6)
)


@given(messages | one_kind)
@settings(max_examples=150)
def test_round_trip(rows: list[tuple[str, Address | None, Any]]) -> None:
    batch = batch_of_rows([(None, id, sender, value) for id, sender, value in rows])
    block = carried(encode_block("test/target", PAYLOADS, batch))
    check_block(block)
    assert block_size(block) == len(rows)
    back, undecodable = decode_block(PAYLOADS, block)
    assert not undecodable
    assert list(back.ids) == [id for id, _, _ in rows]
    assert [sender_of(back, position) for position in range(len(rows))] == [sender for _, sender, _ in rows]
    assert list(map(seen, back.values)) == [seen(value) for _, _, value in rows]
    assert carried(encode_block("test/target", PAYLOADS, back)) == block, "a decoded batch encodes to the same block"


@given(messages)
@settings(max_examples=60)
def test_nothing_is_lost_when_no_payload_type_is_known(rows: list[tuple[str, Address | None, Any]]) -> None:
    """A function or message type that is gone: each message is parked by itself, with its address and sender."""
    rows = [row for row in rows if row[2] is not END] or [("a", None, 1)]
    block = carried(encode_block("test/target", PAYLOADS, batch_of_rows([(None, *row) for row in rows])))
    batch, undecodable = decode_block(GONE, block)
    assert not batch.ids
    assert [(message.id, message.sender) for message in undecodable] == [(id, sender) for id, sender, _ in rows]
    for message, (_, _, value) in zip(undecodable, rows, strict=True):
        described = value.type if type(value) is Encoded else PAYLOADS.by_class[type(value)]
        assert message.type_name == described.name
        assert message.reason == f"the type {described.name} does not exist any more"
        expected = value.data if type(value) is Encoded else described.to_plain(value)
        assert cbor2.dumps(message.plain) == cbor2.dumps(expected)


def test_more_than_256_sender_types_and_payload_positions() -> None:
    many = [Address(f"a/{number}", str(number)) for number in range(300)]
    batch = Batch(["x"] * 301, [*many, None], None, [1] * 301)
    block = carried(encode_block("test/target", PAYLOADS, batch))
    assert type(block[2][1]) is list
    back, _ = decode_block(PAYLOADS, block)
    assert back.senders == [*many, None]


def test_senders_of_one_type_travel_as_ids() -> None:
    batch = Batch(["x", "y"], [Address("a/b", "1"), Address("a/b", "")], None, [1, 2])
    block = carried(encode_block("test/target", PAYLOADS, batch))
    assert block[2:4] == ["a/b", "1\0"]
    back, _ = decode_block(PAYLOADS, block)
    assert (back.sender_type, back.senders) == ("a/b", ["1", ""])


def test_a_true_is_not_a_one() -> None:
    batch = batch_of(Flat(1, "a", sure=True), Flat(True, "b", sure=True))
    back, _ = decode_block(PAYLOADS, carried(encode_block("t/t", PAYLOADS, batch)))
    assert [value.number is True for value in back.values] == [False, True]


def strict_block(*numbers: int) -> list[Any]:
    name = payload_type(Strict, "").name
    return ["t/t", "\0".join(f"id{i}" for i in range(len(numbers))), "s/s", "\0".join("pqrs"[: len(numbers)]),
            [[name, {"number": list(numbers)}]], None]  # fmt: skip


@pytest.mark.parametrize("bad", [0, 1, 2, 3])
def test_a_message_that_cannot_be_made_is_parked_and_its_neighbours_run(bad: int) -> None:
    given_numbers = [10, 11, 12, 13]
    given_numbers[bad] = -1
    batch, undecodable = decode_block(Payloads(payload_types(Strict, ""), ""), strict_block(*given_numbers))
    (message,) = undecodable
    assert (message.id, message.sender, message.plain) == (f"id{bad}", Address("s/s", "pqrs"[bad]), {"number": -1})
    assert [value.number for value in batch.values] == [10 + i for i in range(4) if i != bad]
    assert list(batch.ids) == [f"id{i}" for i in range(4) if i != bad]
    assert batch.senders == ["pqrs"[i] for i in range(4) if i != bad]


def test_nested_values_are_parked_one_by_one() -> None:
    plain = [{"flat": {"number": 1, "name": "a"}}, {"flat": 5}, {"flat": {"number": 2, "name": "b"}}]
    block = ["t/t", "x\0y\0z", None, None, [[payload_type(Nested, "").name, plain]], None]
    batch, undecodable = decode_block(PAYLOADS, block)
    assert list(batch.ids) == ["x", "z"]
    assert [(message.id, message.plain) for message in undecodable] == [("y", {"flat": 5})]


def test_fields_that_came_and_went_since_the_message_was_sent() -> None:
    """Stored messages outlive a release: what is missing gets its default, what is gone is dropped, order does not matter."""
    name = payload_type(Flat, "").name
    columns = {"name": "a\0b", "old": [1, 2], "number": [7, "no number"]}
    batch, undecodable = decode_block(PAYLOADS, ["t/t", "x\0y", None, None, [[name, columns]], None])
    assert list(batch.values) == [Flat(7, "a")]
    assert [message.id for message in undecodable] == ["y"]


def test_a_type_that_became_mutable_or_immutable_since() -> None:
    class Item(msgspec.Struct, frozen=True):
        number: int

    frozen = payload_type(Item, "")
    open_type = payload_type(list[int], "")
    as_open = Payloads([type(frozen)(frozen.name, Item, Item, immutable=False)], "")
    as_frozen = Payloads([frozen], "")
    sent = encode_block("t/t", as_frozen, batch_of(Item(1), Item(2)))
    batch, undecodable = decode_block(as_open, carried(sent))
    assert [value.type.decode(value.data) for value in batch.values] == [Item(1), Item(2)]
    assert not undecodable
    back, undecodable = decode_block(as_frozen, carried(encode_block("t/t", as_open, batch)))
    assert list(back.values) == [Item(1), Item(2)]
    assert not undecodable
    assert open_type.immutable is False


BASE = ["t/t", "x\0y", None, None, [["int", [1, 2]]], None]


@pytest.mark.parametrize(
    ("position", "item"),
    [
        (1, "x"),
        (1, ["x", 5]),
        (2, "s/s"),
        (2, [["s/s"], b"\0"]),
        (2, [[5], b"\0\0"]),
        (2, 7),
        (4, [["int", [1]]]),
        (4, [["int", [1, 2, 3]]]),
        (4, [["int", 1 << 60]]),
        (4, [["int", {"a": 1, "b": 2}]]),
        (4, [["int", CBORTag(80, b"")]]),
        (4, [["int"]]),
        (4, 5),
        (4, []),
        (4, [["shardfun.end", 1 << 60]]),
        (4, [[["int"], [1, 2]]]),
        (5, b"\0"),
        (5, b"\0\1"),
        (5, "ab"),
        (5, [0, "a"]),
        (5, {0: 0, 1: 0}),
    ],
)
def test_columns_that_do_not_fit_together_are_a_protocol_error(position: int, item: Any) -> None:
    block = [*BASE[:position], item, *BASE[position + 1 :]]
    if position == 2 and item != 7:
        block[3] = "p\0q" if type(item) is list else ["p", 5]
    with pytest.raises(ProtocolError, match=r"^block for 't/t': "):
        decode_block(PAYLOADS, block)


@pytest.mark.parametrize("block", [[], 5, "abcdef", [1, 2, 3, 4, 5, 6], ["t/t", 5, None, None, [], None], BASE[:5]])
def test_what_is_no_block(block: Any) -> None:
    with pytest.raises(ProtocolError, match="expected a block"):
        check_block(block)
