"""Applications for the tests of ``shardfun simulate``, good ones and bad ones. Each is a file that a test puts into a folder."""

from __future__ import annotations

HEAD = """
from collections.abc import Iterable
import msgspec
from shardfun import App, Buffer, Context, Map, Message, State, Value, buffer, mapping, value
from shardfun.testing import Checkpoint, Simulation

app = App("shop")

class Add(msgspec.Struct, frozen=True):
    pieces: int

class Cart(State):
    pieces: Value[int] = value(0)

@app.router("orders")
def orders(record: dict) -> Iterable[Message]:
    yield Message("shop/cart", record["cart"], Add(record["pieces"]))

def made(chance):
    return {"orders": [{"cart": f"c{chance.randrange(4)}", "pieces": 1} for _ in range(120)]}
"""

GLOBAL_TOTALS = (
    HEAD
    + """
TOTALS = {}

@app.function("shop/cart")
def cart(ctx: Context[Cart], message: Add) -> None:
    TOTALS[ctx.self.id] = TOTALS.get(ctx.self.id, 0) + message.pieces
    ctx.state.pieces = TOTALS[ctx.self.id]
    ctx.emit("totals", {"cart": ctx.self.id, "pieces": ctx.state.pieces})

simulation = Simulation(app, inputs=made)
"""
)

GOOD = (
    HEAD
    + """
class Full(State):
    pieces: Value[int] = value(0)
    by_size: Map[int, int] = mapping()
    seen: Buffer[int] = buffer()

@app.function("shop/cart")
def cart(ctx: Context[Full], message: Add) -> None:
    ctx.state.pieces += message.pieces
    ctx.state.by_size[message.pieces] = ctx.state.by_size.get(message.pieces, 0) + 1
    ctx.state.seen.append(ctx.state.pieces)
    ctx.emit("totals", {"cart": ctx.self.id, "pieces": ctx.state.pieces})
    if ctx.state.pieces == 5:
        ctx.send_after(60, "shop/reminder", ctx.self.id, message)

@app.function("shop/reminder")
def reminder(ctx: Context[Cart], message: Add) -> None:
    ctx.state.pieces += 1
    if ctx.self.id == "c0":
        raise ValueError("nobody to remind")

def invariant(checkpoint: Checkpoint) -> None:
    carts = checkpoint.of_type("shop/cart")
    waiting = sum(1 for sent in checkpoint.waiting if sent.target.typename == "shop/cart")
    assert sum(cart.pieces for cart in carts.values()) + waiting == len(checkpoint.admitted["orders"])
    for id, cart in carts.items():
        assert cart.by_size == {1: cart.pieces}
        assert cart.seen == list(range(1, cart.pieces + 1))
    assert sum(cart.pieces for cart in carts.values()) == len(checkpoint.emitted.get("totals", []))
    if checkpoint.last:
        assert len(checkpoint.dead_letters) == 1

simulation = Simulation(
    app, inputs=made, partition_by={"orders": "cart"}, order_by={"totals": "cart"}, invariant=invariant
)
"""
)

SLEEPY = (
    HEAD
    + """
import trio

@app.function("shop/cart", timeout=30)
async def cart(ctx: Context[Cart], message: Add) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 2)
        await trio.sleep(1)
    ctx.state.pieces += message.pieces

simulation = Simulation(app, inputs=made)
"""
)

SOCKETS = (
    HEAD
    + """
import socket
import trio

@app.function("shop/cart")
async def cart(ctx: Context[Cart], message: Add) -> None:
    ours, theirs = trio.socket.socketpair()
    await ours.recv(1)

simulation = Simulation(app, inputs=made)
"""
)

EXITS = (
    HEAD
    + """
import os

@app.function("shop/cart")
def cart(ctx: Context[Cart], message: Add) -> None:
    os._exit(3)

simulation = Simulation(app, inputs=made)
"""
)

ORDER_OF_A_SET = (
    HEAD
    + """
@app.function("shop/cart")
def cart(ctx: Context[Cart], message: Add) -> None:
    ctx.state.pieces = ctx.state.pieces * 2 % 1000 + len(next(iter({"a", "bb", "ccc", "dddd", "eeeee", "ffffff"})))

simulation = Simulation(app, inputs=made, check=lambda checkpoint: None)
"""
)

CHECKS = (
    HEAD
    + """
@app.function("shop/cart")
def cart(ctx: Context[Cart], message: Add) -> None:
    ctx.state.pieces += message.pieces
    ctx.emit("totals", {"cart": ctx.self.id})

def few(checkpoint: Checkpoint) -> None:
    assert len(checkpoint.admitted["orders"]) < 50, "too many orders"

def never(checkpoint: Checkpoint) -> None:
    assert checkpoint.last
    raise ValueError("nothing is good enough")

def no(checkpoint: Checkpoint) -> bool:
    return len(checkpoint.admitted["orders"]) < 50

async def later() -> None:
    assert False

def no_end(checkpoint: Checkpoint) -> None:
    assert not checkpoint.last, "this is the end"

invariant_fails = Simulation(app, inputs=made, invariant=few)
end_fails = Simulation(app, inputs=made, invariant=no_end)
says_no = Simulation(app, inputs=made, invariant=no)
says_later = Simulation(app, inputs=made, check=lambda _checkpoint: later())
no_such_ingress = Simulation(app, inputs=made, partition_by={"order": "cart"})
no_such_field = Simulation(app, inputs=made, partition_by={"orders": "card"})
no_such_egress = Simulation(app, inputs=made, order_by={"total": "cart"})
no_such_order = Simulation(app, inputs=made, order_by={"totals": "card"})
check_fails = Simulation(app, inputs=made, check=never)
other = Simulation(App("other"), inputs=made)
nothing = 5
"""
)

NO_INPUT = (
    HEAD
    + """
@app.function("shop/cart")
def cart(ctx: Context[Cart], message: Add) -> None:
    ctx.state.pieces += message.pieces
"""
)
