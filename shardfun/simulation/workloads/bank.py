"""Bank transfers: money moves between accounts, and in every complete checkpoint there is as much of it as at the beginning.

Half of all transfers go to one hot account. Some messages only read. Some transfers always fail, after they have changed state
and sent money: if anything of a failed attempt stayed, money would appear or vanish. Some records cannot be read or routed. What
fails is a dead letter, once.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from shardfun.model.doors import IngressBatch, Reject
from shardfun.sdk.app import App, Message
from shardfun.sdk.context import Context
from shardfun.sdk.state import State, Value, value
from shardfun.simulation.options import Options
from shardfun.simulation.view import CheckpointView
from shardfun.simulation.workloads.workload import MAIN, Workload, each_once, same, share

ACCOUNTS = 14
OPENING = 100
HISTORY = 4
HOT_ACCOUNT = "account-0"
HOT_SHARE = 0.99
AUDITOR = "head-office"


class Transfer(msgspec.Struct, frozen=True):
    """Of ``amount`` to another account. ``trap``: the function fails after it has done everything."""

    number: int
    to: str
    amount: int
    trap: bool


class Deposit(msgspec.Struct, frozen=True):
    """Money that arrives."""

    amount: int


class Query(msgspec.Struct, frozen=True):
    """Changes nothing at the account; the auditor gets its balance."""

    number: int


class Reading(msgspec.Struct, frozen=True):
    """The answer to a query."""

    balance: int


class Closing(msgspec.Struct, frozen=True):
    """The balance at the end."""

    balance: int


class Account(State):
    """``history``: the last amounts, a list that is changed in place."""

    balance: Value[int] = value(OPENING)
    transfers: Value[int] = value(0)
    emitted: Value[int] = value(0)
    history: Value[list[int]] = value(default_factory=list)


class Books(State):
    """The auditor's."""

    readings: Value[int] = value(0)
    closed: Value[int] = value(0)
    closing_sum: Value[int] = value(0)


class Trap(Exception):  # noqa: N818 - raised by the application on purpose
    """A transfer that always fails."""


class Bank(Workload):
    """See the module."""

    egress = "ledger"

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        chance, hot = random.Random(options.seed), HOT_SHARE if options.hot else 0.0
        self._records = [
            [_record(chance, number, hot) for number in range(share(options.records, partition, options.shards))]
            for partition in range(options.shards)
        ]

    def declare(self, app: App) -> None:
        """Accounts, an auditor, a router."""
        _declare_account(app)

        @app.function("bank/auditor")
        def auditor(ctx: Context[Books], message: Reading | Closing) -> None:
            if isinstance(message, Reading):
                ctx.state.readings += 1
            else:
                ctx.state.closed += 1
                ctx.state.closing_sum += message.balance

        @app.router(MAIN)
        def route(record: dict[str, Any]) -> Iterable[Message]:
            yield Message("bank/account", record["account"], record["message"])
            if record.get("unroutable"):
                raise ValueError("this record cannot be routed")

    def total(self, partition: int) -> int:
        """See ``Workload``."""
        return len(self._records[partition])

    def batch(self, partition: int, start: int, stop: int) -> IngressBatch:
        """See ``Workload``."""
        records = self._records[partition][start:stop]
        rejects = [Reject(f"record {record['number']}", "unreadable", b"?") for record in records if "unreadable" in record]
        return IngressBatch(
            position=stop, records=[record for record in records if "unreadable" not in record], rejects=rejects
        )

    def check(self, view: CheckpointView) -> None:
        """See ``Workload``."""
        self.check_balls(view)
        accounts = [fields for _, fields in view.of_type("bank/account")]
        arriving = sum(waiting.value.amount for waiting in view.waiting if type(waiting.value) is Deposit)
        balances = sum(fields["balance"] for fields in accounts) + OPENING * (ACCOUNTS - len(accounts))
        same("money", balances + arriving, OPENING * ACCOUNTS)
        admitted = [
            record for partition in range(self.shards) for record in self._records[partition][: view.position(MAIN, partition)]
        ]
        self._check_records(view, accounts, admitted)
        self._check_letters(view, admitted)

    @staticmethod
    def _check_records(view: CheckpointView, accounts: list[dict[str, Any]], admitted: list[dict[str, Any]]) -> None:
        """Each record that names a transfer or a query is waiting or done."""
        usable = [record["message"] for record in admitted if "message" in record and "unroutable" not in record]
        waiting = [item.value for item in view.waiting]
        transfers = sum(fields["transfers"] for fields in accounts)
        transfers += sum(1 for message in waiting if type(message) is Transfer and not message.trap)
        same("transfers", transfers, sum(1 for message in usable if type(message) is Transfer and not message.trap))
        books = [fields for _, fields in view.of_type("bank/auditor")]
        readings = sum(fields["readings"] for fields in books)
        readings += sum(1 for message in waiting if type(message) in {Query, Reading})
        same("queries", readings, sum(1 for message in usable if type(message) is Query))
        same("ledger", view.emitted["ledger"], sum(fields["emitted"] for fields in accounts))

    @staticmethod
    def _check_letters(view: CheckpointView, admitted: list[dict[str, Any]]) -> None:
        """Each trap is waiting or a dead letter; each record that cannot be used is a dead letter."""
        traps = [letter["payload"]["number"] for letter in view.letters if letter["target"][0] == "bank/account"]
        traps += [item.value.number for item in view.waiting if type(item.value) is Transfer and item.value.trap]
        messages = [record["message"] for record in admitted if "message" in record and "unroutable" not in record]
        each_once("traps", traps, [item.number for item in messages if type(item) is Transfer and item.trap])
        unusable = sum(1 for letter in view.letters if letter["target"][0] == f"ingress/{MAIN}")
        same("unusable", unusable, sum(1 for record in admitted if "unroutable" in record or "unreadable" in record))

    def check_end(self, view: CheckpointView, published: list[Any], *, ended: bool) -> None:
        """See ``Workload``."""
        accounts = list(view.of_type("bank/account"))
        emitters = Counter(id for _, id, _ in published)
        same("publishers", emitters, Counter({id: fields["emitted"] for id, fields in accounts if fields["emitted"]}))
        strange = [item for item in published if item[0] != "closed" and not (item[0] == "deposit" and item[2] % 5 == 0)]
        same("records that nobody has emitted", strange, [])
        if not ended:
            return
        (books,) = (fields for _, fields in view.of_type("bank/auditor"))
        same("closed accounts", books["closed"], len(accounts))
        same("closing sum", books["closing_sum"], sum(fields["balance"] for _, fields in accounts))
        closings = [tuple(item[1:]) for item in published if item[0] == "closed"]
        each_once("published closings", closings, [(id, fields["balance"]) for id, fields in accounts])


def _declare_account(app: App) -> None:
    @app.function("bank/account")
    def account(ctx: Context[Account], message: Transfer | Deposit | Query) -> None:
        state = ctx.state
        if isinstance(message, Query):
            ctx.send("bank/auditor", AUDITOR, Reading(state.balance))
            return
        if isinstance(message, Deposit):
            state.balance += message.amount
            _remember(state.history, message.amount)
            if message.amount % 5 == 0:
                state.emitted += 1
                ctx.emit("ledger", ["deposit", ctx.self.id, message.amount])
            return
        state.transfers += 1
        if message.amount <= state.balance:
            state.balance -= message.amount
            _remember(state.history, -message.amount)
            ctx.send("bank/account", message.to, Deposit(message.amount))
        if message.trap:
            ctx.emit("ledger", ["never"])
            raise Trap(message.number)

    @app.on_end("bank/account")
    def close(ctx: Context[Account]) -> None:
        ctx.state.emitted += 1
        ctx.emit("ledger", ["closed", ctx.self.id, ctx.state.balance])
        ctx.send("bank/auditor", AUDITOR, Closing(ctx.state.balance))


def _remember(history: list[int], amount: int) -> None:
    history.append(amount)
    del history[:-HISTORY]


def _record(chance: random.Random, number: int, hot: float) -> dict[str, Any]:
    """``number`` is unique in its partition only; that is enough for a report, and for traps a few digits more are added."""
    unique = number * 1_000_003 + chance.randrange(1_000_003)
    kind = chance.random()
    if kind < 0.01:
        return {"number": unique, "unreadable": True}
    account = HOT_ACCOUNT if chance.random() < hot else f"account-{chance.randrange(ACCOUNTS)}"
    if kind < 0.2:
        return {"number": unique, "account": account, "message": Query(unique)}
    to = HOT_ACCOUNT if chance.random() < 0.5 else f"account-{chance.randrange(ACCOUNTS)}"
    message = Transfer(unique, to, chance.randint(1, 60), chance.random() < 0.03)
    record = {"number": unique, "account": account, "message": message}
    if kind > 0.99:
        record["unroutable"] = True
    return record
