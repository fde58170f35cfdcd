"""The application of the tests of timers. A record ``{"id": ..., "after": seconds, ...}`` makes one, which rings at another id."""

import time
from collections.abc import Iterator
from typing import Any

from shardfun import App, Context, Message, State, Value, value

app = App("clocks")


class Rings(State):
    count: Value[int] = value(0)


@app.router("events")
def route(record: dict[str, Any]) -> Iterator[Message]:
    yield Message("test/alarm", record["id"], record)


@app.function("test/alarm")
def alarm(ctx: Context, record: dict[str, Any]) -> None:
    if "cancel" in record:
        ctx.cancel(record["cancel"])
    else:
        due = ctx.now().timestamp() + record["after"]
        bell = f"bell of {record['id']}"
        ctx.send_after(record["after"], "test/bell", bell, due, token=record.get("token", ""), replace="token" in record)


@app.function("test/bell")
def bell(ctx: Context[Rings], due: float) -> None:
    ctx.state.count += 1
    assert ctx.caller is not None
    late = time.time() - due
    ctx.emit("out", {"id": ctx.caller.id, "due": due, "count": ctx.state.count, "early": late < -0.001, "late": late})
