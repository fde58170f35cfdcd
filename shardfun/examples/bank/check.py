"""The verdict over what a bank published: the plain computation, and the checks that hold in every run.

It must not know the application: only the transfers, the two egresses and the opening balance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from shardfun.examples.bank.transfers import OPENING_BALANCE
from shardfun.examples.compare import Comparison, compare_folder, read_published

Record = dict[str, Any]

OUTCOMES = "outcomes"
BALANCES = "balances"
ADDRESS = "address"
COUNTERS = ("sent", "received", "confirmed", "accepted", "refused")
OUTCOME_FIELDS = {ADDRESS, "number", "transfer", "target", "amount", "outcome"}
BALANCE_FIELDS = {ADDRESS, "balance", *COUNTERS}


def compute(transfers: Iterable[Record]) -> dict[str, list[Record]]:
    """The records of both egresses, by egress name, of a bank that allows overdraft: one thread, one loop."""
    outcomes: list[Record] = []
    accounts: dict[str, Record] = {}
    for transfer in transfers:
        source = _account(accounts, transfer["source"])
        target = _account(accounts, transfer["target"])
        source["balance"] -= transfer["amount"]
        source["sent"] += transfer["amount"]
        source["confirmed"] += transfer["amount"]
        source["accepted"] += 1
        target["balance"] += transfer["amount"]
        target["received"] += transfer["amount"]
        outcomes.append(
            {
                "address": source["address"],
                "number": source["accepted"],
                "transfer": transfer["transfer"],
                "target": transfer["target"],
                "amount": transfer["amount"],
                "outcome": "accepted",
            }
        )
    return {OUTCOMES: outcomes, BALANCES: list(accounts.values())}


def _account(accounts: dict[str, Record], id: str) -> Record:
    opened: Record = {"address": f"bank/account:{id}", "balance": OPENING_BALANCE, **dict.fromkeys(COUNTERS, 0)}
    return accounts.setdefault(id, opened)


def check_exact(published: Path, transfers: Iterable[Record]) -> list[Comparison]:
    """Compare a bank that allows overdraft with the plain computation: one comparison for each egress."""
    expected = compute(transfers)
    return [compare_folder(published, egress, expected[egress], address=ADDRESS) for egress in (OUTCOMES, BALANCES)]


def check_strict(published: Path, transfers: Iterable[Record]) -> list[str]:
    """Check a bank that refuses what is not covered; one sentence for each difference.

    Which transfers are refused is not predictable. But each transfer has one outcome, in order for each source; from the
    outcomes every balance follows; no balance is negative; and the sum of all is what there was at the start.
    """
    outcomes, damaged = read_published(published, OUTCOMES)
    balances, also_damaged = read_published(published, BALANCES)
    differences = [*damaged, *also_damaged, *_check_fields(outcomes, OUTCOME_FIELDS), *_check_fields(balances, BALANCE_FIELDS)]
    if differences:  # what follows reads these fields
        return differences
    differences += _check_outcomes(outcomes, transfers)
    expected = _balances_from(outcomes)
    differences += _check_balances(balances, expected)
    return differences


def _check_fields(records: list[Record], fields: set[str]) -> Iterator[str]:
    for record in records:
        if record.keys() != fields:
            yield f"expected a record with the fields {', '.join(sorted(fields))}, found {record}"


def _check_outcomes(outcomes: list[Record], transfers: Iterable[Record]) -> Iterator[str]:
    wanted: dict[str, list[int]] = {}
    for transfer in transfers:
        wanted.setdefault(f"bank/account:{transfer['source']}", []).append(transfer["transfer"])
    found: dict[str, list[int]] = {}
    for outcome in outcomes:
        found.setdefault(outcome[ADDRESS], []).append(outcome["transfer"])
    for address in sorted(wanted.keys() | found.keys()):
        ours, theirs = found.get(address, []), wanted.get(address, [])
        if ours != theirs:
            same = next(
                (n for n, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), min(len(ours), len(theirs))
            )
            yield (
                f"{address}: expected outcomes of {len(theirs)} transfers, found {len(ours)}; from number {same + 1}: "
                f"expected transfers {theirs[same : same + 3]}, found {ours[same : same + 3]}"
            )


def _balances_from(outcomes: list[Record]) -> dict[str, Record]:
    accounts: dict[str, Record] = {}
    for outcome in outcomes:
        source = _account(accounts, outcome[ADDRESS].partition(":")[2])
        if outcome["outcome"] == "refused":
            source["refused"] += 1
            continue
        target = _account(accounts, outcome["target"])
        source["accepted"] += 1
        source["balance"] -= outcome["amount"]
        source["sent"] += outcome["amount"]
        source["confirmed"] += outcome["amount"]
        target["balance"] += outcome["amount"]
        target["received"] += outcome["amount"]
    return {account[ADDRESS]: account for account in accounts.values()}


def _check_balances(balances: list[Record], expected: dict[str, Record]) -> Iterator[str]:
    found: dict[str, Record] = {}
    for balance in balances:
        if balance[ADDRESS] in found:
            yield f"{balance[ADDRESS]}: balance published more than once"
        found[balance[ADDRESS]] = balance
        if balance["balance"] < 0:
            yield f"{balance[ADDRESS]}: expected no balance below zero, found {balance['balance']}"
    for address in sorted(expected.keys() | found.keys()):
        if found.get(address) != expected.get(address):
            yield f"{address}: expected, from the outcomes, {expected.get(address)}, found {found.get(address)}"
    total = sum(balance["balance"] for balance in found.values())
    if total != len(found) * OPENING_BALANCE:
        yield f"money is not conserved: expected {len(found) * OPENING_BALANCE} cents in {len(found)} accounts, found {total}"
