"""One function alone: what it sees, what it does, what it is not allowed to do."""

from __future__ import annotations

import datetime as dt

import msgspec
import pytest
from kit_shop import CART, PAYMENT, REPORT, STOCK, Add, Idle, Paid, Pay, Reserve, Reserved, build, double

from shardfun import Address, App, Context, State, Value, value
from shardfun.errors import FunctionTimeoutError, PayloadTypeError, UnknownTargetError
from shardfun.testing import Delayed, Emitted, FunctionTest, NotQuietError, Result, Sent, StartedOperation, route

SHOP = build()
ME = Address(CART, "c1")


def test_effects_are_shown_and_the_state_is_changed() -> None:
    test = FunctionTest(SHOP, CART, id="c1", state={"items": 2, "names": ["tea"]})
    result = test.receive(Add("book", 3))
    assert result.sent == [Sent(Address(STOCK, "book"), Reserve(3))]
    assert result.delayed == [Delayed(dt.timedelta(hours=6), ME, Idle(), "idle")]
    assert (result.emitted, result.cancelled, result.operations, result.error) == ([], [], [], None)
    assert vars(test.state) == {"items": 5, "reserved": 0, "names": ["tea", "book"], "idle": 0}


def test_nothing_is_delivered() -> None:
    """Also what the function sends to itself or to a function that would answer."""
    test = FunctionTest(SHOP, CART)
    test.receive(Add("book"))
    assert test.state.reserved == 0
    assert test.receive(Reserved(1, 9)) == Result(emitted=[Emitted("reserved", {"cart": "test", "pieces": 1, "left": 9})])


def test_a_failed_invocation_raises_and_has_no_effect() -> None:
    test = FunctionTest(SHOP, CART, state={"items": 2})
    with pytest.raises(ValueError, match="-1 pieces"):
        test.receive(Add("book", -1))
    assert vars(test.state) == {"items": 2, "reserved": 0, "names": [], "idle": 0}
    result = test.receive(Add("book", -1), raises=False)
    assert isinstance(result.error, ValueError)
    assert (result.sent, result.delayed) == ([], [])
    assert test.receive(Add("book")).error is None, "the next one is not affected, its token is free"


def test_a_reply_goes_to_the_caller() -> None:
    result = FunctionTest(SHOP, STOCK, id="tea").receive(Reserve(1), caller=ME)
    assert result.sent == [Sent(ME, Reserved(1, 99))]


def test_time_moves_only_when_told_and_shows_what_would_be_sent() -> None:
    start = dt.datetime(2030, 5, 1, 12, tzinfo=dt.UTC)
    test = FunctionTest(SHOP, CART, id="c1", now=start)
    test.receive(Add("book"))
    assert test.advance(dt.timedelta(hours=5)) == []
    assert test.advance(3600) == [Sent(ME, Idle())]
    assert test.now == start + dt.timedelta(hours=6)
    assert test.receive(Idle()).emitted == [Emitted("idle", ["c1", "2030-05-01T18:00:00+00:00"])]
    assert test.advance(dt.timedelta(days=9)) == []


def test_a_cancelled_message_is_not_sent() -> None:
    test = FunctionTest(SHOP, CART)
    test.receive(Add("book"))
    assert test.receive(Paid(5)).cancelled == ["idle"]
    assert test.advance(dt.timedelta(days=1)) == []


def test_the_end_of_a_bounded_run() -> None:
    test = FunctionTest(SHOP, CART, id="c1", state={"items": 2})
    assert test.end().emitted == [Emitted("carts", {"cart": "c1", "items": 2, "reserved": 0})]
    with pytest.raises(ValueError, match=r"has no on_end: expected @app.on_end\('shop/stock'\)"):
        FunctionTest(SHOP, STOCK).end()


def test_an_async_function_is_awaited_without_waiting() -> None:
    with FunctionTest(SHOP, PAYMENT) as test:
        before = test.now
        assert test.receive(Pay(7, takes_s=50)).emitted == [Emitted("paid", 7)]
        assert vars(test.state) == {"cents": 7, "at": 50.0, "attempts": 0}
        assert test.now - before == dt.timedelta(seconds=50)


def test_an_async_function_times_out() -> None:
    with FunctionTest(SHOP, PAYMENT) as test, pytest.raises(FunctionTimeoutError, match="timeout of 60 s"):
        test.receive(Pay(7, takes_s=61))
    assert test.state.cents == 0


def test_what_never_comes_is_said() -> None:
    app = App("app")

    @app.function("a/b")
    async def wait(_ctx: Context, _message: int) -> None:
        import trio

        await trio.Event().wait()

    with FunctionTest(app, "a/b") as test, pytest.raises(NotQuietError, match="a/b:test awaits what does not come"):
        test.receive(1)


def test_operations_are_shown_and_do_not_run() -> None:
    result = FunctionTest(SHOP, REPORT).receive(Pay(4))
    assert result.operations == [StartedOperation(double, (4,), "doubled")]


def test_logs_and_metrics() -> None:
    test = FunctionTest(SHOP, CART, id="c1")
    (line,) = test.receive(Add("book", 3)).logs
    assert (line["event"], line["log_level"], line["item"], line["address"]) == ("added", "info", "book", "shop/cart:c1")
    assert test.metrics == {"added": 3}


def test_randomness_follows_the_seed() -> None:
    def ids(seed: int) -> list[str]:
        test = FunctionTest(SHOP, "shop/ping", seed=seed)
        return [test.receive(1).sent[0].target.id for _ in range(20)]

    assert ids(1) == ids(1)
    assert ids(1) != ids(2)


# ---- mistakes ------------------------------------------------------------------------------------------------------------
def test_a_message_that_the_function_does_not_accept() -> None:
    with pytest.raises(PayloadTypeError, match=r"shop/stock accepts kit_shop.Reserve, not Add"):
        FunctionTest(SHOP, STOCK).receive(Add("book"))
    with pytest.raises(PayloadTypeError, match="pieces"):
        FunctionTest(SHOP, STOCK).receive(Reserve("many"))  # type: ignore[arg-type]


def test_a_state_that_does_not_fit() -> None:
    with pytest.raises(PayloadTypeError, match="there is no field 'item'; did you mean 'items'"):
        FunctionTest(SHOP, CART, state={"item": 1})
    with pytest.raises(PayloadTypeError, match="items"):
        FunctionTest(SHOP, CART, state={"items": "many"})


def test_an_unknown_function() -> None:
    with pytest.raises(UnknownTargetError, match="did you mean 'shop/cart'"):
        FunctionTest(SHOP, "shop/card")


def test_a_time_without_a_zone() -> None:
    with pytest.raises(ValueError, match="with a time zone"):
        FunctionTest(SHOP, CART, now=dt.datetime(2024, 1, 1))  # noqa: DTZ001 - the point
    with pytest.raises(ValueError, match="forward"):
        FunctionTest(SHOP, CART).advance(-1)


class Point(msgspec.Struct, frozen=True):
    x: float
    name: str


class Places(State):
    last: Value[Point] = value(Point(0.0, ""))
    count: Value[int] = value(0)


def build_places(**options: object) -> App:
    app = App("places", **options)  # type: ignore[arg-type]

    @app.function("p/place")
    def place(ctx: Context[Places], message: str) -> None:
        if message == "wrong type":
            ctx.state.count = "many"  # type: ignore[assignment]
        elif message == "wrong field":
            ctx.send("p/other", "1", Point("far", "away"))  # type: ignore[arg-type]
        elif message == "no encoding":
            ctx.state.last = Point(1.0, "\ud800")
        elif message == "no json":
            ctx.emit("out", object())
        else:
            ctx.emit(message, 1)

    @app.function("p/other")
    def other(_ctx: Context, _message: Point) -> None:
        pass

    return app


@pytest.mark.parametrize("message", ["wrong type", "wrong field", "no encoding", "no json"])
def test_what_production_would_park_or_fail_is_an_error_here(message: str) -> None:
    """Each of them would be noticed late, or only in another process."""
    with pytest.raises(PayloadTypeError):
        FunctionTest(build_places(), "p/place").receive(message)


def test_any_egress_is_there_unless_the_application_declares_them() -> None:
    assert FunctionTest(build_places(), "p/place").receive("any").emitted == [Emitted("any", 1)]
    declared = build_places(egresses=("known",))
    assert FunctionTest(declared, "p/place").receive("known").emitted == [Emitted("known", 1)]
    with pytest.raises(UnknownTargetError, match="did you mean 'known'"):
        FunctionTest(declared, "p/place").receive("knwon")


def test_emitted_values_are_as_they_were_given() -> None:
    """Later changes do not show."""
    app = App("app")

    @app.function("a/b")
    def emit(ctx: Context, message: str) -> None:
        values = [message]
        ctx.emit("out", values)
        values.append("more")

    assert FunctionTest(app, "a/b").receive("one").emitted == [Emitted("out", ["one"])]


# ---- routers -------------------------------------------------------------------------------------------------------------
def test_a_router_alone() -> None:
    assert route(SHOP, "orders", {"cart": "c1", "item": "tea", "pieces": 2}) == [(CART, "c1", Add("tea", 2))]
    with pytest.raises(KeyError, match="item"):
        route(SHOP, "orders", {"cart": "c1"})
    with pytest.raises(PayloadTypeError, match="pieces"):
        route(SHOP, "orders", {"cart": "c1", "item": "tea", "pieces": "two"})
    with pytest.raises(ValueError, match="routers exist for: orders"):
        route(SHOP, "order", {})
