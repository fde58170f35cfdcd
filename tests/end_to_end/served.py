"""An application behind an HTTP door: it counts, replies, reports, and fails on request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from shardfun import App, Context, State, Value, value

app = App("served")


class Add(msgspec.Struct, frozen=True):
    n: int
    bug: str = ""
    padding: str = ""


class Total(msgspec.Struct, frozen=True):
    id: str
    total: int


class Counter(State):
    total: Value[int] = value(0)


@app.router("orders")
def route(record: dict[str, Any]) -> Iterator[tuple[str, str, Add]]:
    yield "test/counter", record["id"], Add(record["n"])


@app.function("test/counter")
def count(ctx: Context[Counter], message: Add) -> None:
    if message.bug and Path(message.bug).exists():
        raise ValueError("a bug")
    ctx.state.total += message.n
    total = Total(ctx.self.id, ctx.state.total)
    if ctx.caller is not None:
        ctx.reply(total)
    ctx.emit("totals", total)
    ctx.emit("out", total)
