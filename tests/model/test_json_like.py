"""Stored values become JSON that says what they were, whatever they are."""

from __future__ import annotations

import datetime as dt
from typing import Any
from uuid import UUID

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfun.model.json_like import DEPTH_MAX, TOO_DEEP, json_like, omitted


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (None, None), (True, True), (5, 5), (2**70, 2**70), (-1.5, -1.5), ("é", "é"), ("\ud800", "?"),
        (b"ab", {"base64": "YWI="}), (bytearray(b"\xff"), {"base64": "/w=="}),
        (float("nan"), "NaN"), (float("inf"), "Infinity"), (float("-inf"), "-Infinity"),
        ((1, [2, b""]), [1, [2, {"base64": ""}]]), ({3}, [3]), (frozenset(), []),
        ({1: "a", True and "x": 2, None: 3, 1.5: 4, b"\xff": 5, (1, "a"): 6, False: 7},
         {"1": "a", "x": 2, "null": 3, "1.5": 4, "/w==": 5, "1, a": 6, "false": 7}),
        (dt.date(2024, 5, 6), "2024-05-06"), (dt.datetime(2024, 5, 6, tzinfo=dt.UTC), "2024-05-06T00:00:00+00:00"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"), (1 << 8193, omitted(1024)),
    ],
    ids=repr,
)  # fmt: skip
def test_each_kind_of_value(stored: Any, shown: Any) -> None:
    assert json_like(stored) == shown
    msgspec.json.encode(json_like(stored))


def test_what_is_nested_too_deep_is_not_shown() -> None:
    value: Any = 1
    for _ in range(DEPTH_MAX):
        value = [value]
    assert json_like(value) == value
    deepest = json_like([value])
    for _ in range(DEPTH_MAX):
        (deepest,) = deepest
    assert deepest == TOO_DEEP


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates() | st.uuids() | st.decimals(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers() | st.binary(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_whatever_can_be_stored_can_be_shown(value: Any) -> None:
    stored = cbor2.loads(cbor2.dumps(value, date_as_datetime=True, timezone=dt.UTC))
    assert msgspec.json.decode(msgspec.json.encode(json_like(stored))) == json_like(stored)


@given(st.binary(max_size=200))
def test_any_bytes_that_are_cbor(raw: bytes) -> None:
    try:
        value = cbor2.loads(raw)
    except Exception:
        return
    msgspec.json.encode(json_like(value))
