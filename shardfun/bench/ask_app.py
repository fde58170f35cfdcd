"""What ``shardfun bench ask`` asks: a counter that replies with its new value."""

from __future__ import annotations

import msgspec

from shardfun.sdk.app import App
from shardfun.sdk.context import Context
from shardfun.sdk.state import State, Value, value

app = App("bench-ask")


class Increment(msgspec.Struct, frozen=True):
    """Add to the counter."""

    by: int


class Total(msgspec.Struct, frozen=True):
    """The counter."""

    total: int


class Counter(State):
    """One number."""

    total: Value[int] = value(0)


@app.function("bench/counter")
def counter(ctx: Context[Counter], message: Increment) -> None:
    """Count, and say how far."""
    ctx.state.total += message.by
    if ctx.caller is not None:
        ctx.reply(Total(ctx.state.total))
