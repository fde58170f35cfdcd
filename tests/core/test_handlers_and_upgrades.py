"""Several handlers of one function, upgrades of messages and state, and what is wrong about them when they are declared."""

from __future__ import annotations

from typing import Any

import cbor2
import msgspec
import pytest
from single_core import core_of, put, record_of, run_all

from shardfun import App, Context, State, Value, value
from shardfun.core.function import CompiledFunction
from shardfun.errors import DefinitionError, PayloadTypeError


class Add(msgspec.Struct, frozen=True):
    n: int


class Pay(msgspec.Struct, frozen=True):
    n: int


class Note(msgspec.Struct):
    texts: list[str]


class Row(msgspec.Struct, array_like=True):
    n: int


class Cart(State):
    seen: Value[list[str]] = value(default_factory=list)
    total: Value[int] = value(0)


class Other(State):
    n: Value[int] = value(0)


def shop() -> App:
    app = App("shop")

    @app.handler("shop/cart")
    def pay(ctx: Context[Cart], message: Pay | int) -> None:
        ctx.state.seen.append(f"pay {type(message).__name__}")

    @app.function("shop/cart")
    def cart(ctx: Context[Cart], message: Add) -> None:
        ctx.state.seen.append("add")

    @app.handler("shop/cart")
    def note(ctx: Context[Cart], message: Note) -> None:
        ctx.state.seen.append(message.texts[0])

    return app


@pytest.mark.parametrize("plain", [True, False])
def test_the_handler_is_chosen_by_the_type_of_the_message(*, plain: bool) -> None:
    core = core_of(shop(), plain=plain)
    put(core, "shop/cart", ("a", Pay(1)), ("a", Add(1)), ("a", Note(["note"])), ("a", 5))
    run_all(core)
    assert record_of(core, "shop/cart", "a").seen == ["pay Pay", "add", "note", "pay int"]


def test_a_function_with_one_handler_is_called_itself() -> None:
    app = App("shop")

    @app.function("shop/cart")
    def cart(ctx: Context[Cart], message: Add) -> None: ...

    assert app.compile()[0].spec.handler is cart


def declare_second(function: Any, first: Any = None) -> None:
    app = App("shop")

    def cart(ctx: Context[Cart], message: Add) -> None: ...

    app.function("shop/cart")(first or cart)
    app.handler("shop/cart")(function)


def test_handlers_that_do_not_fit() -> None:
    def same(ctx: Context[Cart], message: Pay | Add) -> None: ...
    def state(ctx: Context[Other], message: Pay) -> None: ...
    def stateless(ctx: Context, message: Pay) -> None: ...
    def everything(ctx: Context[Cart], message: Any) -> None: ...
    async def style(ctx: Context[Cart], message: Pay) -> None: ...
    def signature(ctx: Context[Cart]) -> None: ...

    for function, reason in (
        (same, r"same \(.*\) and .*cart \(.*\) both take .*Add; expected one handler for each type"),
        (state, r"expected its first argument to be Context\[Cart\], as of .*cart.*, got Context\[Other\]"),
        (stateless, r"to be Context\[Cart\], as of .*cart.*, got Context$"),
        (everything, "takes every message, so nothing is left for another handler"),
        (style, "expected 'async def' or 'def' as .*cart"),
        (signature, r"expected the arguments \(ctx: Context\[MyState\], message: MyMessage\), got"),
    ):
        with pytest.raises(DefinitionError, match=f"^function 'shop/cart': .*{reason}"):
            declare_second(function)


def test_the_first_handler_must_leave_something_too() -> None:
    def pay(ctx: Context, message: Pay) -> None: ...

    with pytest.raises(DefinitionError, match="takes every message"):
        declare_second(pay, lambda ctx, message: None)


def test_a_handler_before_its_function_is_checked_when_the_function_comes() -> None:
    app = App("shop")

    @app.handler("shop/cart")
    def pay(ctx: Context[Other], message: Pay) -> None: ...

    with pytest.raises(DefinitionError, match=r"got Context\[Other\]"):

        @app.function("shop/cart")
        def cart(ctx: Context[Cart], message: Add) -> None: ...


def test_a_handler_without_a_function() -> None:
    app = shop()
    app.handler("shop/card")(lambda ctx, message: None)
    with pytest.raises(DefinitionError, match="handler of 'shop/card': there is no such function; did you mean 'shop/cart'"):
        app.compile()


def test_an_on_end_with_the_state_of_another_function() -> None:
    app = shop()

    @app.on_end("shop/cart")
    def end(ctx: Context[Other]) -> None: ...

    with pytest.raises(DefinitionError, match=r"on_end of 'shop/cart': .*expected Context\[Cart\].*, got Context\[Other\]"):
        app.compile()


# ---- upgrades ------------------------------------------------------------------------------------------------------------
def app_with(cls: Any, function: Any, version: int = 2, **options: Any) -> App:
    app = shop()
    app.upgrade(cls, version=version, **options)(function)
    return app


def rename(_version: int, fields: dict[str, Any]) -> dict[str, Any]:
    return {"total": fields["sum"], "seen": fields.get("seen", [])}


def compiled(app: App) -> CompiledFunction:
    return app.compile()[0]


def test_what_an_earlier_version_stored_is_upgraded_when_it_is_loaded_and_stored_as_this_version() -> None:
    function = compiled(app_with(Cart, rename))
    record = function.blank("a")
    function.fill(record, cbor2.dumps({"sum": 7, "~": {"hidden": 1}}))
    assert (record.total, record.seen) == (7, [])
    stored = function.encode_values(function.values_of(record))
    assert cbor2.loads(stored) == {"~v": 2, "seen": [], "total": 7}
    again = function.blank("a")
    function.fill(again, stored)
    assert (again.total, again.seen) == (7, [])
    function.fill(again, None)
    assert again.total == 0, "there is nothing to upgrade in what was never stored"
    assert function.encode_values(function.values_of(again)) is None


def test_an_upgrade_goes_from_any_version() -> None:
    seen: list[tuple[int, dict[str, Any]]] = []

    def upgrade(version: int, fields: dict[str, Any]) -> dict[str, Any]:
        seen.append((version, fields))
        return {"total": version}

    function = compiled(app_with(Cart, upgrade, version=4))
    record = function.blank("a")
    for stored in ({"a": 1}, {"~v": 3, "b": 1}, {"~v": 4, "total": 9}):
        function.fill(record, cbor2.dumps(stored))
    assert seen == [(1, {"a": 1}), (3, {"b": 1})]
    assert record.total == 9


@pytest.mark.parametrize(
    ("app", "stored", "reason"),
    [
        (app_with(Cart, rename), {"n": 1}, "the upgrade of .*Cart from version 1 to 2 failed: KeyError: 'sum'"),
        (app_with(Cart, lambda v, f: {"total": "x"}), {}, "state field 'total': .*Expected `int`, got `str`"),
        (app_with(Cart, lambda v, f: {"total": object()}), {}, "a field cannot be encoded"),
        (app_with(Cart, rename), {"~v": 3}, "version 3 of .*Cart is newer than this application's, which is 2"),
        (shop(), {"~v": 2}, "version 2 of .*Cart is newer than this application's, which is 1"),
    ],
)
def test_state_that_cannot_be_upgraded_parks_the_message_that_needs_it(app: App, stored: Any, reason: str) -> None:
    function = compiled(app)
    with pytest.raises(PayloadTypeError, match=reason):
        function.fill(function.blank("a"), cbor2.dumps(stored))
    blank = function.blank("a")
    core = core_of(app, stored={blank._key: cbor2.dumps(stored)})
    put(core, "shop/cart", ("a", Add(1)), ("b", Add(1)))
    run_all(core)
    assert core.dispatcher.letters.count == 1
    assert record_of(core, "shop/cart", "b").seen == ["add"]


def test_messages_are_upgraded_by_the_function_that_takes_them() -> None:
    app = app_with(Pay, lambda version, fields: {"n": fields["amount"]}, formerly=("old.Pay",))
    payloads = app.compile()[0].payloads
    name = f"{__name__}.Pay"
    assert payloads.by_class[Pay].name == f"{name}@2"
    assert {name, f"{name}@2", "old.Pay", "old.Pay@2"} <= set(payloads.by_name)
    assert payloads.by_name["old.Pay"].decode_item({"amount": 3}) == Pay(3)


@pytest.mark.parametrize(
    ("cls", "options", "reason"),
    [
        (Add, {"version": 1}, "version: expected a whole number from 2, .*; got 1"),
        (Add, {"version": 0, "formerly": ("a.B",)}, "version: expected a whole number from 1, .*; got 0"),
        (Add, {"version": True}, "version: expected"),
        (Add, {"formerly": "a.B"}, "formerly: expected full names, as in .*, got 'a.B'"),
        (Add, {"formerly": ("a.B@2",)}, "formerly: expected full names"),
        (Cart, {"formerly": ("a.B",)}, "formerly is for message types"),
        (Row, {}, "expected a message type with fields by name"),
        (int, {}, "expected a message type with fields by name"),
        (Context, {}, "expected a message type with fields by name"),
    ],
)
def test_upgrades_that_cannot_be(cls: Any, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(DefinitionError, match=f"^upgrade of .*{reason}"):
        app_with(cls, rename, **options)


def test_an_upgrade_with_a_wrong_signature() -> None:
    with pytest.raises(
        DefinitionError, match=r"expected the arguments \(version: int, fields: dict\[str, Any\]\), got \(fields\)"
    ):
        app_with(Add, lambda fields: fields)


def test_two_upgrades_of_one_class() -> None:
    app = app_with(Add, rename)
    with pytest.raises(DefinitionError, match=r"upgrade of .*Add is declared twice: rename .* and rename"):
        app.upgrade(Add, version=3)(rename)


def test_upgrades_of_what_nobody_uses() -> None:
    with pytest.raises(DefinitionError, match=r"upgrade of .*Nobody: no function takes it as a message"):
        app_with(Nobody, rename).compile()
    with pytest.raises(DefinitionError, match=r"upgrade of .*Other: it is the state of no function"):
        app_with(Other, rename).compile()


class Nobody(msgspec.Struct):
    n: int


def test_an_application_declares_its_egresses_by_name() -> None:
    assert App("shop").egresses is None
    assert App("shop", egresses=("late", "done")).egresses == ("late", "done")
    with pytest.raises(DefinitionError, match=r"expected names, as in egresses=\('late',\), got one text"):
        App("shop", egresses="late")
