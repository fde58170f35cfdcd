"""What may be sent from outside: values of the declared types and nothing else, from Python and from JSON."""

from __future__ import annotations

import base64
import datetime as dt
import enum
import json
from typing import Any

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfun import App, Context, State
from shardfun.errors import PayloadTypeError, UnknownTargetError
from shardfun.intake.entries import RecordEntry, encode_entry
from shardfun.intake.targets import Targets
from shardfun.model.address import ID_BYTES_MAX


class Colour(enum.Enum):
    RED = "red"


class Order(msgspec.Struct, frozen=True):
    item: str
    amount: int = 1


class Return(msgspec.Struct, frozen=True):
    item: str
    reason: str = ""


class Scan(msgspec.Struct, frozen=True):
    image: bytes
    at: dt.datetime
    colour: Colour = Colour.RED


class Basket(msgspec.Struct):
    items: list[Order]


class Nothing(State):
    """No state."""


def application() -> App:
    app = App("targets")

    @app.function("shop/orders")
    def orders(ctx: Context[Nothing], message: Order | Return | Basket | int | str) -> None:
        """Never run."""

    @app.function("shop/scans")
    def scans(ctx: Context[Nothing], message: Scan) -> None:
        """Never run."""

    @app.function("any/*")
    def anything(ctx: Context[Nothing], message: Any) -> None:
        """Never run."""

    @app.upgrade(Return, version=2)
    def upgrade(version: int, fields: dict[str, Any]) -> dict[str, Any]:
        return {"reason": "old", **fields}

    return app


@pytest.fixture(scope="module")
def targets() -> Targets:
    return Targets.of(application())


HERE = __name__


# ---- Python values -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("value", [Order("a", 2), Return("b", "broken"), Basket([Order("c")]), 7, "text"])
def test_a_python_value_arrives_as_it_is(targets: Targets, value: Any) -> None:
    type, payload = targets.encode("shop/orders", "a", value)
    assert targets.message("shop/orders", type, payload) == value


@pytest.mark.parametrize(
    ("typename", "error"),
    [
        ("shop/order", "did you mean 'shop/orders'"),
        ("shop/*", "unknown function"),
        ("any/*", "unknown function"),
        ("any/", "unknown"),
        ("", "unknown"),
        ("shardfun/request", "unknown"),
    ],
)
def test_only_functions_of_the_application_can_be_sent_to(targets: Targets, typename: str, error: str) -> None:
    for send in (targets.encode, targets.from_json):
        with pytest.raises(UnknownTargetError, match=error.replace("*", r"\*")):
            send(typename, "a", 1)


@pytest.mark.parametrize("value", [1.5, None, b"x", [1], Scan(b"", dt.datetime.now(dt.UTC))])
def test_a_value_of_another_class_is_refused(targets: Targets, value: Any) -> None:
    with pytest.raises(PayloadTypeError, match=r"shop/orders accepts .*Order \| "):
        targets.encode("shop/orders", "a", value)


def test_fields_are_checked_since_constructors_do_not(targets: Targets) -> None:
    with pytest.raises(PayloadTypeError, match="amount"):
        targets.encode("shop/orders", "a", Order("a", "many"))  # type: ignore[arg-type]


@pytest.mark.parametrize("id", ["", "x" * (ID_BYTES_MAX + 1), "\udc80", 5, None])
def test_an_id_is_a_text_of_bounded_length(targets: Targets, id: Any) -> None:
    for send in (targets.encode, targets.from_json):
        with pytest.raises(PayloadTypeError, match="id: expected a text of 1 to 4096 bytes"):
            send("shop/orders", id, 1)


def test_every_name_of_a_declared_namespace_is_a_target(targets: Targets) -> None:
    type, payload = targets.encode("any/name", "a", {"x": [1, None]})
    assert targets.message("any/other", type, payload) == {"x": [1, None]}


# ---- JSON ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "value"),
    [
        ({"item": "a", "amount": 2}, Order("a", 2)),
        ({"item": "a", "reason": "r"}, Return("a", "r")),
        ({"items": [{"item": "a"}]}, Basket([Order("a")])),
        (7, 7),
        ("2020-01-01", "2020-01-01"),
    ],
)
def test_a_body_finds_its_type(targets: Targets, body: Any, value: Any) -> None:
    type, payload = targets.from_json("shop/orders", "a", body)
    assert targets.message("shop/orders", type, payload) == value


def test_what_could_be_several_types_has_to_be_named(targets: Targets) -> None:
    with pytest.raises(PayloadTypeError, match=f"could be any of {HERE}.Order, {HERE}.Return@2; name its type"):
        targets.from_json("shop/orders", "a", {"item": "a"})
    for name in ("Return", f"{HERE}.Return@2"):
        type, payload = targets.from_json("shop/orders", "a", {"item": "a"}, name)
        assert targets.message("shop/orders", type, payload) == Return("a")
    with pytest.raises(PayloadTypeError, match="'Refund' is not the name of one of them"):
        targets.from_json("shop/orders", "a", {"item": "a"}, "Refund")


def test_a_single_type_takes_what_it_can(targets: Targets) -> None:
    image = base64.b64encode(b"\0\xff").decode()
    body = {"image": image, "at": "2024-05-01T12:00:00Z", "colour": "red", "unknown": 1}
    type, payload = targets.from_json("shop/scans", "a", body)
    expected = Scan(b"\0\xff", dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC))
    assert targets.message("shop/scans", type, payload) == expected
    with pytest.raises(PayloadTypeError, match=r"shop/scans accepts .*Scan, and the message is none of these: .*colour"):
        targets.from_json("shop/scans", "a", {**body, "colour": "blue"})


@pytest.mark.parametrize("body", [None, True, 1.5, [], {"amount": 3}])
def test_a_body_of_no_declared_type_is_refused(targets: Targets, body: Any) -> None:
    with pytest.raises(PayloadTypeError, match="none of these"):
        targets.from_json("shop/orders", "a", body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_any_json_goes_to_a_function_that_takes_anything_and_comes_back(body: Any) -> None:
    made = Targets.of(application())
    try:
        type, payload = made.from_json("any/name", "a", body)
    except PayloadTypeError:
        assert "\\ud" in json.dumps(body)
        return
    assert made.message("any/name", type, payload) == body
    assert made.to_json(*made.reply(body)) == body


@given(JSON)
def test_whatever_comes_it_is_a_payload_or_a_payload_error(body: Any) -> None:
    made = Targets.of(application())
    try:
        type, payload = made.from_json("shop/orders", "a", body)
    except PayloadTypeError:
        return
    made.message("shop/orders", type, payload)


def test_what_is_nested_too_deeply_to_be_read_again_is_refused(targets: Targets) -> None:
    deep: Any = 1
    for _ in range(450):
        deep = [deep]
    for send in (targets.encode, targets.from_json):
        with pytest.raises(PayloadTypeError):
            send("any/name", "a", deep)
    with pytest.raises(PayloadTypeError, match="a RecordEntry cannot be encoded"):
        encode_entry(RecordEntry("events", deep))


# ---- what the application was, and replies -------------------------------------------------------------------------------
def test_a_message_of_an_earlier_version_is_upgraded(targets: Targets) -> None:
    payload = cbor2.dumps({"item": "a"})
    assert targets.message("shop/orders", f"{HERE}.Return", payload) == Return("a", "old")
    with pytest.raises(PayloadTypeError, match=r"not shop\.Gone, of which a message was sent"):
        targets.message("shop/orders", "shop.Gone", payload)


def test_replies_of_declared_classes_are_these_again_and_others_are_plain(targets: Targets) -> None:
    class Local(msgspec.Struct):
        n: int

    assert targets.decode(*targets.reply(Return("a", "b"))) == Return("a", "b")
    assert targets.decode(*targets.reply(Local(3))) == {"n": 3}
    assert targets.decode(*targets.reply([Order("a")])) == [{"item": "a", "amount": 1}]
    with pytest.raises(PayloadTypeError, match="cannot be encoded"):
        targets.reply(object())
    with pytest.raises(PayloadTypeError):
        targets.decode("gone", b"\xff")


def test_replies_as_json(targets: Targets) -> None:
    at = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)
    found = targets.to_json(*targets.reply(Scan(b"\0\xff", at)))
    assert found == {"image": base64.b64encode(b"\0\xff").decode(), "at": "2024-05-01T12:00:00Z", "colour": "red"}
    assert targets.to_json(*targets.reply({1: b"x", "a": {1, 2}})) == {"1": "eA==", "a": [1, 2]}
    assert json.dumps(targets.to_json(*targets.reply(Basket([Order("a")]))))


def test_the_description_is_json_with_a_schema_for_each_type(targets: Targets) -> None:
    found = {each["typename"]: each for each in targets.describe()}
    assert json.loads(json.dumps(found)) == found
    assert list(found) == ["shop/orders", "shop/scans", "any/*"]
    assert [each["name"] for each in found["shop/orders"]["types"]] == [
        f"{HERE}.Order",
        f"{HERE}.Return@2",
        f"{HERE}.Basket",
        "int",
        "str",
    ]
    assert found["any/*"]["types"] == []
    assert found["shop/scans"]["state"] == f"{HERE}.Nothing"
