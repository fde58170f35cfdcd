"""The simulated clients of the door: each wants one order, sends it, waits, and sends it again if it has a key and hears nothing.

What a client is told is held against what the tills have: a 202 is a promise, and a reply is what the function answered.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from shardfun.intake.entries import Reply, RequestEntry
from shardfun.intake.replies import ReplyRecord
from shardfun.simulation.door import Door, Post
from shardfun.simulation.view import CheckpointView
from shardfun.simulation.violation import wrong
from shardfun.simulation.workloads.orders import OTHER_AMOUNT, Order, Orders, Receipt

PATIENCE_S = 1.5
"""A client that has heard nothing for so long asks again, if it has a key."""


class _Client:
    """``receipt``: the first one. ``until``: it waits so long for a reply."""

    __slots__ = ("again", "busy", "clashes", "done", "order", "receipt", "until")

    def __init__(self, order: Order) -> None:
        self.order = order
        self.busy = self.done = False
        self.until = 0.0
        self.receipt: Receipt | None = None
        self.again = order.again
        self.clashes = order.clash


class Clients:
    """See the module.

    Args:
        chance: of the world.
        now: virtual seconds.
        view: the newest complete checkpoint.
    """

    def __init__(
        self, orders: Orders, chance: random.Random, now: Callable[[], float], view: Callable[[], CheckpointView | None]
    ) -> None:
        self._orders = orders
        self._chance = chance
        self._now = now
        self._view = view
        self._clients = [_Client(order) for order in orders.all]
        self.counts = {"posts": 0, "replies": 0, "repeated_posts": 0, "clashes": 0}

    @property
    def done(self) -> bool:
        """Whether nobody wants anything any more."""
        return all(client.done for client in self._clients)

    def wake_times(self) -> Iterator[float]:
        """When somebody loses his patience."""
        return (client.until for client in self._clients if not client.done and not client.busy and client.until > self._now())

    def act(self, door: Door, share: float) -> bool:
        """One of the clients does something; whether one had anything to do.

        Args:
            share: of the clients that have come by now.
        """
        come = int(len(self._clients) * share)
        idle = [
            client for client in self._clients[:come] if not client.done and not client.busy and client.until <= self._now()
        ]
        if not idle:
            return False
        self._post(door, idle[int(self._chance.random() * len(idle))])
        return True

    def _post(self, door: Door, client: _Client) -> None:
        order = client.order
        if order.kind == "asked" and order.number in self._orders.taken:
            client.done = True  # its reply is lost, and without a key there is no other
            return
        client.busy = True
        self.counts["posts"] += 1
        self.counts["repeated_posts"] += order.number in self._orders.taken
        entry = self._orders.entry(order)
        door.post(Post(order.number, entry, lambda answer: self._answered(client, answer)))
        if client.clashes and order.kind == "keyed" and order.number in self._orders.taken:
            client.clashes = False
            self.counts["clashes"] += 1
            door.post(Post(order.number, self._orders.entry(order, OTHER_AMOUNT), lambda _answer: None))

    def _answered(self, client: _Client, answer: str) -> None:
        client.busy = False
        order = client.order
        match answer:
            case "taken":
                self._orders.taken.add(order.number)
                client.done = order.kind in {"message", "record"}
                client.until = self._now() + PATIENCE_S
            case "refused":
                client.until = self._now() + PATIENCE_S / 10
                self._unsure(client)
            case _:
                if not order.clash:
                    wrong(f"order {order.number} is refused as {answer}, and nobody else has used its key")
                client.until = self._now() + PATIENCE_S  # the other one is not processed yet

    def _unsure(self, client: _Client) -> None:
        """Nobody knows whether it was taken in. Who has a key may ask again; the others had better not."""
        if client.order.kind != "keyed":
            client.done = True
            if client.order.number not in self._orders.taken:
                self._orders.uncertain.add(client.order.number)

    def unanswered(self, posts: list[Post]) -> None:
        """The door has died on these."""
        for post in posts:
            client = self._clients[post.client]
            if client.busy:
                client.busy = False
                client.until = self._now() + PATIENCE_S / 10
                self._unsure(client)

    def replied(self, record: ReplyRecord) -> None:
        """A reply has come to the door: to who waits for it.

        Raises:
            Violation: it is the wrong one.
        """
        number = int(record.key.rpartition("-")[2]) if record.key.startswith("order-") else -1
        if not 0 <= number < len(self._clients):
            wrong(f"a reply for {record.key!r}, which nobody has asked")
        client = self._clients[number]
        mine = self._orders.entry(client.order)
        assert isinstance(mine, RequestEntry)
        if record.status == "conflict":
            if record.digest == mine.digest:
                wrong(f"order {number} is in conflict with itself")
            return
        if record.digest != mine.digest:
            wrong(f"order {number}: the reply is for another request with its key")
        receipt = self._orders.check_reply(
            self._view(), client.order, Reply(record.key, record.status, record.type, record.payload)
        )
        if client.receipt is not None and client.receipt != receipt:
            wrong(f"order {number} was answered with {client.receipt}, and now with {receipt}")
        self.counts["replies"] += 1
        if client.receipt is not None and client.again > 0:
            client.again -= 1
        client.receipt = receipt
        if number in self._orders.taken and not client.busy:
            client.done = client.again <= 0 and not (client.clashes and client.order.kind == "keyed")
            client.until = 0.0
