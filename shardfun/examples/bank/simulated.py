"""How both banks are simulated: made-up transfers, and what has to hold at every moment.

shardfun simulate --app shardfun.examples.bank:app --seeds 1:100
"""

from __future__ import annotations

import random
from typing import Any

from shardfun.examples.bank.check import OUTCOMES
from shardfun.examples.bank.functions import ACCOUNT, Credit, app, strict
from shardfun.examples.bank.transfers import OPENING_BALANCE, make_transfers
from shardfun.testing import Checkpoint, Simulation

TRANSFERS = 400
ACCOUNTS = 12


def _transfers(chance: random.Random) -> dict[str, list[dict[str, Any]]]:
    """Few accounts, so that they have much to do with each other."""
    return {"transfers": list(make_transfers(TRANSFERS, ACCOUNTS, chance.getrandbits(32)))}


def money_is_all_there(checkpoint: Checkpoint) -> None:
    """What is in accounts and what is on its way between them is what there was at the beginning."""
    accounts = checkpoint.of_type(ACCOUNT)
    on_its_way = sum(sent.value.amount for sent in checkpoint.waiting if isinstance(sent.value, Credit))
    expected = OPENING_BALANCE * len(accounts)
    found = sum(account.balance for account in accounts.values()) + on_its_way
    assert found == expected, f"expected {expected} cents in {len(accounts)} accounts, found {found}"


def nobody_owes(checkpoint: Checkpoint) -> None:
    """At the end of a strict bank: every transfer has its outcome, and no balance is negative."""
    assert len(checkpoint.emitted[OUTCOMES]) == len(checkpoint.admitted["transfers"]), "each transfer has one outcome"
    below = [id for id, account in checkpoint.of_type(ACCOUNT).items() if account.balance < 0]
    assert not below, f"balances below zero: {below}"


simulation = Simulation(
    app,
    inputs=_transfers,
    partition_by={"transfers": "source"},
    order_by={OUTCOMES: "address"},
    invariant=money_is_all_there,
)
"""All results are those of an undisturbed run."""

strict_simulation = Simulation(
    strict,
    inputs=_transfers,
    partition_by={"transfers": "source"},
    invariant=money_is_all_there,
    check=nobody_owes,
)
"""Which transfers are refused depends on how they interleave, so the end is checked instead of compared."""
