"""An application with the mistake that chaos is there to find: it counts in a global variable, which dies with its process."""

from __future__ import annotations

from typing import Any

from shardfun import App, Context, Message, State, Value, value

app = App("counting", egresses=("sums",))
seen: list[int] = []


class Adder(State):
    """What an adder remembers."""

    total: Value[int] = value(0)
    shown: Value[int] = value(0)


@app.function("count/adder")
def add(ctx: Context[Adder], number: int) -> None:
    seen.append(number)
    ctx.state.total += number
    ctx.state.shown = len(seen)


@app.on_end("count/adder")
def show(ctx: Context[Adder]) -> None:
    ctx.emit("sums", {"id": ctx.self.id, "total": ctx.state.total, "shown": ctx.state.shown})


@app.router("numbers")
def route(record: dict[str, Any]) -> list[Message]:
    return [Message("count/adder", record["id"], record["number"])]
