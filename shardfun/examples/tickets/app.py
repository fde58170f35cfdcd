"""Counts how often each ticket was opened.

The records of the ingress ``changes`` come from the class in ``source.py``; the egress ``history`` goes to the one in ``sink.py``.
Both are named in the configuration. The ingress ``reminders`` has its source right here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import trio

from shardfun import App, Context, Message, State, Value, value

REMINDERS = 1000
app = App("tickets", egresses=("history",))


class Ticket(State):
    """One ticket."""

    times: Value[int] = value(0)
    reminders: Value[int] = value(0)


@app.router("changes")
def by_ticket(record: dict[str, Any]) -> Iterator[Message]:
    """Only openings count."""
    if record["open"]:
        yield Message("tickets/ticket", record["ticket"], "opened")


@app.ingress("reminders")
async def reminders(position: int | None) -> AsyncIterator[tuple[int, str]]:
    """Somebody looks at one ticket after the other. It could as well be a socket: what counts is that it can go on at a position."""
    first = 0 if position is None else position + 1
    for number in range(first, REMINDERS):
        if number % 50 == 0:
            await trio.sleep(0.1)
        yield number, f"ticket-{number % 10}"


@app.router("reminders")
def remind(ticket: str) -> Iterator[Message]:
    """A record is the id of a ticket."""
    yield Message("tickets/ticket", ticket, "reminded")


@app.function("tickets/ticket")
def ticket(ctx: Context[Ticket], message: str) -> None:
    """Count, and say it."""
    if message == "opened":
        ctx.state.times += 1
        ctx.emit("history", {"ticket": ctx.self.id, "times": ctx.state.times})
    else:
        ctx.state.reminders += 1
