"""The one function: an account that sends and receives money.

::

    transfer -> account (source) -- Credit --> account (target) -- Receipt --> account (source)

Money that left one account and has not reached the other is in a message, which is why no message may be lost or run twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec

from shardfun import App, Context, Message, State, Value, value
from shardfun.examples.bank.transfers import OPENING_BALANCE

ACCOUNT = "bank/account"
Overdraft = Literal["allowed", "refused"]


class Transfer(msgspec.Struct, frozen=True):
    """A command to the source account. ``transfer`` is its number, ``amount`` is in cents."""

    transfer: int
    target: str
    amount: int


class Credit(msgspec.Struct, frozen=True):
    """Money on its way to the target account."""

    transfer: int
    amount: int


class Receipt(msgspec.Struct, frozen=True):
    """The target account tells the source that the money has arrived."""

    transfer: int
    amount: int


class Outcome(msgspec.Struct, frozen=True):
    """Egress ``outcomes``: what the source account decided. ``number`` counts its decisions from 1."""

    address: str
    number: int
    transfer: int
    target: str
    amount: int
    outcome: Literal["accepted", "refused"]


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """Egress ``balances``: an account at the end, in cents. ``confirmed`` sums the receipts; it equals ``sent``."""

    address: str
    balance: int
    sent: int
    received: int
    confirmed: int
    accepted: int
    refused: int


class Account(State):
    """One account. It opens with ``OPENING_BALANCE`` when its first message comes."""

    balance: Value[int] = value(OPENING_BALANCE)
    sent: Value[int] = value(0)
    received: Value[int] = value(0)
    confirmed: Value[int] = value(0)
    accepted: Value[int] = value(0)
    refused: Value[int] = value(0)


class Order(msgspec.Struct, frozen=True):
    """A record of the ingress, as ``transfers`` writes it."""

    transfer: int
    source: Annotated[str, msgspec.Meta(min_length=1)]
    target: Annotated[str, msgspec.Meta(min_length=1)]
    amount: Annotated[int, msgspec.Meta(gt=0)]


def _route(record: dict[str, Any]) -> Iterable[Message]:
    """A record to a command for its source account. A record that is not an ``Order`` raises, and becomes a dead letter."""
    order = msgspec.convert(record, Order)
    return [Message(ACCOUNT, order.source, Transfer(order.transfer, order.target, order.amount))]


def _on_transfer(ctx: Context[Account], transfer: Transfer, overdraft: Overdraft) -> None:
    state = ctx.state
    if overdraft == "allowed" or state.balance >= transfer.amount:
        outcome: Literal["accepted", "refused"] = "accepted"
        state.accepted += 1
        state.balance -= transfer.amount
        state.sent += transfer.amount
        ctx.send(ACCOUNT, transfer.target, Credit(transfer.transfer, transfer.amount))
    else:
        outcome = "refused"
        state.refused += 1
    number = state.accepted + state.refused
    ctx.emit("outcomes", Outcome(str(ctx.self), number, transfer.transfer, transfer.target, transfer.amount, outcome))


def _on_credit(ctx: Context[Account], credit: Credit) -> None:
    assert ctx.caller is not None, "credits come from accounts"
    ctx.state.balance += credit.amount
    ctx.state.received += credit.amount
    ctx.send(*ctx.caller, Receipt(credit.transfer, credit.amount))


def _at_end(ctx: Context[Account]) -> None:
    state = ctx.state
    final = Balance(
        address=str(ctx.self),
        balance=state.balance,
        sent=state.sent,
        received=state.received,
        confirmed=state.confirmed,
        accepted=state.accepted,
        refused=state.refused,
    )
    ctx.emit("balances", final)


def build(overdraft: Overdraft) -> App:
    """The application.

    Args:
        overdraft: whether an account may send more than it has.
    """
    bank = App("bank")
    bank.router("transfers")(_route)

    @bank.function(ACCOUNT)
    def account(ctx: Context[Account], message: Transfer | Credit | Receipt) -> None:
        """Debit, credit, or take note of a receipt."""
        match message:
            case Transfer():
                _on_transfer(ctx, message, overdraft)
            case Credit():
                _on_credit(ctx, message)
            case Receipt():
                ctx.state.confirmed += message.amount

    bank.on_end(ACCOUNT)(_at_end)
    return bank


app = build("allowed")
strict = build("refused")
