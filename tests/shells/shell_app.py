"""The application of these tests: sums that do not depend on the order of different senders, in every way that a function can run.

A record is a step for one address: add an amount, pass it on, and tell. Whatever fails or is late, each record counts once.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from shell_process import spend

from shardfun import App, Context, State, Value, value

Way = Literal["plain", "awaits", "blocks", "later", "slow", "fails"]
WAYS: Final[tuple[Way, ...]] = ("plain", "plain", "plain", "awaits", "blocks", "later", "slow", "fails")
LATER_S: Final = 0.7


class Add(msgspec.Struct, frozen=True):
    number: int
    amount: int
    to: str
    seconds: float = 0.0


class Total(State):
    count: Value[int] = value(0)
    total: Value[int] = value(0)


app = App("shells")


def _add(ctx: Context[Total], add: Add) -> None:
    ctx.state.count += 1
    ctx.state.total += add.amount
    ctx.emit("log", {"number": add.number, "at": ctx.id, "count": ctx.state.count, "total": ctx.state.total})
    if add.to:
        ctx.send("shells/plain", add.to, Add(-add.number, add.amount, ""))


@app.function("shells/plain")
def plain(ctx: Context[Total], add: Add) -> None:
    _add(ctx, add)


@app.function("shells/slow")
def slow(ctx: Context[Total], add: Add) -> None:
    spend(add.seconds)
    _add(ctx, add)


@app.function("shells/fails")
def fails(ctx: Context[Total], add: Add) -> None:
    msg = f"refused {add.number}"
    raise ValueError(msg)
