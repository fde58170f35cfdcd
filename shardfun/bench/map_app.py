"""The application of the benchmark ``map``: one address with many entries, and one with a single value to compare with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from shardfun import App, Context, Map, Message, State, Value, mapping, value

FILL_ENTRIES = 1000
ID = "all"

app = App("bench-map")


class Fill(msgspec.Struct, frozen=True):
    """Make the entries from ``first`` on."""

    first: int


class Counts(State):
    """A count per key."""

    counts: Map[int, int] = mapping()


class Total(State):
    """One count."""

    total: Value[int] = value(0)


@app.function("bench/map")
def update(ctx: Context[Counts], message: int | Fill) -> None:
    """Read one entry and write it."""
    counts = ctx.state.counts
    if isinstance(message, Fill):
        counts.update((key, 0) for key in range(message.first, message.first + FILL_ENTRIES))
    else:
        counts[message] = counts.get(message, 0) + 1


@app.function("bench/value")
def count(ctx: Context[Total], message: int) -> None:
    """The same with a single value."""
    ctx.state.total += message


@app.router("fill")
def fill(record: dict[str, Any]) -> Iterator[Message]:
    """Event k: entries k * 1000 and the following."""
    yield Message("bench/map", ID, Fill(int(record["id"][1:]) * FILL_ENTRIES))


@app.router("updates")
def updates(record: dict[str, Any]) -> Iterator[Message]:
    """Event k: an update of entry k."""
    yield Message("bench/map", ID, int(record["id"][1:]))


@app.router("values")
def values(record: dict[str, Any]) -> Iterator[Message]:
    """Event k: an update of the single value."""
    yield Message("bench/value", ID, int(record["id"][1:]))
