"""The applications that the benchmarks run."""

from __future__ import annotations

import time
from zlib import crc32

import msgspec

from shardfun import App, Context, State, Value, value

AGAIN_S = 3600.0  # a timer that has fired makes one that is far away

app = App("bench")


class Counter(State):
    """A count per id."""

    count: Value[int] = value(0)


@app.function("bench/counter")
def counter(ctx: Context[Counter], amount: int) -> None:
    """Count an event."""
    ctx.state.count += amount


@app.function("bench/wait")
async def wait(_ctx: Context, _message: int) -> None:
    """Await for ever."""
    import trio

    await trio.sleep_forever()


class Plan(msgspec.Struct, frozen=True):
    """When the timers of a benchmark fire: ``count`` of each id, evenly over ``span_s`` from ``begin`` (unix seconds) on."""

    begin: float
    span_s: float
    count: int


class Made(State):
    """Timers made by an id."""

    timers: Value[int] = value(0)


@app.function("bench/timers")
def timers(ctx: Context[Made], message: str | float) -> None:
    """Make the next timer of an id, by the plan in the message; an empty one is for the reference. When it fires, make another."""
    if isinstance(message, float):
        ctx.emit("lateness", (message, round(time.time() - message, 6)))
        ctx.send_after(AGAIN_S, *ctx.self, message + AGAIN_S)
    elif message:
        plan = msgspec.json.decode(message, type=Plan)
        due = plan.begin + plan.span_s * (ctx.state.timers + crc32(ctx.self.id.encode()) / 2**32) / plan.count
        ctx.state.timers += 1
        ctx.send_after(max(0.0, due - ctx.now().timestamp()), *ctx.self, due)
