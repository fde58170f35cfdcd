"""Compare what two runs have published: the same records, each as many times; and, where a field says what belongs together, in the
same order.

Records of different addresses may interleave in any way, and go to the file of the shard that emitted them, so nothing else can be
compared. Knows nothing of faults.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

DESCRIBED_MAX: Final = 5
"""Differences of one egress that are described; all are counted."""
SHOWN_MAX: Final = 300
"""Characters of a record."""
PAIRS_LOOKED_AT: Final = 1000


def read_lines(folder: Path, egress: str) -> tuple[list[Any], list[str]]:
    """All records of ``EGRESS-PARTITION.jsonl``, file by file, and a sentence for each line that is none."""
    records: list[Any] = []
    damaged: list[str] = []
    for path in sorted(folder.glob(f"{egress}-*.jsonl"), key=lambda path: (len(path.name), path.name)):
        if not path.stem.removeprefix(f"{egress}-").isdigit():
            continue
        for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if record is None and line.strip() != b"null":
                damaged.append(f"egress {egress}: {path.name}, line {number} is no record: {line[:80]!r}")
            elif not line.endswith(b"\n"):
                damaged.append(f"egress {egress}: {path.name}, line {number} is cut off: {line[:80]!r}")
            else:
                records.append(record)
    return records, damaged


def compare_published(calm: Path, chaos: Path, egresses: Iterable[str], order: Mapping[str, str] | None = None) -> list[str]:
    """What differs, one sentence each.

    Args:
        calm: the folder of the undisturbed run; ``chaos`` that of the run with faults.
        order: for an egress, the field of its records: those with the same value have to come in the same order.
    """
    found: list[str] = []
    for egress in egresses:
        expected, _ = read_lines(calm, egress)
        records, damaged = read_lines(chaos, egress)
        found += damaged[:DESCRIBED_MAX]
        different = list(_as_multisets(egress, expected, records))
        found += different
        field = (order or {}).get(egress)
        if field is not None and not different:
            found += _in_order(egress, field, expected, records)
    return found


def _as_multisets(egress: str, expected: list[Any], records: list[Any]) -> Iterable[str]:
    wanted, there = Counter(map(_canonical, expected)), Counter(map(_canonical, records))
    missing, extra = list((wanted - there).elements()), list((there - wanted).elements())
    if not missing and not extra:
        return
    counts = [f"{len(texts)} {what}" for texts, what in ((missing, "missing"), (extra, "too many")) if texts]
    yield f"egress {egress}: of {len(expected)} records {' and '.join(counts)}"
    left = extra[:PAIRS_LOOKED_AT]
    for text in missing[:DESCRIBED_MAX]:
        near = _nearest(text, left)
        if near is None:
            yield f"egress {egress}: missing: {text[:SHOWN_MAX]}"
        else:
            left.remove(near)
            yield f"egress {egress}: {_pair(json.loads(text), json.loads(near))}"
    for text in left[: max(0, DESCRIBED_MAX - len(missing))]:
        times = f" (there {there[text]} times instead of {wanted[text]})" if wanted[text] else ""
        yield f"egress {egress}: too many: {text[:SHOWN_MAX]}{times}"


def _canonical(record: Any) -> str:
    return json.dumps(record, sort_keys=True, ensure_ascii=False)


def _nearest(text: str, others: list[str]) -> str | None:
    """Of records with the same fields the one that agrees in most of them, if it does in at least half."""
    record = json.loads(text)
    if not isinstance(record, dict):
        return None
    best, agreeing = None, len(record) / 2
    for other_text in others:
        other = json.loads(other_text)
        if isinstance(other, dict) and other.keys() == record.keys():
            same = sum(other[name] == value for name, value in record.items())
            if same >= agreeing and same:
                best, agreeing = other_text, same + 0.5
    return best


def _pair(expected: dict[str, Any], record: dict[str, Any]) -> str:
    changed = [name for name in expected if expected[name] != record[name]]
    same = {name: value for name, value in expected.items() if name not in changed}
    what = ", ".join(f"{name}: expected {_canonical(expected[name])}, got {_canonical(record[name])}" for name in changed)
    return f"{what[:SHOWN_MAX]} in the record with {_canonical(same)[:SHOWN_MAX]}"


def _in_order(egress: str, field: str, expected: list[Any], records: list[Any]) -> list[str]:
    try:
        wanted, there = _by_key(expected, field), _by_key(records, field)
    except (KeyError, TypeError):
        return [f"egress {egress}: expected a field {field!r} in every record, to compare their order"]
    wrong = [key for key in wanted if wanted[key] != there[key]]
    sentences = [f"egress {egress}: the {len(wanted[key])} records with {field} {key} are in another order" for key in wrong]
    return sentences[:DESCRIBED_MAX] + (
        [f"egress {egress}: and {len(wrong) - DESCRIBED_MAX} more"] if len(wrong) > DESCRIBED_MAX else []
    )


def _by_key(records: list[Any], field: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for record in records:
        found.setdefault(_canonical(record[field]), []).append(_canonical(record))
    return found
