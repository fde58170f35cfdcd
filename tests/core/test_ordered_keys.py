"""Keys of maps: the order of the bytes is the order of the keys, decoding inverts encoding, and no key begins another one."""

from __future__ import annotations

import datetime as dt
import enum
import math
import uuid
from typing import Any, NewType

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shardfun.errors import DefinitionError, PayloadTypeError
from shardfun.model.ordered_keys import KEY_BYTES_MAX, decode_key, key_type

Account = NewType("Account", str)
UTC_RANGE = (dt.datetime(2, 1, 1), dt.datetime(9998, 12, 31))  # noqa: DTZ001 - so that every zone has it


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"
    NONE = ""


class Level(enum.IntEnum):
    LOW = -1
    HIGH = 300


zones = st.integers(-1439, 1439).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))
numbers = st.one_of(
    st.integers(),
    st.integers(-1000, 1000),
    st.integers(0, 2100).flatmap(lambda bits: st.integers(-3, 3).map(lambda near: (1 << bits) + near)),
    st.integers(0, 2100).flatmap(lambda bits: st.integers(-3, 3).map(lambda near: near - (1 << bits))),
)
texts = st.text() | st.text(alphabet="\0\x01a\xff\uffff\U00010000", max_size=6)
KINDS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (str, texts),
    (Account, texts),
    (bytes, st.binary() | st.lists(st.sampled_from([b"\0", b"\1", b"\xff", b"a"]), max_size=6).map(b"".join)),
    (int, numbers),
    (float, st.floats(allow_nan=False)),
    (bool, st.booleans()),
    (uuid.UUID, st.uuids()),
    (dt.date, st.dates()),
    (dt.datetime, st.datetimes()),
    (dt.datetime, st.datetimes(*UTC_RANGE, timezones=zones)),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
]


def tuples() -> st.SearchStrategy[tuple[Any, st.SearchStrategy[Any]]]:
    def fixed(parts: list[tuple[Any, st.SearchStrategy[Any]]]) -> tuple[Any, st.SearchStrategy[Any]]:
        return tuple.__class_getitem__(tuple(kind for kind, _ in parts)), st.tuples(*(keys for _, keys in parts))

    def same(part: tuple[Any, st.SearchStrategy[Any]]) -> tuple[Any, st.SearchStrategy[Any]]:
        return tuple[part[0], ...], st.lists(part[1], max_size=3).map(tuple)

    return st.recursive(
        st.sampled_from(KINDS), lambda inner: st.lists(inner, min_size=1, max_size=3).map(fixed) | inner.map(same), max_leaves=4
    )


def comparable(key: Any) -> Any:
    """What the order of keys is defined by: enums by their values."""
    if isinstance(key, tuple):
        return tuple(map(comparable, key))
    return key.value if isinstance(key, enum.Enum) else key


@settings(max_examples=400)
@given(tuples().flatmap(lambda kind: st.tuples(st.just(kind[0]), kind[1], kind[1])))
def test_the_order_of_bytes_is_the_order_of_keys_and_decoding_inverts(drawn: tuple[Any, Any, Any]) -> None:
    annotation, one, other = drawn
    keys = key_type(annotation, "key")
    first, second = keys.encode(one), keys.encode(other)
    assert (first < second) == (comparable(one) < comparable(other))
    assert (first == second) == (one == other)
    assert keys.decode(first) == one
    assert type(keys.decode(first)) is type(one)
    assert comparable(decode_key(first)) == comparable(one), "readable without the declaration"
    assert not (first != second and second.startswith(first)), "no key is the beginning of another one"


@given(st.floats())
@example(math.nan)
@example(-math.nan)
def test_floats_are_totally_ordered(number: float) -> None:
    keys = key_type(float, "key")
    encoded = keys.encode(number)
    assert encoded <= keys.encode(math.nan)
    assert encoded >= keys.encode(-math.inf)
    back = keys.decode(encoded)
    assert back == number or (math.isnan(back) and math.isnan(number))


def test_negative_zero_is_zero_as_in_a_dict() -> None:
    keys = key_type(float, "key")
    assert keys.encode(-0.0) == keys.encode(0.0)
    assert math.copysign(1, keys.decode(keys.encode(-0.0))) == 1


@given(st.datetimes(*UTC_RANGE, timezones=zones), zones)
def test_equal_instants_are_one_key_whatever_their_zone(at: dt.datetime, zone: dt.timezone) -> None:
    keys = key_type(dt.datetime, "key")
    assert keys.encode(at) == keys.encode(at.astimezone(zone))
    assert keys.decode(keys.encode(at)).tzinfo is dt.UTC


@given(st.datetimes(), st.datetimes(*UTC_RANGE, timezones=zones))
def test_datetimes_without_a_zone_come_first(naive: dt.datetime, aware: dt.datetime) -> None:
    keys = key_type(dt.datetime, "key")
    assert keys.encode(naive) < keys.encode(aware)
    assert keys.decode(keys.encode(naive)) == naive


@given(st.lists(st.tuples(texts, numbers), max_size=8), texts, texts)
def test_the_first_parts_of_a_tuple_are_bounds(entries: list[tuple[str, int]], start: str, stop: str) -> None:
    keys = key_type(tuple[str, int], "key")
    first, last = keys.encode_bound((start,)), keys.encode_bound((stop,))
    found = [entry for entry in entries if first <= keys.encode(entry) < last]
    assert found == [entry for entry in entries if start <= entry[0] < stop]


@given(st.lists(st.tuples(texts, numbers), max_size=8), st.tuples(texts, numbers))
def test_a_whole_tuple_is_a_bound_too(entries: list[tuple[str, int]], bound: tuple[str, int]) -> None:
    keys = key_type(tuple[str, int], "key")
    at = keys.encode_bound(bound)
    assert [entry for entry in entries if keys.encode(entry) >= at] == [entry for entry in entries if entry >= bound]


@pytest.mark.parametrize(
    ("annotation", "key", "expected"),
    [
        (str, 5, "expected str, got int: 5"),
        (str, "\ud800", "expected text that can be encoded"),
        (int, True, "expected int, got bool: True"),
        (int, 1.0, "expected int, got float"),
        (float, 1, "expected float, got int"),
        (bytes, "x", "expected bytes, got str"),
        (bool, 1, "expected bool, got int"),
        (uuid.UUID, "x", "expected UUID, got str"),
        (dt.date, dt.datetime.now(dt.UTC), "expected date, got datetime"),
        (dt.datetime, dt.date(2024, 1, 1), "expected datetime, got date"),
        (Colour, "red", "expected Colour, got str"),
        (tuple[str, int], ("a", "b"), "expected int, got str"),
        (tuple[str, int], ("a",), r"expected tuple\[str, int\], got tuple"),
        (tuple[str, ...], ["a"], r"expected tuple\[str, ...\], got list"),
        (str, "x" * KEY_BYTES_MAX, f"expected at most {KEY_BYTES_MAX} bytes, got"),
        pytest.param(int, 1 << (8 * KEY_BYTES_MAX), f"a number of at most {KEY_BYTES_MAX} bytes", id="larger than any"),
        pytest.param(int, -(1 << (8 * KEY_BYTES_MAX - 8)), f"at most {KEY_BYTES_MAX} bytes, got", id="too large"),
    ],
)
def test_a_key_of_another_type_is_refused(annotation: Any, key: Any, expected: str) -> None:
    with pytest.raises(PayloadTypeError, match=f"^state field 'prices': key: .*{expected}"):
        key_type(annotation, "state field 'prices': key").encode(key)


@pytest.mark.parametrize(
    "annotation", [list[int], dict, str | int, None, Any, tuple, dt.timedelta, enum.Enum, tuple[list[int]]]
)
def test_what_has_no_order_cannot_be_a_key(annotation: Any) -> None:
    with pytest.raises(DefinitionError, match=r"^state field 'prices': key: .* cannot be the type of keys"):
        key_type(annotation, "state field 'prices': key")


def test_an_enum_of_mixed_values_cannot_be_a_key() -> None:
    with pytest.raises(DefinitionError, match="all str or all int"):
        key_type(enum.Enum("Mixed", {"A": 1, "B": "b"}), "key")


def test_a_stored_key_of_an_earlier_declaration_is_an_error() -> None:
    with pytest.raises(PayloadTypeError, match=r"the stored key 5 is not of the declared type|expected str"):
        key_type(str, "key").decode(key_type(int, "key").encode(5))
    with pytest.raises(PayloadTypeError, match=r"not of the declared type .*Colour"):
        key_type(Colour, "key").decode(key_type(str, "key").encode("green"))


@given(st.binary(max_size=24))
def test_bytes_that_are_no_key_are_refused(raw: bytes) -> None:
    try:
        key = decode_key(raw)
    except ValueError:
        return
    assert key is not None
