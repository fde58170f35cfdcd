"""Counts messages per id, replies with the count, and emits each message: once in the output means executed once."""

import msgspec

from shardfun import App, Context, Message, State, Value, value

app = App("asking", egresses=["out"])


class Count(msgspec.Struct, frozen=True):
    n: int


class Counted(msgspec.Struct, frozen=True):
    n: int
    count: int


class Counter(State):
    count: Value[int] = value(0)


@app.function("ask/count")
def count(ctx: Context[Counter], message: Count) -> None:
    ctx.state.count += 1
    ctx.emit("out", {"id": ctx.self.id, "n": message.n})
    if ctx.caller is not None:
        ctx.reply(Counted(message.n, ctx.state.count))


@app.function("ask/through")
def through(ctx: Context[Counter], message: Count) -> None:
    """Hands the question on to another shard, and the answer back: three crossings of the mesh."""
    assert ctx.caller is not None
    ctx.state.count += 1
    ctx.send("ask/answer", f"other{message.n}", [ctx.caller.typename, ctx.caller.id, str(message.n)])


@app.function("ask/answer")
def answer(ctx: Context[Counter], message: list[str]) -> None:
    typename, id, n = message
    ctx.emit("out", {"id": "through", "n": int(n)})
    ctx.send(typename, id, Counted(int(n), 0))


@app.router("events")
def route(record: dict[str, int]):
    yield Message("ask/count", f"file{record['n'] % 5}", Count(record["n"]))
