"""The tables of small whole numbers say what cbor2 says, and stand in for nothing but whole numbers."""

from __future__ import annotations

import enum
from typing import Any

import cbor2
import pytest

from shardfun import App, Context, Map, State, mapping
from shardfun.core.small_ints import DECODED_INTS, ENCODED_INTS, decoded_ints, encoded_ints
from shardfun.errors import PayloadTypeError
from shardfun.testing import FunctionTest


def test_they_are_as_cbor2_makes_and_reads_them() -> None:
    assert encoded_ints() == [cbor2.dumps(number) for number in range(ENCODED_INTS)]
    assert decoded_ints() == {cbor2.dumps(number): number for number in range(DECODED_INTS)}


class Level(enum.IntEnum):
    LOW = 1


class Values(State):
    ints: Map[str, int] = mapping()
    either: Map[str, int | bool] = mapping()
    floats: Map[str, float] = mapping()


app = App("small-ints")


@app.function("t/put")
def put(ctx: Context[Values], message: str) -> None:
    values = {"true": True, "one": 1, "float": 1.0, "level": Level.LOW}
    name, _, which = message.partition(" ")
    getattr(ctx.state, name)["k"] = values[which]


@pytest.mark.parametrize(
    ("message", "value"), [("ints one", 1), ("either one", 1), ("either true", True), ("floats float", 1.0)]
)
def test_what_is_stored_comes_back_as_what_it_was(message: str, value: Any) -> None:
    test = FunctionTest(app, "t/put")
    test.receive(message)
    stored = getattr(test.state, message.split(maxsplit=1)[0])["k"]
    assert (stored, type(stored)) == (value, type(value))


@pytest.mark.parametrize("message", ["ints true", "ints float", "ints level", "floats one", "floats true"])
def test_what_only_equals_a_whole_number_is_refused(message: str) -> None:
    with pytest.raises(PayloadTypeError, match="expected"):
        FunctionTest(app, "t/put").receive(message)


@pytest.mark.parametrize(
    "number", [-1, 0, 23, 24, 255, 256, DECODED_INTS - 1, DECODED_INTS, ENCODED_INTS - 1, ENCODED_INTS, 1 << 70, -(1 << 70)]
)
def test_all_sizes_come_back(number: int) -> None:
    app = App("sizes")

    @app.function("t/put")
    def put(ctx: Context[Values], message: int) -> None:
        ctx.state.ints["k"] = message
        assert ctx.state.ints["k"] == message

    test = FunctionTest(app, "t/put")
    test.receive(number)
    assert test.state.ints["k"] == number
