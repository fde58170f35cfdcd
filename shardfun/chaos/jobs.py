"""Applications to put under chaos whose results are known without a run: for the tests of shardfun itself, and for a soak.

Each is judged against a plain program, not against an undisturbed run: a mistake that both runs make would not be seen otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from shardfun import examples
from shardfun.chaos.folder import trial_folder
from shardfun.chaos.inputs import Input
from shardfun.chaos.plan import Counts, Plan
from shardfun.chaos.report import Report
from shardfun.chaos.run import Show
from shardfun.chaos.trial import run_chaos
from shardfun.errors import ConfigurationError, nearest
from shardfun.examples.bank.check import check_exact, check_strict
from shardfun.examples.bank.transfers import make_transfers, read_transfers, write_transfers
from shardfun.examples.compare import compare_folder
from shardfun.examples.flights.compare import ADDRESS, EGRESSES
from shardfun.examples.flights.plain import compute, read_rows
from shardfun.simulation.workloads import trees_real

JANUARY: Final = Path(examples.__file__).parent / "data" / "flights-2013-01.csv.gz"
BANK_EGRESSES: Final = ("outcomes", "balances")
BANK_ACCOUNTS: Final = 300
BANK_SEED: Final = 11
TREES_SEED: Final = 5
TREES_PARTITIONS: Final = 12
"""Origins of records: each shard reads some of them."""


@dataclass(frozen=True, slots=True)
class Job:
    """An application with its input.

    Args:
        app: a reference to it.
        ingress: what its input goes to.
        differences: what is wrong with the files in a folder, one sentence each.
        settings: that it needs.
    """

    app: str
    ingress: str
    input: Input
    egresses: tuple[str, ...]
    differences: Callable[[Path], list[str]]
    settings: Mapping[str, Any]


def flights(_folder: Path, _size: int | None = None, *, source: Path = JANUARY) -> Job:
    """The flights of January 2013, or of another file."""

    def differences(published: Path) -> list[str]:
        found = [compare_folder(published, egress, _plain_flights(source)[egress], address=ADDRESS) for egress in EGRESSES]
        return [sentence for comparison in found for sentence in comparison.differences]

    return Job("shardfun.examples.flights:app", "flights", Input(source, partition_by="tailnum"), EGRESSES, differences, {})


@lru_cache(maxsize=2)
def _plain_flights(source: Path) -> dict[str, list[dict[str, object]]]:
    return compute(read_rows(source))


def bank(folder: Path, size: int | None = None, *, strict: bool = False) -> Job:
    """Random transfers; a strict bank refuses what is not covered."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "transfers.jsonl.gz"
    write_transfers(source, make_transfers(20_000 if size is None else size, BANK_ACCOUNTS, BANK_SEED))

    def differences(published: Path) -> list[str]:
        expected = list(read_transfers(source))
        if strict:
            return check_strict(published, expected)
        return [sentence for comparison in check_exact(published, expected) for sentence in comparison.differences]

    app = f"shardfun.examples.bank:{'strict' if strict else 'app'}"
    return Job(app, "transfers", Input(source, partition_by="source"), BANK_EGRESSES, differences, {})


def strict_bank(folder: Path, size: int | None = None) -> Job:
    """See ``bank``."""
    return bank(folder, size, strict=True)


def trees(folder: Path, size: int | None = None) -> Job:
    """Random command trees: every way to run, to fail, to wait and to keep state."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "trees.jsonl"
    steps = trees_real.make_steps(TREES_SEED, 1200 if size is None else size, TREES_PARTITIONS)
    source.write_bytes(trees_real.encode_steps(steps))

    def differences(published: Path) -> list[str]:
        lines = [line for path in sorted(published.iterdir()) for line in path.read_bytes().splitlines()]
        return trees_real.differences(steps, map(json.loads, lines))

    app = "shardfun.simulation.workloads.trees_real:app"
    return Job(app, "trees", Input(source, partition_by="origin"), ("log",), differences, {"timers": {"at_end": "wait"}})


JOBS: Final[Mapping[str, Callable[[Path, int | None], Job]]] = MappingProxyType(
    {"flights": flights, "bank": bank, "strict bank": strict_bank, "trees": trees}
)


def run_job(
    job: str | Job,
    *,
    folder: Path | None = None,
    counts: Counts | None = None,
    plan: Plan | None = None,
    seed: int = 0,
    shards: int = 2,
    size: int | None = None,
    spares: int = 1,
    transport: str = "ipc",
    show: Show | None = None,
) -> Report:
    """Put one of these under chaos.

    Args:
        job: a name in ``JOBS``, or one that was made.
        folder: an empty one, for everything; by default a temporary one, which is kept only if there are differences.
        size: records in the input.

    Raises:
        ConfigurationError: there is no such job.
        InconclusiveError: faults fell outside the run.
    """
    if isinstance(job, str):
        if job not in JOBS:
            raise ConfigurationError(f"expected a job, got {job!r}{nearest(job, JOBS)}")
        with trial_folder(folder) as place:  # what is kept has its input, and can be started again
            report = run_job(
                JOBS[job](place.path / "inputs", size),
                folder=place.path,
                counts=counts,
                plan=plan,
                seed=seed,
                shards=shards,
                spares=spares,
                transport=transport,
                show=show,
            )
            place.settle(report)
            return report
    return run_chaos(
        job.app,
        counts=counts,
        plan=plan,
        seed=seed,
        shards=shards,
        inputs={job.ingress: job.input},
        egresses=job.egresses,
        settings=settings_of(job, spares=spares, transport=transport),
        check=job.differences,
        strict=True,
        folder=folder,
        show=show,
    )


def settings_of(job: Job, *, spares: int, transport: str = "ipc") -> dict[str, Any]:
    """The settings of its node."""
    common = {"checkpoint": {"interval": "100 ms"}, "mesh": {"transport": transport}, "supervision": {"spares": spares}}
    return {**common, **job.settings}
