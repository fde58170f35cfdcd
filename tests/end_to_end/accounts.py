"""The application of the tests of queries: accounts with every kind of state.

A record ``{"id": ..., "n": ..., "to": ...}`` goes to the function type ``to`` (by default ``bank/account``) at its id.
"""

import datetime as dt
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from shardfun import App, Buffer, Context, Map, Message, Registry, State, Value, after_write, buffer, mapping, registry, value

app = App("accounts")


class Last(msgspec.Struct, frozen=True):
    n: int = 0
    raw: bytes = b""


class Account(State):
    total: Value[int] = value(0)
    last: Value[Last] = value(Last())
    fading: Value[int] = value(0, expire=after_write(seconds=0.5))
    days: Map[dt.date, int] = mapping()
    recent: Buffer[int] = buffer()
    extra: Registry = registry()


class Tally(State):
    total: Value[int] = value(0)


@app.router("events")
def route(record: dict[str, Any]) -> Iterator[Message]:
    yield Message(record.get("to", "bank/account"), record["id"], record["n"])


@app.function("bank/account")
def account(ctx: Context[Account], n: int) -> None:
    state = ctx.state
    state.total += n
    state.last = Last(n, b"\xff")
    state.fading = n
    state.days[dt.date(2024, 1, 1) + dt.timedelta(days=n)] = n
    state.recent.append(n)
    state.extra.map("by.sign", str, int)["+" if n >= 0 else "-"] = n


@app.function("tally/*")
def tally(ctx: Context[Tally], n: int) -> None:
    ctx.state.total += n


@app.function("slow/thread", blocking=True)
def slow(ctx: Context[Tally], n: int) -> None:
    ctx.state.total += n
    time.sleep(n)
