"""The applications under chaos: their configuration, their input and the verdict over what they published."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from chaos_run import HEARTBEAT_TIMEOUT_S

from shardfun.examples.bank.check import check_exact, check_strict
from shardfun.examples.bank.transfers import make_transfers, read_transfers, write_transfers
from shardfun.examples.compare import compare_folder
from shardfun.examples.flights.compare import ADDRESS, EGRESSES
from shardfun.examples.flights.plain import compute, read_rows
from shardfun.simulation.workloads import trees_real

CLONE = Path(__file__).resolve().parents[2]
JANUARY = CLONE / "shardfun" / "examples" / "data" / "flights-2013-01.csv.gz"
YEAR = CLONE / "data" / "flights-2013.csv.gz"
"""Written by ``tools/prepare_flights``; long tests take January if it is not there."""

BANK_ACCOUNTS = 300
BANK_SEED = 11
TREES_SEED = 5
TREES_PARTITIONS = 12
"""Origins of records: each shard reads some of them."""


@dataclass(frozen=True, slots=True)
class Job:
    """An application with its input.

    Args:
        source: the input.
        records: in it.
        differences: what is wrong with the files in a folder, one sentence each.
        more: of the configuration.
    """

    app: str
    ingress: str
    source: Path
    partition_by: str
    records: int
    egresses: tuple[str, ...]
    differences: Callable[[Path], list[str]]
    more: str = ""

    def config(self, *, shards: int, rate: float, transport: str = "ipc", spares: int = 1) -> str:
        """The TOML text of its node."""
        egresses = "\n".join(
            f'[egress.{name}]\nkind = "file"\npath = "out/{name}-{{partition}}.jsonl"' for name in self.egresses
        )
        return f"""
app = "{self.app}"
name = "chaos"
data_dir = "data"
shards = {shards}
[checkpoint]
interval = "100 ms"
[mesh]
transport = "{transport}"
[supervision]
heartbeat_interval = "50 ms"
heartbeat_timeout = "{HEARTBEAT_TIMEOUT_S:g} s"
spares = {spares}
[ingress.{self.ingress}]
kind = "file"
path = "{self.source}"
partition_by = "{self.partition_by}"
rate = {rate:.1f}
{egresses}
{self.more}
"""


def flights(*, whole_year: bool) -> Job:
    """The flights of January, or of the whole year if they are there."""
    source = YEAR if whole_year and YEAR.exists() else JANUARY
    rows, expected = _plain_flights(source)

    def differences(published: Path) -> list[str]:
        found = [compare_folder(published, egress, expected[egress], address=ADDRESS) for egress in EGRESSES]
        return [sentence for comparison in found for sentence in comparison.differences]

    return Job("shardfun.examples.flights:app", "flights", source, "tailnum", rows, EGRESSES, differences)


@cache
def _plain_flights(source: Path) -> tuple[int, dict[str, list[dict[str, object]]]]:
    return sum(1 for _ in read_rows(source)), compute(read_rows(source))


def bank(folder: Path, transfers: int, *, strict: bool = False) -> Job:
    """Random transfers; a strict bank refuses what is not covered."""
    source = folder / "transfers.jsonl.gz"
    write_transfers(source, make_transfers(transfers, BANK_ACCOUNTS, BANK_SEED))

    def differences(published: Path) -> list[str]:
        expected = list(read_transfers(source))
        if strict:
            return check_strict(published, expected)
        return [sentence for comparison in check_exact(published, expected) for sentence in comparison.differences]

    name = "strict" if strict else "app"
    egresses = ("outcomes", "balances")
    return Job(f"shardfun.examples.bank:{name}", "transfers", source, "source", transfers, egresses, differences)


def trees(folder: Path, records: int) -> Job:
    """Random command trees: every way to run, to fail, to wait and to keep state."""
    source = folder / "trees.jsonl"
    steps = trees_real.make_steps(TREES_SEED, records, TREES_PARTITIONS)
    source.write_bytes(trees_real.encode_steps(steps))

    def differences(published: Path) -> list[str]:
        lines = [line for path in sorted(published.iterdir()) for line in path.read_bytes().splitlines()]
        return trees_real.differences(steps, map(json.loads, lines))

    app = "shardfun.simulation.workloads.trees_real:app"
    return Job(app, "trees", source, "origin", len(steps), ("log",), differences, '[timers]\nat_end = "wait"')
