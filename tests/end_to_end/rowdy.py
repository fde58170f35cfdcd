"""The application of these tests: it counts, and does everything wrong that it is told to.

A record ``{"id": ..., "do": ..., ...}`` goes to ``test/worker`` at its id. ``total`` counts the messages that were a success.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from shardfun.sdk.app import App, Message
from shardfun.sdk.context import Context
from shardfun.sdk.state import State, Value, value

app = App("rowdy")

ATTEMPTS: dict[str, int] = {}
"""By id, in this process. On purpose not in the state: it survives a failed attempt."""


class Inner(msgspec.Struct, frozen=True):
    text: str = ""


class Tally(State):
    total: Value[int] = value(0)
    inner: Value[Inner] = value(Inner())
    seen: Value[list[int]] = value(default_factory=list)


class RefusedError(Exception):
    pass


@app.router("events")
def route(record: dict[str, Any]) -> Iterator[Message]:
    if record.get("do") == "router":
        yield Message("test/sink", "router", 1)
        raise RefusedError("the router does not want this record")
    yield Message("test/worker", record["id"], record)


@app.function("test/worker")
def work(ctx: Context[Tally], record: dict[str, Any]) -> None:
    state = ctx.state
    todo = record.get("do", "count")
    if "while" in record and not Path(record["while"]).exists():
        todo = "count"
    state.total += record.get("n", 1)
    if todo != "flood":
        state.seen = [*state.seen, record.get("n", 1)]
    if todo in {"raise", "raise-once", "exit"}:
        state.seen.append(-1)
        ctx.send("test/sink", "trace", 1)
        ctx.emit("out", {"id": ctx.self.id, "trace": True})
        ATTEMPTS[ctx.self.id] = ATTEMPTS.get(ctx.self.id, 0) + 1
        if todo == "exit":
            sys.exit("a function may not end the shard")
        if todo == "raise" or ATTEMPTS[ctx.self.id] == 1:
            raise RefusedError(f"attempt {ATTEMPTS[ctx.self.id]}")
        ctx.emit("out", {"id": ctx.self.id, "after": ATTEMPTS[ctx.self.id]})
    elif todo == "wrong-payload":
        ctx.send("test/sink", "x", "a text")
    elif todo == "unknown-function":
        ctx.send("test/sinc", "x", 1)
    elif todo == "unknown-egress":
        ctx.emit("owt", 1)
    elif todo == "wrong-state":
        state.total = "many"  # type: ignore[assignment]
    elif todo == "wrong-id":
        ctx.send("test/sink", "", 1)
    elif todo == "relay":
        ctx.send("test/fragile", record["to"], record.get("n", 1))
    elif todo == "echo":
        ctx.send("test/echo", record["to"], record["text"] * record.get("times", 1))
    elif todo == "sleep":
        time.sleep(record["s"])
    elif todo == "sleep-once":
        flag = Path(record["flag"])
        if not flag.exists():
            flag.touch()
            time.sleep(record["s"])
    elif todo == "die":
        state.total += 1_000_000
        ctx.send("test/sink", "trace", 1)
        ctx.emit("out", {"id": ctx.self.id, "trace": True})
        die(record)
    elif todo == "bad-state":
        state.inner = Inner(object())  # type: ignore[arg-type]
    elif todo == "flood":
        for _ in range(100):
            ctx.send("test/worker", ctx.self.id, record)
    elif todo == "big":
        ctx.send("test/echo", record["to"], "x" * record["bytes"])
    elif todo == "report":
        ctx.emit("out", {"id": ctx.self.id, "n": record["n"], "total": state.total})
    else:
        assert todo == "count", todo


def die(record: dict[str, Any]) -> None:
    """End this process as the record says."""
    match record["by"]:
        case "exit":
            os._exit(record["code"])
        case "fault":
            ctypes.string_at(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "raise":
            raise RefusedError("there is a bug")
        case by:
            raise AssertionError(by)


@app.on_end("test/worker")
def report(ctx: Context[Tally]) -> None:
    ctx.emit("out", {"id": ctx.self.id, "total": ctx.state.total, "seen": ctx.state.seen})


@app.function("test/sink")
def sink(ctx: Context[Tally], number: int) -> None:
    ctx.state.total += number


@app.on_end("test/sink")
def report_sink(ctx: Context[Tally]) -> None:
    ctx.emit("out", {"sink": ctx.self.id, "total": ctx.state.total})


@app.function("test/fragile")
def fragile(ctx: Context[Tally], number: int) -> None:
    raise RefusedError(f"never takes {number}")


@app.function("test/echo")
def echo(ctx: Context[Tally], text: str) -> None:
    ctx.state.total += len(text)
    caller = ctx.caller
    assert caller is not None
    ctx.emit("out", {"echo": ctx.self.id, "from": caller.id, "length": len(text)})


@app.function("test/counter")
def count(ctx: Context[Tally], number: int) -> None:
    ctx.state.total += number


@app.on_end("test/counter")
def report_counter(ctx: Context[Tally]) -> None:
    ctx.emit("out", {"id": ctx.self.id, "total": ctx.state.total})


csv_app = App("rowdy-csv")


@csv_app.function("test/csv")
def row(ctx: Context[Tally], record: dict[str, Any]) -> None:
    ctx.state.total += int(record["n"])


@csv_app.on_end("test/csv")
def report_row(ctx: Context[Tally]) -> None:
    ctx.emit("out", {"id": ctx.self.id, "total": ctx.state.total})
