"""What the nodes of these tests run."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from shell_world import Job

from shardfun.examples.bank.check import check_exact
from shardfun.examples.bank.transfers import make_transfers
from shardfun.model.status import NodeStatus


@cache
def bank(transfers: int, accounts: int = 20, seed: int = 3, rate: float = 40.0) -> Job:
    """Transfers that arrive at a rate."""
    made = list(make_transfers(transfers, accounts, seed))
    lines = b"".join(json.dumps(record).encode() + b"\n" for record in made)

    def differences(published: Path, _final: NodeStatus) -> list[str]:
        return [sentence for comparison in check_exact(published, made) for sentence in comparison.differences]

    config = f"""
app = "shardfun.examples.bank:app"
[ingress.transfers]
kind = "file"
path = "transfers.jsonl"
partition_by = "source"
rate = {rate:g}
[egress.outcomes]
kind = "file"
path = "out/outcomes-{{partition}}.jsonl"
[egress.balances]
kind = "file"
path = "out/balances-{{partition}}.jsonl"
"""
    return Job(config, {"transfers.jsonl": lines}, differences)
