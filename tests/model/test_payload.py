"""Payload types: immutability is decided all the way down, and every supported value survives its encoding."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import uuid
from typing import Any, ClassVar, Literal, NamedTuple, Optional, Union

import cbor2
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardfun.errors import DefinitionError, PayloadTypeError
from shardfun.model.immutability import is_immutable
from shardfun.model.payload import (
    END,
    END_TYPE,
    MAIN_ELSEWHERE,
    Encoded,
    End,
    Payloads,
    payload_type,
    payload_types,
    type_name,
)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Flat(msgspec.Struct, frozen=True):
    number: int
    name: str = ""
    share: float | None = None


class Keywords(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    name: str


class Nested(msgspec.Struct, frozen=True):
    flat: Flat
    colors: tuple[Color, ...] = ()
    note: str | None = None


class Chain(msgspec.Struct, frozen=True):
    value: int
    next: Chain | None = None


class HoldsList(msgspec.Struct, frozen=True):
    items: list[int]


class HoldsHoldsList(msgspec.Struct, frozen=True):
    inner: HoldsList | None = None


class Anything(msgspec.Struct, frozen=True):
    inner: Any


class Open(msgspec.Struct):
    number: int


class Constant(msgspec.Struct, frozen=True):
    registry: ClassVar[dict[str, int]] = {}
    number: int = 0


class Tagged(msgspec.Struct, frozen=True, tag="t", rename="camel"):
    first_name: str
    birth_year: int


@dataclasses.dataclass(frozen=True)
class FrozenData:
    number: int
    word: str = "w"


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeywordData:
    number: int


@dataclasses.dataclass(frozen=True)
class DataWithList:
    items: list[int]


@dataclasses.dataclass
class OpenData:
    number: int


class Pair(NamedTuple):
    left: int
    right: list[int]


class NotSupported:
    pass


# ruff: noqa: UP007, UP045 - both spellings of a union are supported
IMMUTABLE = [
    None, bool, int, float, str, bytes, dt.datetime, dt.date, dt.time, dt.timedelta, uuid.UUID, decimal.Decimal, Color, Flat,
    Keywords, Nested, Chain, Constant, Tagged, FrozenData, KeywordData, Optional[int], Union[int, str, None], int | Flat,
    tuple[int, str], tuple[Flat, ...], frozenset[int], tuple[frozenset[str], Color | None], Literal["a", 1],
]  # fmt: skip
MUTABLE = [
    list, dict, set, list[int], dict[str, int], set[int], bytearray, HoldsList, HoldsHoldsList, Anything, Open, DataWithList,
    OpenData, Pair, tuple, frozenset, Any, object, tuple[list[int], ...], Optional[list[int]], int | Open, frozenset[HoldsList],
    NotSupported,
]  # fmt: skip


@pytest.mark.parametrize("annotation", IMMUTABLE, ids=str)
def test_immutable_all_the_way_down(annotation: Any) -> None:
    assert is_immutable(annotation)


@pytest.mark.parametrize("annotation", MUTABLE, ids=str)
def test_not_known_to_be_immutable(annotation: Any) -> None:
    assert not is_immutable(annotation)


def test_an_annotation_that_cannot_be_resolved_counts_as_mutable() -> None:
    class Lost(msgspec.Struct, frozen=True):
        other: Missing  # noqa: F821

    assert not is_immutable(Lost)


@pytest.mark.parametrize(
    ("annotation", "fields"),
    [
        (Flat, ("number", "name", "share")),
        (FrozenData, ("number", "word")),
        (Tagged, ("first_name", "birth_year")),
        (Keywords, ()),  # the constructor takes no positions
        (KeywordData, ()),
        (Nested, ()),
        (HoldsList, ()),
        (Open, ()),
        (int, ()),
    ],
    ids=str,
)
def test_which_records_are_flat(annotation: Any, fields: tuple[str, ...]) -> None:
    assert payload_type(annotation, "here").fields == fields


@pytest.mark.parametrize(
    "annotation", [NotSupported, "text", Literal["a"], 5, list[NotSupported], dict[NotSupported, int]], ids=str
)
def test_types_that_cannot_be_encoded_are_refused(annotation: Any) -> None:
    with pytest.raises(DefinitionError, match=r"^shop/cart: message: "):
        payload_type(annotation, "shop/cart: message")


def test_members_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(DefinitionError, match="cannot be told apart"):
        payload_types(list[int] | list[str], "here")


def test_any_means_scalars_lists_and_maps() -> None:
    assert payload_types(Any, "here") == payload_types(object, "here") == ()
    payloads = Payloads((), "here")
    for value in (1, 1.5, "x", b"x", None, True):
        assert payloads.prepare(value) is value
    for value in ([1, "a"], {"k": [1]}):
        prepared = payloads.prepare(value)
        assert type(prepared) is Encoded
        assert prepared.type.decode(prepared.data) == value
    with pytest.raises(PayloadTypeError, match="accepts"):
        payloads.prepare({1, 2})


VALUES: list[tuple[Any, Any]] = [
    (int, 1 << 90), (float, -0.5), (str, "a\0ü"), (bytes, b"\0\xff"), (bool, True), (type(None), None),
    (dt.datetime, dt.datetime(2024, 2, 29, 12, 1, 2, 345, tzinfo=dt.UTC)), (dt.datetime, dt.datetime(2024, 1, 1)),  # noqa: DTZ001
    (dt.date, dt.date(2024, 2, 29)), (dt.time, dt.time(1, 2, 3)), (dt.timedelta, dt.timedelta(days=-1, microseconds=5)),
    (uuid.UUID, uuid.UUID(int=7)), (decimal.Decimal, decimal.Decimal("1.10")), (Color, Color.BLUE),
    (tuple[int, str], (1, "x")), (frozenset[int], frozenset({1, 2})), (Flat, Flat(1, "n", None)), (Keywords, Keywords(number=1, name="k")),
    (Nested, Nested(Flat(1), (Color.RED,), "x")), (Chain, Chain(1, Chain(2))), (FrozenData, FrozenData(3)), (KeywordData, KeywordData(number=4)),
    (Tagged, Tagged("A", 1)), (list[int], [1, 2]), (dict[str, Flat], {"a": Flat(1)}), (set[int], {1}), (HoldsList, HoldsList([1])),
    (Open, Open(1)), (OpenData, OpenData(2)), (Pair, Pair(1, [2])),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "value"), VALUES, ids=str)
def test_one_value_survives(annotation: Any, value: Any) -> None:
    described = payload_type(annotation, "here")
    described.validate(value)
    back = described.decode(described.encode(value))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(("annotation", "value"), VALUES, ids=str)
def test_a_column_survives(annotation: Any, value: Any) -> None:
    described = payload_type(annotation, "here")
    values = [value] * 3
    sent = values if described.immutable else [Encoded(described, described.encode(item)) for item in values]
    column = described.decode_column(cbor2.loads(cbor2.dumps(described.encode_column(sent))))
    assert [item.type.decode(item.data) if type(item) is Encoded else item for item in column] == values


def test_a_wrong_field_is_found_by_validation_only() -> None:
    described = payload_type(Flat, "here")
    with pytest.raises(PayloadTypeError, match=r"Flat: .*\$\.number"):
        described.validate(Flat("not a number"))  # type: ignore[arg-type]


def test_what_cannot_be_encoded_is_a_payload_error() -> None:
    described = payload_type(list, "here")
    with pytest.raises(PayloadTypeError, match="cannot be encoded"):
        described.encode([object()])
    with pytest.raises(PayloadTypeError, match="cannot be encoded"):
        described.encode(["\udc80"])
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(PayloadTypeError, match="cannot be encoded"):
        described.encode(endless)
    for value in ([object()], endless):
        with pytest.raises(PayloadTypeError, match="cannot be encoded"):
            described.validate(value)


@given(st.binary(max_size=40))
@settings(max_examples=200)
def test_damaged_bytes_are_a_payload_error(data: bytes) -> None:
    described = payload_type(Nested, "here")
    try:
        value = described.decode(data)
    except PayloadTypeError:
        return
    assert type(value) is Nested


def test_only_declared_classes_are_accepted_and_mutable_values_are_encoded_at_once() -> None:
    payloads = Payloads(payload_types(int | Flat | HoldsList, "here"), "shop/cart")
    assert payloads.shared == {int, Flat}
    value = HoldsList([1])
    prepared = payloads.prepare(value)
    value.items.append(2)
    assert prepared.type.decode(prepared.data) == HoldsList([1])
    for wrong in (True, "x", Open(1), 1.0, END):
        with pytest.raises(PayloadTypeError, match=r"^shop/cart accepts int \| .*Flat \| .*HoldsList, not "):
            payloads.prepare(wrong)


def test_the_end_is_a_payload_of_every_function_but_nobody_can_send_it() -> None:
    payloads = Payloads(payload_types(int, "here"), "here")
    assert payloads.by_class[End] is payloads.by_name["shardfun.end"] is END_TYPE
    assert END_TYPE.decode_column(END_TYPE.encode_column([END, END])) == [END, END]
    with pytest.raises(PayloadTypeError):
        payloads.prepare(END)


def test_types_of_a_script_have_one_name_in_all_processes_of_a_node() -> None:
    """They run it again under another name, to leave out what stands below its guard."""

    class Order(msgspec.Struct, frozen=True):
        n: int

    Order.__module__ = MAIN_ELSEWHERE
    Order.__qualname__ = "Order"
    assert type_name(Order) == "__main__.Order"
    assert type_name(list[Order]) == "list[__main__.Order]"
