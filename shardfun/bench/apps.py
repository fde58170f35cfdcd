"""The applications that the benchmarks run."""

from __future__ import annotations

from shardfun import App, Context, State, Value, value

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
