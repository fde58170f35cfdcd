"""Checked by mypy and pyright, never run: what an author's editor knows.

Each ``# error: code`` says that mypy must object to its line, with this code; pyright has other codes.
"""

from __future__ import annotations

from typing import Any, assert_type

import msgspec

from shardfun import (
    Address,
    App,
    Buffer,
    Context,
    Map,
    Message,
    OperationResult,
    OperationStatus,
    Registry,
    State,
    Value,
    after_write,
    buffer,
    mapping,
    registry,
    retry,
    value,
)


class Item(msgspec.Struct, frozen=True):
    number: int


class Cart(State):
    count: Value[int] = value(0)
    note: Value[str | None] = value(None)
    items: Value[list[Item]] = value(default_factory=list)
    wrong: Value[int] = value("text")  # error: arg-type

    @property
    def double(self) -> int:
        return self.count * 2


app = App("typing")


@app.function("t/cart")
def cart(ctx: Context[Cart], message: Item | int) -> None:
    assert_type(ctx.state.count, int)
    assert_type(ctx.state.note, str | None)
    assert_type(ctx.state.items, list[Item])
    assert_type(ctx.state.double, int)
    assert_type(ctx.self, Address)
    assert_type(ctx.caller, Address | None)
    assert_type(Cart.count, Value[int])
    ctx.state.count += 1
    ctx.state.note = None
    ctx.state.items.append(Item(1))
    ctx.state.count = "text"  # error: assignment
    ctx.state.note = 5  # error: assignment
    ctx.state.items.append(5)  # error: arg-type
    ctx.state.conut = 5  # error: attr-defined
    ctx.send("t/cart", "id", Item(1))
    ctx.send("t/cart", 5, Item(1))  # error: arg-type
    ctx.send(*ctx.caller, 1)  # error: call-arg, misc
    if ctx.caller is not None:
        ctx.send(*ctx.caller, 1)
    ctx.self = Address("a/b", "c")  # error: misc


class Shop(State):
    prices: Map[str, float] = mapping(expire=after_write(days=1))
    recent: Buffer[Item] = buffer()
    extra: Registry = registry()
    expiring: Value[int] = value(0, expire=after_write(days=1))


@app.function("t/shop")
def shop(ctx: Context[Shop], message: Item) -> None:
    prices, recent, extra = ctx.state.prices, ctx.state.recent, ctx.state.extra
    assert_type(prices, Map[str, float])
    assert_type(prices["a"], float)
    assert_type(prices.get("a"), float | None)
    assert_type(prices.get("a", 1.0), float)
    assert_type(prices.get("a", None), float | None)
    assert_type(prices.pop("a", "none"), float | str)
    assert_type(list(prices.items(start="a", stop="b")), list[tuple[str, float]])
    assert_type(list(prices), list[str])
    prices[5] = 1.0  # error: index
    prices["a"] = "text"  # error: assignment
    prices.update({"a": 1.0})
    prices.update([("a", "text")])  # error: list-item
    assert_type("a" in prices, bool)
    len(prices)  # error: arg-type
    recent.append(Item(1))
    recent.append("text")  # error: arg-type
    assert_type(list(recent.view()), list[Item])
    assert_type(len(recent), int)
    assert_type(extra.value("n", int, default=0).get(), int)
    assert_type(extra.value("l", list[int], default_factory=list).get(), list[int])
    extra.value("n", int, default=0).set("text")  # error: arg-type
    assert_type(extra.map("m", str, int), Map[str, int])
    assert_type(extra.buffer("b", str), Buffer[str])
    ctx.state.prices = {}  # error: assignment
    ctx.state.expiring += 1
    del ctx.state.expiring
    assert_type("prices" in ctx.state, bool)
    ctx.delete_instance()


@app.function("t/returns")  # error: type-var
def returns(ctx: Context[Cart], message: int) -> int:
    return message


@app.on_end("t/cart")
def end(ctx: Context[Cart]) -> None:
    assert_type(ctx.state.count, int)


@app.router("in")
def route(record: Any) -> list[Message]:
    return [Message("t/cart", "id", record), Message("t/cart", 5, record)]  # error: arg-type


@app.router("in")  # error: type-var
def no_messages(record: Any) -> int:
    return 1


class Other(State):
    seen: Value[bool] = value(False)


@app.function("t/plain")
def stateless(ctx: Context, message: int) -> None:
    assert_type(ctx.self, Address)
    assert_type(ctx.state, State)
    ctx.state.count = 1  # error: attr-defined
    ctx.emit("out", message)
    ctx.emit(message, 1)  # error: arg-type


@app.function("t/slow", timeout=5.0, on_failure=retry(attempts=3, backoff=0.1))
async def slow(ctx: Context[Cart], message: Item) -> None:
    assert_type(ctx.state.count, int)
    ctx.state.count = "text"  # error: assignment


@app.function("t/slow", timeout="5 s")  # error: arg-type
def wrong_option(ctx: Context, message: int) -> None: ...


@app.function("t/*")
def anything(ctx: Context[Other], message: Item | OperationResult[Item, int]) -> None:
    if isinstance(message, OperationResult):
        assert_type(message.metadata, Item)
        assert_type(message.status, OperationStatus)
        assert_type(message.value, int | None)
        ctx.state.seen = message.status is OperationStatus.SUCCESS
    else:
        ctx.send(ctx.self.typename, "x", message.number)


@app.handler("t/*")
def more(ctx: Context[Other], message: str) -> None:
    assert_type(ctx.state.seen, bool)


@app.handler("t/*")  # error: type-var
def returns_too(ctx: Context[Other], message: bytes) -> bytes:
    return message


@app.upgrade(Item, version=2, formerly=("old.Item",))
def upgrade_item(version: int, fields: dict[str, Any]) -> dict[str, Any]:
    return {"number": fields["n"]}


@app.upgrade(Cart, version="2")  # error: arg-type
def upgrade_cart(version: int, fields: dict[str, Any]) -> dict[str, Any]:
    return fields


@app.upgrade(Other, version=2)  # error: type-var
def upgrade_other(fields: dict[str, Any]) -> dict[str, Any]:
    return fields


App("x", egresses=("late",))
App("x", egresses=5)  # error: arg-type
