"""The stored form of a record: keys, bytes, and what happens when a declaration changes."""

from __future__ import annotations

import datetime as dt
import enum
from typing import Any

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfun import Address, App, Context, State, Value, value
from shardfun.core.function import CompiledFunction, parse_state_key, state_key
from shardfun.errors import PayloadTypeError
from shardfun.model.keyspace import slot_of


class Color(enum.Enum):
    RED = "red"


class Item(msgspec.Struct, frozen=True):
    number: int
    name: str = "n"


class Wide(State):
    n: Value[int] = value(0)
    share: Value[float | None] = value(None)
    word: Value[str] = value("")
    raw: Value[bytes] = value(b"")
    item: Value[Item] = value(Item(1))
    day: Value[dt.date] = value(dt.date(2024, 1, 1))
    color: Value[Color | None] = value(None)
    items: Value[list[Item]] = value(default_factory=list)
    counts: Value[dict[str, int]] = value(default_factory=dict)
    any: Value[Any] = value(None)

    @property
    def double(self) -> int:
        return 2 * self.n


def compiled(state: type[State]) -> CompiledFunction:
    app = App("states")

    def handler(ctx: Any, message: int) -> None: ...

    handler.__annotations__ = {"ctx": Context[state], "message": int}  # type: ignore[valid-type]
    app.function("t/f")(handler)
    return app.compile()[0]


def filled(function: CompiledFunction, stored: bytes | None) -> Any:
    record = function.blank("x")
    function.fill(record, stored)
    return record


WIDE = compiled(Wide)

contents = st.fixed_dictionaries(
    {
        "n": st.integers() | st.integers(65_530, 65_540) | st.just(1 << 80),
        "share": st.none() | st.floats(allow_nan=False),
        "word": st.text(max_size=3),
        "raw": st.binary(max_size=3),
        "item": st.builds(Item, st.integers(), st.text(max_size=2)),
        "day": st.dates(),
        "color": st.sampled_from([None, Color.RED]),
        "items": st.lists(st.builds(Item, st.integers()), max_size=2),
        "counts": st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
        "any": st.none() | st.integers() | st.lists(st.text(max_size=2), max_size=2),
    }
)


@given(contents)
def test_a_record_survives_and_its_bytes_are_a_plain_map(given_values: dict[str, Any]) -> None:
    record = filled(WIDE, None)
    for field in WIDE.spec.fields:
        setattr(record, field.name, given_values[field.name])
        if not field.immutable:
            setattr(record, "_encoded_" + field.name, field.encode(given_values[field.name]))
    stored = WIDE.encode_values(WIDE.values_of(record))
    assert cbor2.loads(stored) == {
        name: msgspec.to_builtins(item, builtin_types=(bytes,)) for name, item in given_values.items()
    }
    back = filled(WIDE, stored)
    assert {name: getattr(back, name) for name in given_values} == given_values
    assert WIDE.encode_values(WIDE.values_of(back)) == stored


def test_a_state_with_more_fields_than_fit_into_a_short_map_head() -> None:
    names = [f"f{number}" for number in range(30)]
    big = type("Big", (State,), {"__annotations__": dict.fromkeys(names, Value[int]), **{name: value(7) for name in names}})
    function = compiled(big)
    record = filled(function, None)
    record.f3 = 8
    assert cbor2.loads(function.encode_values(function.values_of(record))) == {**dict.fromkeys(names, 7), "f3": 8}


def test_methods_of_the_state_class_work_and_mistyped_names_do_not() -> None:
    record = filled(WIDE, None)
    record.n = 4
    assert record.double == 8
    assert isinstance(record, Wide)
    with pytest.raises(AttributeError):
        record.nn = 1


def test_fields_come_and_go() -> None:
    class Before(State):
        old: Value[int] = value(1)
        n: Value[int] = value(1)

    class After(State):
        n: Value[int] = value(2)
        new: Value[list[int]] = value(default_factory=lambda: [5])

    before, after = compiled(Before), compiled(After)
    old = filled(before, None)
    assert before.encode_values(before.values_of(old)) is None, "all at their default: not stored"
    old.old = 9
    record = filled(after, before.encode_values(before.values_of(old)))
    assert (record.n, record.new) == (1, [5])


@pytest.mark.parametrize(("field", "stored"), [("n", "x"), ("n", True), ("item", {"number": "x"}), ("items", [5]), ("day", 5)])
def test_a_stored_value_that_does_not_fit_names_its_field(field: str, stored: Any) -> None:
    with pytest.raises(PayloadTypeError, match=f"^state field '{field}': the stored value"):
        filled(WIDE, cbor2.dumps({field: stored}))


@given(st.text(min_size=1))
def test_keys(id: str) -> None:
    key = state_key("shop/cart", id)
    assert key[:2] == slot_of(id).to_bytes(2, "big")
    assert parse_state_key(key) == Address("shop/cart", id)
    assert compiled(Wide).blank(id)._key == state_key("t/f", id)


def test_other_keys_are_no_addresses() -> None:
    assert parse_state_key(b"\0\0d12345678") is None
    assert parse_state_key(b"") is None
