"""What a run has led to, in a form that two runs can be compared by, whatever the numbers of their shards."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cbor2
import msgspec

from shardfun.core.cell_keys import parse_cell_key, value_in
from shardfun.core.function import DEAD_LETTER_KIND
from shardfun.model.letters import letter_of, plain
from shardfun.model.ordered_keys import decode_key
from shardfun.simulation.view import CheckpointView
from shardfun.testing.declared import Declared

SHOWN_MAX = 5
SHOWN_CHARACTERS = 160


@dataclass(frozen=True, slots=True)
class Ending:
    """See the module. Plain values only: it passes between processes.

    Args:
        parts: of the states: address and what of it (a field, an entry of a map, ...) to encoded value.
        records: by egress and shard, as they are in the sinks.
        letters: dead letters: target, payload and reason.
    """

    parts: dict[tuple[str, str], bytes]
    records: dict[str, list[list[bytes]]]
    letters: Counter[str]

    def digest(self, trace: str) -> str:
        """Of a run: of its trace, and of what it has led to."""
        content = [trace, sorted(self.parts.items()), sorted(self.records.items()), sorted(self.letters.items())]
        return hashlib.blake2b(repr(content).encode(), digest_size=16).hexdigest()


def ending_of(view: CheckpointView, published: Mapping[tuple[str, int], Sequence[bytes]], declared: Declared) -> Ending:
    """What the last checkpoint of a run and its sinks hold."""
    parts = {
        (str(address), name): _encoded(declared.comparable(address.typename, name, value))
        for address, fields in view.states.items()
        for name, value in fields.items()
        if not name.startswith("_")
    }
    letters: Counter[str] = Counter()
    for cells in view.cells:
        for key, raw in cells.items():
            if key[2:3] == DEAD_LETTER_KIND:
                letter = letter_of(key, raw)
                letters[f"{letter.target}: {letter.payload!r}: {letter.reason}"] += 1
            elif (parsed := parse_cell_key(key)) is not None:
                # Elements of buffers are numbered per address, so their keys compare, too.
                parts[str(parsed.address), f"{parsed.name}[{_shown_key(parsed.kind, parsed.suffix)}]"] = _encoded(
                    declared.comparable(parsed.address.typename, parsed.name, cbor2.loads(value_in(raw)))
                )
    records: dict[str, list[list[bytes]]] = {}
    for (name, _), found in published.items():
        records.setdefault(name, []).append(list(found))
    return Ending(parts, records, letters)


def _encoded(value: Any) -> bytes:
    return cbor2.dumps(value, canonical=True)


def _shown_key(kind: bytes, suffix: bytes) -> str:
    if kind == b"m":
        return repr(decode_key(suffix))
    return suffix.hex() if kind == b"b" else suffix.decode()


# ---- comparing -----------------------------------------------------------------------------------------------------------
def differences(found: Ending, expected: Ending, order_by: Mapping[str, str]) -> list[str]:
    """How a run has ended differently from an undisturbed one: a sentence each, the first few."""
    sentences = [
        *_state_differences(found.parts, expected.parts),
        *_record_differences(found.records, expected.records),
        *_order_differences(found.records, expected.records, order_by),
        *_letter_differences(found.letters, expected.letters),
    ]
    more = len(sentences) - SHOWN_MAX
    return sentences[:SHOWN_MAX] + ([f"and {more} more differences"] if more > 0 else [])


def lacks(ending: Ending, name: str, field: str) -> str:
    """Why the records of an egress cannot be compared by a field; empty if they can."""
    records = [msgspec.json.decode(record) for part in ending.records[name] for record in part]
    if not records or any(_key(record, field) is not None for record in records):
        return ""
    return f"none of {len(records)} records has a text or a number {field!r}; the first is {_short(repr(records[0]))}"


def _state_differences(found: dict[tuple[str, str], bytes], expected: dict[tuple[str, str], bytes]) -> Iterator[str]:
    for place in sorted(found.keys() | expected.keys()):
        ours, theirs = found.get(place), expected.get(place)
        if ours != theirs:
            address, name = place
            yield f"state of {address}: {name} is {_value(ours)}, expected {_value(theirs)}"


def _value(encoded: bytes | None) -> str:
    return "not there" if encoded is None else _short(repr(plain(cbor2.loads(encoded))))


def _record_differences(found: dict[str, list[list[bytes]]], expected: dict[str, list[list[bytes]]]) -> Iterator[str]:
    for name in sorted(found.keys() | expected.keys()):
        ours = Counter(record for part in found.get(name, ()) for record in part)
        theirs = Counter(record for part in expected.get(name, ()) for record in part)
        for record in sorted((theirs - ours).keys() | (ours - theirs).keys()):
            yield f"egress {name}: {_line(record)} is there {_times(ours[record])}, expected {_times(theirs[record])}"


def _order_differences(
    found: dict[str, list[list[bytes]]], expected: dict[str, list[list[bytes]]], order_by: Mapping[str, str]
) -> Iterator[str]:
    for name, field in order_by.items():
        ours, theirs = _by_key(found.get(name, []), field), _by_key(expected.get(name, []), field)
        for key in sorted(ours.keys() & theirs.keys(), key=str):
            if ours[key] != theirs[key] and sorted(ours[key]) == sorted(theirs[key]):
                number = next(i for i, pair in enumerate(zip(ours[key], theirs[key], strict=True)) if pair[0] != pair[1])
                yield (
                    f"egress {name}: of {field} {key!r} record {number + 1} is {_line(ours[key][number])}, "
                    f"expected {_line(theirs[key][number])}"
                )


def _by_key(parts: list[list[bytes]], field: str) -> dict[Any, list[bytes]]:
    found: dict[Any, list[bytes]] = {}
    for part in parts:
        for record in part:
            key = _key(msgspec.json.decode(record), field)
            if key is not None:
                found.setdefault(key, []).append(record)
    return found


def _key(record: Any, field: str) -> str | float | None:
    """What a record is ordered by."""
    key = record.get(field) if isinstance(record, dict) else None
    return key if isinstance(key, str | int | float) else None


def _letter_differences(found: Counter[str], expected: Counter[str]) -> Iterator[str]:
    for letter in sorted((found - expected) + (expected - found)):
        ours, theirs = found[letter], expected[letter]
        yield f"dead letter of {_short(letter)} is there {_times(ours)}, expected {_times(theirs)}"


def _times(count: int) -> str:
    return {0: "not at all", 1: "once"}.get(count, f"{count} times")


def _line(record: bytes) -> str:
    return _short(record.decode(errors="replace").strip())


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."
