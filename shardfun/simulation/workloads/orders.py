"""What comes from outside while any workload runs: purchases at tills, by messages, records and requests.

Each till writes down which purchases it has seen and what it has answered, so a checkpoint shows whether one is missing or was made
twice, and whether a reply is what the function answered.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Literal, NamedTuple

import msgspec

from shardfun.core.function import CompiledFunction
from shardfun.core.shard import IngressRoute
from shardfun.intake.entries import (
    HTTP,
    Entry,
    MessageEntry,
    RecordEntry,
    Reply,
    RequestEntry,
    ingress_name,
    request_digest,
)
from shardfun.intake.request import REQUEST, request_function
from shardfun.intake.targets import Targets
from shardfun.sdk.app import App, Message
from shardfun.sdk.context import Context
from shardfun.sdk.state import State, Value, value
from shardfun.shard.intake import intake_router
from shardfun.simulation.view import CheckpointView
from shardfun.simulation.violation import wrong

TILL = "shop/till"
RECORDS = "orders"
HTTP_INGRESS = ingress_name(HTTP)
TILLS = 4
WINDOW_S = 100_000.0
AMOUNT_MAX = 50
OTHER_AMOUNT = 1000
"""More than the amount of a purchase: for a request that has another's key."""


class Purchase(msgspec.Struct, frozen=True):
    """``number``: of the order."""

    number: int
    amount: int


class Receipt(msgspec.Struct, frozen=True):
    """What a till answers: its total after the purchase."""

    number: int
    total: int


class Till(State):
    """``seen``: by number of the order, the total after it."""

    total: Value[int] = value(0)
    seen: Value[dict[int, int]] = value(default_factory=dict)


class Order(NamedTuple):
    """What a client wants.

    Args:
        kind: ``message`` and ``record`` have no key and no reply; ``asked`` has a reply and no key, ``keyed`` has both.
        again: how often a client with a key asks once more although it has its reply.
        clash: somebody else uses the same key for another purchase.
    """

    number: int
    kind: Literal["message", "record", "asked", "keyed"]
    till: str
    amount: int
    again: int
    clash: bool

    @property
    def key(self) -> str:
        """Of its request."""
        return f"order-{self.number}"


class Orders:
    """See the module.

    Args:
        count: of the orders.
        violations: what functions find wrong.
    """

    def __init__(self, app: App, count: int, seed: int, violations: list[str]) -> None:
        chance = random.Random(seed)
        self.all = [_draw(chance, number) for number in range(count)]
        self.uncertain: set[int] = set()
        """Numbers of those that may have been made or not: nobody was told. Never iterated."""
        self.taken: set[int] = set()
        """Numbers of those that were answered with 202. Never iterated."""
        self.views: dict[int, CheckpointView] = {}
        self._app = app
        self._violations = violations
        self._targets: Targets | None = None
        _declare(app, violations)

    # ---- the application ------------------------------------------------------------------------------------------------
    def functions(self, compiled: list[CompiledFunction]) -> list[CompiledFunction]:
        """With the function of requests."""
        self._targets = Targets(compiled)
        return [*compiled, request_function(self._targets, WINDOW_S)]

    @property
    def targets(self) -> Targets:
        """Once it is compiled."""
        assert self._targets is not None
        return self._targets

    def routes(self) -> dict[str, IngressRoute]:
        """Of the log and of the records in it. The log holds the run open."""
        own = {RECORDS: IngressRoute(self._app.routers(RECORDS), holds=False)}
        return own | {HTTP_INGRESS: IngressRoute((self._route(own),))}

    def _route(self, own: dict[str, IngressRoute]) -> Callable[[Entry], Iterable[object]]:
        def route(entry: Entry) -> Iterable[object]:
            return intake_router(self.targets, own)(entry)

        return route

    # ---- entries --------------------------------------------------------------------------------------------------------
    def entry(self, order: Order, amount: int | None = None) -> Entry:
        """What stands in the log.

        Args:
            amount: another one.
        """
        purchase = Purchase(order.number, order.amount if amount is None else amount)
        if order.kind == "record":
            return RecordEntry(RECORDS, {"till": order.till, "number": purchase.number, "amount": purchase.amount})
        type, payload = self.targets.encode(TILL, order.till, purchase)
        if order.kind == "message":
            return MessageEntry(TILL, order.till, type, payload)
        digest = request_digest(TILL, order.till, type, payload)
        return RequestEntry(order.key, order.kind == "asked", digest, TILL, order.till, type, payload, HTTP)

    def receipt(self, reply: Reply) -> Receipt:
        """What a reply says."""
        found = self.targets.decode(reply.type, reply.payload)
        return msgspec.convert(found, Receipt) if isinstance(found, dict) else found

    # ---- checks ---------------------------------------------------------------------------------------------------------
    def take_out(self, view: CheckpointView) -> CheckpointView:
        """Judge the part of a checkpoint that is about orders; the rest of it.

        Raises:
            Violation: a purchase was made twice, or half.
        """
        seen = self._seen(view)
        for number, total in seen.items():
            if total < 0 or number >= len(self.all):
                wrong(f"order {number}: nobody has sent it")
        for address, fields in view.states.items():
            if address.typename == TILL:
                expected = sum(self.all[number].amount for number in fields["seen"])
                if expected != fields["total"] or any(self.all[number].till != address.id for number in fields["seen"]):
                    wrong(f"{address} has {fields['total']}, its purchases add up to {expected}")
        own = {TILL, REQUEST}
        return replace(
            view,
            states={address: fields for address, fields in view.states.items() if address.typename not in own},
            waiting=[item for item in view.waiting if item.target.typename not in own],
        )

    @staticmethod
    def _seen(view: CheckpointView) -> dict[int, int]:
        """The purchases in a checkpoint, with what was answered."""
        found: dict[int, int] = {}
        for _, fields in view.of_type(TILL):
            for number, total in fields["seen"].items():
                if number in found:
                    wrong(f"order {number} was made at two tills")
                found[number] = total
        return found

    def settled(self, view: CheckpointView) -> bool:
        """Whether nothing of it is under way in a checkpoint."""
        return not any(item.target.typename in {TILL, REQUEST} for item in view.waiting) and self._missing(view) == []

    def _missing(self, view: CheckpointView) -> list[int]:
        seen = self._seen(view)
        return [order.number for order in self.all if order.number in self.taken and order.number not in seen]

    def check_end(self, view: CheckpointView) -> None:
        """Judge the last checkpoint: all that was taken is in it, once; what nobody was told of may be.

        Raises:
            Violation: otherwise.
        """
        missing = self._missing(view)
        if missing:
            wrong(f"orders {missing} were answered with 202, and are lost")
        strange = [number for number in self._seen(view) if number not in self.taken and number not in self.uncertain]
        if strange:
            wrong(f"orders {strange} were made, and no client has sent them")

    def check_reply(self, view: CheckpointView | None, order: Order, reply: Reply) -> Receipt:
        """A reply has come: it is what the function has answered, as the newest complete checkpoint knows.

        Raises:
            Violation: it is something else.
        """
        receipt = self.receipt(reply)
        answered = None if view is None else self._seen(view).get(order.number)
        if receipt.number != order.number or receipt.total != answered:
            wrong(f"order {order.number} is answered with {receipt}, the complete checkpoint has {answered}")
        return receipt


def _declare(app: App, violations: list[str]) -> None:
    @app.function(TILL)
    def till(ctx: Context[Till], purchase: Purchase) -> None:
        state = ctx.state
        if purchase.number in state.seen:
            violations.append(f"order {purchase.number} is made a second time at {ctx.self}")
        if purchase.amount >= OTHER_AMOUNT:
            violations.append(f"order {purchase.number} is made for a client that has used another's key")
        state.total += purchase.amount
        state.seen[purchase.number] = state.total
        if ctx.caller is not None:
            ctx.reply(Receipt(purchase.number, state.total))

    @app.router(RECORDS)
    def buy(record: dict[str, int | str]) -> Iterable[Message]:
        yield Message(TILL, str(record["till"]), Purchase(int(record["number"]), int(record["amount"])))


def _draw(chance: random.Random, number: int) -> Order:
    kinds = Counter({"message": 2, "record": 2, "asked": 2, "keyed": 6})
    kind = chance.choice(sorted(kinds.elements()))
    till = f"till-{chance.randrange(TILLS)}"
    again, clash = chance.choice((0, 0, 1, 2)), chance.random() < 0.15
    return Order(number, kind, till, chance.randint(1, AMOUNT_MAX), again, clash)  # type: ignore[arg-type]
