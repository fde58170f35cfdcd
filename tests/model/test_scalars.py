"""Columns of scalars: exact, whatever the values are."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from cbor2 import CBORTag
from hypothesis import given
from hypothesis import strategies as st

from shardfun.model.scalars import COLUMN_VALUES_MAX, INT64_TAG, columns_of, decode_scalars, encode_any_scalars, join_texts

scalars = st.one_of(
    st.integers(),
    st.booleans(),
    st.none(),
    st.floats(),
    st.text(max_size=4),
    st.binary(max_size=4),
    st.sampled_from(["", "\0", 0.0]),
)


def key(value: Any) -> tuple[type, str]:
    return type(value), repr(value)  # tells 1, True and 1.0 apart, and makes nan equal to itself


@given(st.lists(scalars, min_size=1) | st.lists(st.integers(), min_size=1) | st.lists(st.text(), min_size=1))
def test_round_trip_with_exact_classes(values: list[Any]) -> None:
    back = decode_scalars(cbor2.loads(cbor2.dumps(encode_any_scalars(values))))
    assert list(map(key, back)) == list(map(key, values))


def test_forms() -> None:
    assert encode_any_scalars([1, 2]) == CBORTag(INT64_TAG, (1).to_bytes(8, "little") + (2).to_bytes(8, "little"))
    assert encode_any_scalars([1, 1 << 63]) == [1, 1 << 63]
    assert encode_any_scalars([1, True]) == [1, True]
    assert encode_any_scalars(["a", "", "b"]) == "a\0\0b"
    assert encode_any_scalars([None, None]) == 2


def test_texts_with_nul_stay_a_list() -> None:
    for texts in (["a\0b"], ["a", "\0"], ["\0", "\0"], [], [""], ["", ""]):
        assert decode_scalars(join_texts(texts)) == texts
    assert join_texts(["a\0b", "c"]) == ["a\0b", "c"]


@pytest.mark.parametrize(
    "data",
    [
        COLUMN_VALUES_MAX + 1,
        1 << 80,
        True,
        1.5,
        b"x",
        {"a": 1},
        None,
        CBORTag(1, b""),
        CBORTag(INT64_TAG, b"123"),
        CBORTag(79, 5),
    ],
)
def test_what_is_no_column_is_refused(data: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        decode_scalars(data)


def test_fields_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="equal length"):
        columns_of({"a": [1, 2], "b": "x"})
