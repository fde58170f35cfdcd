"""An application that changes between two runs: the file ``version`` in its folder says which one it is.

A record ``{"to": ..., "id": ..., "kind": ..., "n": ...}`` goes to the function ``to``. Nothing is finished in version 1: whatever
comes first at an address fails and waits for another attempt, and the rest waits behind it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from shardfun import App, Context, Message, State, Value, retry, value

VERSION = int(Path("version").read_text())

if VERSION == 1:

    class Add(msgspec.Struct, frozen=True):
        n: int

    class Total(State):
        sum: Value[int] = value(0)

else:

    class Add(msgspec.Struct, frozen=True):
        count: int
        by: str

    class Total(State):
        total: Value[int] = value(0)


class Gone(msgspec.Struct):
    n: int


class Seen(msgspec.Struct, frozen=True):
    n: int | str if VERSION == 1 else int


app = App("changing", egresses=("out",))
KINDS: dict[str, Any] = {"add": Add, "gone": Gone, "seen": Seen}


@app.router("events")
def route(record: dict[str, Any]) -> Iterator[Message]:
    yield Message(record["to"], record["id"], KINDS[record["kind"]](record["n"]))


if VERSION == 1:

    @app.function("shop/*", on_failure=retry(attempts=1000, backoff=600.0, backoff_max=600.0))
    def anything(ctx: Context[Total], message: Add | Gone | Seen) -> None:
        if ctx.state.sum:
            msg = "wait for version 2"
            raise RuntimeError(msg)
        ctx.state.sum = message.n

    @app.function("old/cart", on_failure=retry(attempts=1000, backoff=600.0, backoff_max=600.0))
    def old(ctx: Context, message: Add) -> None:
        raise RuntimeError

else:

    @app.function("shop/*")
    def anything(ctx: Context[Total], message: Add) -> None:
        ctx.state.total += message.count
        ctx.emit("out", {"name": str(ctx.self), "by": message.by, "total": ctx.state.total})

    @app.handler("shop/*")
    def seen(ctx: Context[Total], message: Seen) -> None:
        ctx.emit("out", {"name": str(ctx.self), "seen": message.n, "total": ctx.state.total})

    @app.on_end("shop/*")
    def end(ctx: Context[Total]) -> None:
        ctx.emit("out", {"name": str(ctx.self), "end": ctx.state.total})

    @app.upgrade(Add, version=2)
    def upgrade_add(version: int, fields: dict[str, Any]) -> dict[str, Any]:
        return {"count": fields["n"], "by": f"version {version}"}

    @app.upgrade(Total, version=2)
    def upgrade_total(version: int, fields: dict[str, Any]) -> dict[str, Any]:
        return {"total": fields["sum"]}
