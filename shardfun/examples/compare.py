"""Compare what a file egress published with records computed another way.

Two questions, asked separately because they fail for different reasons: are the records the same, each as many times
(exactly once), and does each address have its own in the same order (FIFO per address)? Records of different addresses may
interleave in any way, and an egress has one file per partition, so nothing else is compared.

It must not know who published or who computed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

Record = dict[str, Any]

DIFFERENCES_MAX = 10
"""How many differences of one egress are described; all are counted."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The outcome for one egress.

    Args:
        egress: its name.
        records: how many were published.
        count: how many differences were found.
        differences: the first ``DIFFERENCES_MAX``, one sentence each.
    """

    egress: str
    records: int
    count: int
    differences: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return self.count == 0


def read_published(folder: Path, egress: str) -> tuple[list[Record], list[str]]:
    """All records of ``EGRESS-PARTITION.jsonl`` in a folder, in order within each file, and a sentence for each damaged line.

    A folder without such files has no records: an egress to which nothing was emitted need not have a file.
    """
    records: list[Record] = []
    damaged: list[str] = []
    for path in published_files(folder, egress):
        found, wrong = read_records(path)
        records += found
        damaged += wrong
    return records, damaged


def published_files(folder: Path, egress: str) -> list[Path]:
    """The files of all partitions of an egress."""
    return [path for path in sorted(folder.glob(f"{egress}-*.jsonl")) if path.stem.removeprefix(f"{egress}-").isdigit()]


def read_records(path: Path) -> tuple[list[Record], list[str]]:
    """The records of one file of JSON lines, and a sentence for each line that is not a whole JSON object."""
    records: list[Record] = []
    damaged: list[str] = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        try:
            record: Any = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict) and line.endswith(b"\n"):
            records.append(cast("Record", record))
        else:
            damaged.append(f"{path.name}, line {number}: expected one JSON object and a line end, found {line[:80]!r}")
    return records, damaged


def compare(
    egress: str, published: Sequence[Record], expected: Sequence[Record], *, address: str, damaged: Sequence[str] = ()
) -> Comparison:
    """Compare as multisets, then in order for each address.

    Args:
        egress: name, for the sentences.
        published: what came out, each address's records in order.
        expected: what should have come out, likewise.
        address: the field of a record that holds its address.
        damaged: differences already known from reading.
    """
    found = [_canonical(record) for record in published]
    wanted = [_canonical(record) for record in expected]
    differences = [*damaged, *_multiset_differences(Counter(found), Counter(wanted))]
    # With records missing or extra every later position of that address differs, too: that would hide the real difference.
    if not differences:
        differences = list(_order_differences(_by_address(published, address), _by_address(expected, address)))
    sentences = tuple(f"{egress}: {sentence}" for sentence in differences[:DIFFERENCES_MAX])
    return Comparison(egress, len(published), len(differences), sentences)


def compare_folder(folder: Path, egress: str, expected: Sequence[Record], *, address: str) -> Comparison:
    """``compare`` with all that was published to one egress in a folder."""
    published, damaged = read_published(folder, egress)
    return compare(egress, published, expected, address=address, damaged=damaged)


def _canonical(record: Record) -> str:
    return json.dumps(record, sort_keys=True, separators=(",", ":"))


def _multiset_differences(found: Counter[str], wanted: Counter[str]) -> Iterable[str]:
    for text, times in (wanted - found).items():
        yield f"missing{_times(times)}: {text}"
    for text, times in (found - wanted).items():
        reason = "published too often" if text in wanted else "not expected"
        yield f"{reason}{_times(times)}: {text}"


def _times(times: int) -> str:
    return f" {times} times" if times > 1 else ""


def _by_address(records: Iterable[Record], address: str) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for record in records:
        grouped.setdefault(str(record.get(address)), []).append(_canonical(record))
    return grouped


def _order_differences(found: dict[str, list[str]], wanted: dict[str, list[str]]) -> Iterable[str]:
    for address, expected in wanted.items():
        published = found.get(address, [])
        for position, (ours, theirs) in enumerate(zip(published, expected, strict=True), start=1):
            if ours != theirs:
                yield f"wrong order at {address}, record {position}: expected {theirs}, published {ours}"
                break
