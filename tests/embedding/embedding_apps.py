"""The applications of these tests: a module, as most programs have one."""

from __future__ import annotations

import msgspec

from shardfun import App, Context, State, Value, value

COUNTER = "demo/counter"
FAST = {"checkpoint": {"interval": "40 ms"}, "supervision": {"spares": 0}}
"""Settings of most nodes."""


class Add(msgspec.Struct, frozen=True):
    n: int


class Total(msgspec.Struct, frozen=True):
    total: int


class Fail(msgspec.Struct, frozen=True):
    """Ends the node: a function that asks for more messages than may wait."""

    text: str


class Count(State):
    total: Value[int] = value(0)
    messages: Value[int] = value(0)


app = App("demo", egresses=["totals"])


@app.function(COUNTER)
def counter(ctx: Context[Count], message: Add) -> None:
    ctx.state.total += message.n
    ctx.state.messages += 1
    ctx.emit("totals", {"id": ctx.self.id, "message": ctx.state.messages, "n": message.n, "total": ctx.state.total})
    if ctx.caller is not None:
        ctx.reply(Total(ctx.state.total))


@app.function("demo/silent")
def silent(ctx: Context, message: Add) -> None:
    """Never replies."""


@app.function("demo/flood")
def flood(ctx: Context, message: Fail) -> None:
    for _ in range(50):
        ctx.send(*ctx.self, message)


def made_in_a_function() -> App:
    hidden = App("hidden")
    hidden.function("hidden/function")(silent_function)
    return hidden


def silent_function(ctx: Context, message: int) -> None:
    """Nothing."""
