"""The application of the tests of calls: functions that await, block, and start operations.

A record ``{"id": ..., "do": ..., "n": ...}`` goes to the function type that ``do`` names, at its id.
"""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trio

from shardfun import App, Context, Message, OperationResult, State, Value, dead_letter, restart, retry, value

app = App("waiting")


class Tally(State):
    total: Value[int] = value(0)
    count: Value[int] = value(0)


@app.router("events")
def route(record: dict[str, Any]) -> Iterator[Message]:
    yield Message(f"test/{record['do']}", record["id"], record.get("n", 1))


def add(ctx: Context[Tally], number: int) -> None:
    ctx.state.total += number
    ctx.state.count += 1
    ctx.emit("out", {"do": ctx.self.typename, "id": ctx.self.id, "count": ctx.state.count, "total": ctx.state.total})


@app.function("test/await")
async def awaits(ctx: Context[Tally], number: int) -> None:
    await trio.sleep(number / 1000)
    add(ctx, number)
    ctx.send("test/count", "all", number)


@app.function("test/block", blocking=True)
def blocks(ctx: Context[Tally], number: int) -> None:
    time.sleep(number / 1000)
    add(ctx, number)
    ctx.send("test/count", "all", number)


@app.function("test/asyncio", asyncio=True)
async def awaits_asyncio(ctx: Context[Tally], number: int) -> None:
    await asyncio.gather(asyncio.sleep(number / 1000), asyncio.sleep(0))
    add(ctx, number)
    ctx.send("test/count", "all", number)


@app.function("test/count")
def count(ctx: Context[Tally], number: int) -> None:
    add(ctx, number)


@app.function("test/late", timeout=0.1, on_failure=dead_letter())
async def late(ctx: Context[Tally], number: int) -> None:
    ctx.send("test/count", "never", number)
    await trio.sleep(number)


@app.function("test/stuck", blocking=True, timeout=0.1, on_failure=dead_letter())
def stuck(ctx: Context[Tally], number: int) -> None:
    time.sleep(number)


@app.function("test/flag", on_failure=retry(attempts=1000, backoff=0.02, backoff_max=0.05))
def waits_for_flag(ctx: Context[Tally], number: int) -> None:
    add(ctx, number)
    if not Path("flag").exists():
        raise FileNotFoundError("flag")


@app.function("test/restart", on_failure=restart())
def restarts(ctx: Context[Tally], number: int) -> None:
    with Path("attempts").open("a") as file:
        file.write("x")
    if not Path("flag").exists() and Path("attempts").stat().st_size < 4:
        raise ConnectionError("not there yet")
    add(ctx, number)


@app.function("test/spin")
async def spins(ctx: Context[Tally], number: int) -> None:
    await trio.sleep(0.01)
    end = time.monotonic() + number
    while time.monotonic() < end:
        pass


@app.function("test/die")
async def dies(ctx: Context[Tally], number: int) -> None:
    await trio.sleep(0.05)
    if number < 0:
        os._exit(3)
    add(ctx, number)


async def double(number: int) -> int:
    await trio.sleep(0.02)
    if number < 0:
        raise ValueError(number)
    return 2 * number


def block_double(number: int) -> int:
    time.sleep(0.02)
    return 2 * number


class Answers(State):
    text: Value[str] = value("")


@app.function("test/ask")
def ask(ctx: Context[Answers], message: int | OperationResult[int, int]) -> None:
    if isinstance(message, int):
        ctx.start_operation(double if message % 2 else block_double, message, metadata=message)
    else:
        ctx.emit("out", {"id": ctx.self.id, "asked": message.metadata, "status": message.status.name, "value": message.value})
