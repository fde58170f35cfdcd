"""Checked by mypy, never run: what an author's editor knows. Each ``# error: code`` says that mypy must object to its line."""

from __future__ import annotations

from typing import Any, assert_type

import msgspec

from shardfun import Address, App, Context, Message, State, Value, value


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
