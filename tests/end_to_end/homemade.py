"""An application whose sources are its own: rows of a database, and lines of a file read by async generators."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import trio

from shardfun import App, Context, Message, State, Value, value
from shardfun.sources import Partition

LINES = Path("lines.txt")
END = "end"
app = App("homemade", egresses=("history", "hook", "kept"))


class Count(State):
    times: Value[int] = value(0)


async def lines_behind(number: int) -> AsyncIterator[tuple[int, str]]:
    """Whole lines as they are appended, until the last one."""
    while True:
        whole = LINES.read_text().split("\n")[:-1]  # noqa: ASYNC240 - a small file
        for line in whole[number:]:
            number += 1
            if line == END:
                return
            yield number, line
        await trio.sleep(0.02)


@app.ingress("split")
async def split(position: int | None, partition: Partition) -> AsyncIterator[tuple[int, str]]:
    """Each shard its own lines."""
    async for number, line in lines_behind(position or 0):
        if partition.owns(line):
            yield number, f"split-{line}"


@app.ingress("whole")
async def whole(position: list[Any] | None) -> AsyncIterator[tuple[tuple[str, int], str]]:
    """One shard all lines. Now and then it fails, as connections do."""
    first = 0 if position is None else position[1]
    async for number, line in lines_behind(first):
        yield ("line", number), f"whole-{line}"
        if number % 97 == 0 and number != first:
            raise ConnectionError("lost")


@app.router("split")
@app.router("whole")
def by_line(record: str | dict[str, str]) -> Iterator[Message]:
    yield Message("homemade/count", record if isinstance(record, str) else record["id"], 1)


@app.router("changes")
def by_ticket(record: dict[str, Any]) -> Iterator[Message]:
    yield Message("homemade/count", record["ticket"], record["number"])


@app.function("homemade/count")
def count(ctx: Context[Count], message: int) -> None:
    ctx.state.times += 1
    record = {"ticket": ctx.self.id, "times": ctx.state.times}
    ctx.emit("history", record)
    ctx.emit("hook", record)
    ctx.emit("kept", record)
