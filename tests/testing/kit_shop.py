"""The application that the tests of the test kit test: every kind of function and effect."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

import msgspec
import trio

from shardfun import App, Context, Message, State, Value, dead_letter, restart, retry, value
from shardfun.model.operations import OperationResult

CART, STOCK, PAYMENT, REPORT, FLAKY, STUBBORN, PING = (
    f"shop/{name}" for name in ("cart", "stock", "payment", "report", "flaky", "stubborn", "ping")
)
IDLE_AFTER = dt.timedelta(hours=6)


class Add(msgspec.Struct, frozen=True):
    item: str
    pieces: int = 1


class Reserve(msgspec.Struct, frozen=True):
    pieces: int


class Reserved(msgspec.Struct, frozen=True):
    pieces: int
    left: int


class Idle(msgspec.Struct, frozen=True):
    pass


class Pay(msgspec.Struct, frozen=True):
    cents: int
    takes_s: float = 0.0


class Paid(msgspec.Struct, frozen=True):
    cents: int


class Cart(State):
    items: Value[int] = value(0)
    reserved: Value[int] = value(0)
    names: Value[list[str]] = value(default_factory=list)
    idle: Value[int] = value(0)


class Stock(State):
    left: Value[int] = value(100)


class Account(State):
    cents: Value[int] = value(0)
    at: Value[float] = value(0.0)
    attempts: Value[int] = value(0)


def build() -> App:
    app = App("shop")

    @app.router("orders")
    def route(record: dict[str, Any]) -> Iterable[Message]:
        return [Message(CART, record["cart"], Add(record["item"], record["pieces"]))]

    @app.function(CART)
    def cart(ctx: Context[Cart], message: Add | Reserved | Paid | Idle) -> None:
        match message:
            case Add(item, pieces):
                ctx.log.info("added", item=item)
                ctx.metrics.counter("added").increment(abs(pieces))
                ctx.state.items += pieces
                ctx.state.names.append(item)
                ctx.send(STOCK, item, Reserve(pieces))
                ctx.send_after(IDLE_AFTER, *ctx.self, Idle(), token="idle", replace=True)
                if pieces < 0:
                    msg = f"{pieces} pieces"
                    raise ValueError(msg)
            case Reserved(pieces):
                ctx.state.reserved += pieces
                ctx.emit("reserved", {"cart": ctx.self.id, "pieces": pieces, "left": message.left})
            case Paid():
                ctx.cancel("idle")
            case Idle():
                ctx.state.idle += 1
                ctx.emit("idle", [ctx.self.id, ctx.now().isoformat()])

    @app.on_end(CART)
    def cart_end(ctx: Context[Cart]) -> None:
        ctx.emit("carts", {"cart": ctx.self.id, "items": ctx.state.items, "reserved": ctx.state.reserved})

    @app.function(STOCK)
    def stock(ctx: Context[Stock], message: Reserve) -> None:
        ctx.state.left -= message.pieces
        assert ctx.caller is not None
        ctx.send(*ctx.caller, Reserved(message.pieces, ctx.state.left))

    @app.function(PAYMENT, timeout=60)
    async def payment(ctx: Context[Account], message: Pay) -> None:
        started = trio.current_time()
        done = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_finish, message.takes_s, done)
            await done.wait()
        ctx.state.cents += message.cents
        ctx.state.at = trio.current_time() - started
        ctx.emit("paid", message.cents)

    @app.function(REPORT, blocking=True)
    def report(ctx: Context[Account], message: Pay | OperationResult[str, int]) -> None:
        if isinstance(message, Pay):
            ctx.start_operation(double, message.cents, metadata="doubled")
            return
        ctx.state.cents += message.value or 0
        ctx.emit("reports", [message.metadata, message.status.value])

    @app.function(FLAKY, on_failure=retry(attempts=3, backoff=10, backoff_max=100))
    def flaky(ctx: Context[Account], message: Pay) -> None:
        failures.append(ctx.now().isoformat())
        if len(failures) < message.cents:
            raise OSError("not yet")
        ctx.state.cents += message.cents

    @app.function(STUBBORN, on_failure=restart())
    def stubborn(ctx: Context[Account], message: Pay) -> None:
        failures.append(str(ctx.self))
        if len(failures) < message.cents:
            raise OSError("not yet")
        ctx.state.cents += message.cents

    @app.function(PING, on_failure=dead_letter())
    def ping(ctx: Context, message: int) -> None:
        if message:
            ctx.send(PING, f"{ctx.random.randrange(10)}", message)

    failures: list[str] = []
    app.failures = failures  # type: ignore[attr-defined]  # outside of the exactly-once world, on purpose
    return app


async def _finish(after_s: float, done: trio.Event) -> None:
    await trio.sleep(after_s)
    done.set()


def double(cents: int) -> int:
    return 2 * cents
