"""The data of the bank: made-up transfers from a seed, and how they are written and read.

It must not know the application; the plain computation reads through it, too.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

OPENING_BALANCE = 100_00
"""Cents in every account before its first message."""

AMOUNT_MAX = 50_00
"""Cents in the largest transfer: large enough for a strict bank to refuse some."""

ACCOUNTS_MIN = 2

Record = dict[str, Any]


def make_transfers(transfers: int, accounts: int, seed: int) -> Iterator[Record]:
    """Transfers between two different accounts each, the same for the same arguments.

    Args:
        transfers: how many.
        accounts: between how many accounts, at least ``ACCOUNTS_MIN``.
        seed: of the random numbers.

    Raises:
        ValueError: too few accounts, or a negative number of transfers.
    """
    if accounts < ACCOUNTS_MIN or transfers < 0:
        msg = f"expected at least {ACCOUNTS_MIN} accounts and no negative number of transfers, got {accounts} and {transfers}"
        raise ValueError(msg)
    chance = random.Random(seed)  # noqa: S311  test data, not secrets
    for transfer in range(1, transfers + 1):
        source = chance.randrange(accounts)
        target = (source + chance.randrange(1, accounts)) % accounts
        yield {
            "transfer": transfer,
            "source": f"account-{source:04}",
            "target": f"account-{target:04}",
            "amount": chance.randint(1, AMOUNT_MAX),
        }


def write_transfers(path: Path, records: Iterable[Record]) -> int:
    """Write JSON lines, gzipped if the name ends in ``.gz``; the same records give the same bytes. Returns how many."""
    lines = [json.dumps(record, separators=(",", ":")) + "\n" for record in records]
    data = "".join(lines).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return len(lines)


def read_transfers(path: Path) -> Iterator[Record]:
    """The records that ``write_transfers`` wrote.

    Raises:
        OSError: the file is missing or not gzipped although its name says so.
        ValueError: a line is not JSON.
    """
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as stream:
        for line in stream:
            yield json.loads(line)
