"""JSON lines and CSV: from complete lines to the records that one partition keeps.

It exists so that what counts as a record, and who reports a bad one, is decided in one place, the same way in every partition:
all partitions scan the same lines and number the same records, each keeps its own. Knows nothing of files, positions on disk or
time.

Each format has a fast way for lines without any fault and a careful one that takes record after record. Both decide alike; the
fast one only ever gives up.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any, Final, Protocol

import msgspec

from shardfun.errors import IngressError
from shardfun.ingress.lines import RECORD_BYTES, REJECT_BYTES
from shardfun.ports import Partition, Reject

NO_KEY_REPORTER: Final = 0
"""The partition that reports records without a key: nobody owns those."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where lines begin in their file.

    Args:
        name: of the file.
        line: lines before it; ``record``: records before it.
    """

    name: str
    line: int = 0
    record: int = 0


@dataclass(frozen=True, slots=True)
class Selection:
    """Which records of a file one partition keeps: those whose key it owns, or those whose turn it is."""

    partition: Partition
    key_field: str | None

    def has_turn(self, record: int) -> bool:
        """Whether a record without a readable key is this partition's: to keep (no ``key_field``), or to report."""
        return record % self.partition.count == self.partition.index

    def turns(self, first: int) -> slice:
        """Picks from records that begin with number ``first`` those whose turn it is."""
        return slice((self.partition.index - first) % self.partition.count, None, self.partition.count)

    @property
    def reports_missing_keys(self) -> bool:
        """Whether this partition reports the records that have no key."""
        return self.partition.index == NO_KEY_REPORTER


@dataclass(slots=True)
class Scan:
    """What was found: ``lines`` and ``records`` gone past, the records kept, and the faults that are this partition's."""

    lines: int = 0
    records: int = 0
    kept: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)


class Format(Protocol):
    """One format of files."""

    @property
    def needs_header(self) -> bool:
        """Whether the header has yet to be read: nothing behind it can be understood before."""

    def scan(self, lines: list[bytes], place: Place, limit: int, *, final: bool) -> Scan:
        """Go through at most ``limit`` records.

        Args:
            lines: complete lines that begin at ``place``.
            final: no more lines follow, so a record that is still open is a fault. If it is ``False``, a scan that went past
                no line asks for more lines.
        """


def reject(place: Place, scan: Scan, line: int, reason: str, raw: bytes) -> Reject:
    """A fault of the record that would be the next of ``scan``, beginning ``line`` lines behind ``place``."""
    position = f"{place.name}:{place.line + line + 1} (record {place.record + scan.records + 1})"
    return Reject(position, reason, raw[:REJECT_BYTES])


class JsonLines:
    """One JSON object a line. Blank lines are no records."""

    needs_header = False

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._decode = msgspec.json.Decoder(dict[str, Any]).decode

    def scan(self, lines: list[bytes], place: Place, limit: int, *, final: bool) -> Scan:  # noqa: ARG002 - no record is open
        """Go through at most ``limit`` records; see ``Format``."""
        lines = lines[:limit]
        if not any(map(bytes.isspace, lines)):
            kept = self._scan_quickly(lines, place)
            if kept is not None:
                return Scan(len(lines), len(lines), kept)
        return self._scan_carefully(lines, place)

    def _scan_quickly(self, lines: list[bytes], place: Place) -> list[dict[str, Any]] | None:
        key_field = self._selection.key_field
        try:
            if key_field is None:
                return list(map(self._decode, lines[self._selection.turns(place.record)]))
            records = list(map(self._decode, lines))
            keys = [record[key_field] for record in records]
        except (ValueError, RecursionError, KeyError):
            return None
        classes = set(map(type, keys))
        if classes == {int}:
            keys = list(map(str, keys))
        elif classes != {str} or "" in keys:
            return None
        return list(compress(records, map(self._selection.partition.owns, keys)))

    def _scan_carefully(self, lines: list[bytes], place: Place) -> Scan:
        scan = Scan()
        for index, line in enumerate(lines):
            scan.lines = index + 1
            if line.isspace():
                continue
            self._scan_record(line, index, place, scan)
            scan.records += 1
        return scan

    def _scan_record(self, line: bytes, index: int, place: Place, scan: Scan) -> None:
        selection = self._selection
        turn = selection.has_turn(place.record + scan.records)
        try:
            record = self._decode(line)
        except UnicodeDecodeError as error:
            problem = f"not valid UTF-8: {error.reason}"
        except msgspec.ValidationError as error:
            problem = f"not a JSON object that can be read: {error}"
        except (ValueError, RecursionError) as error:
            problem = f"not valid JSON: {error}"
        else:
            if selection.key_field is None:
                if turn:
                    scan.kept.append(record)
                return
            value = record.get(selection.key_field)
            if value is not None and not isinstance(value, dict | list) and value != "":
                if selection.partition.owns(str(value)):
                    scan.kept.append(record)
                return
            turn = selection.reports_missing_keys
            problem = (
                f"expected a text or a number in field {selection.key_field!r}, got {_described(record, selection.key_field)}"
            )
        if turn:
            scan.rejects.append(reject(place, scan, index, problem, line))


class _Feed:
    """Lines for the ``csv`` module. ``dry``: it asked for more than there are, in the middle of a record."""

    __slots__ = ("dry", "next", "texts")

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.next = 0
        self.dry = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.next == len(self.texts):
            self.dry = True
            raise StopIteration
        self.next += 1
        return self.texts[self.next - 1]


class Csv:
    """Comma-separated values with a header (RFC 4180): a quoted field may hold newlines. Blank lines are no records."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._columns: list[str] = []
        self._key_column = 0

    @property
    def needs_header(self) -> bool:
        """Whether the names of the columns are not known yet."""
        return not self._columns

    def scan(self, lines: list[bytes], place: Place, limit: int, *, final: bool) -> Scan:
        """Go through at most ``limit`` records; see ``Format``. The first call goes past the header only.

        Raises:
            IngressError: the header cannot be read, or has not the column of the key.
        """
        if self.needs_header:
            return self._scan_header(lines, place, final=final)
        if len(lines) <= limit:
            kept = self._scan_quickly(lines, place)
            if kept is not None:
                return Scan(len(lines), len(lines), kept)
        return self._scan_carefully(lines, place, limit, final=final)

    def _scan_quickly(self, lines: list[bytes], place: Place) -> list[dict[str, Any]] | None:
        """If there are as many rows as lines, each is one line: then nothing has to be counted row by row."""
        columns = self._columns
        try:
            rows = list(csv.reader(map(bytes.decode, lines), strict=True))
        except (UnicodeDecodeError, csv.Error):
            return None
        if len(rows) != len(lines) or set(map(len, rows)) != {len(columns)}:
            return None
        if self._selection.key_field is None:
            kept = rows[self._selection.turns(place.record)]
        else:
            column = self._key_column
            keys = [row[column] for row in rows]
            if "" in keys:
                return None
            kept = list(compress(rows, map(self._selection.partition.owns, keys)))
        return [dict(zip(columns, row, strict=True)) for row in kept]

    def _scan_carefully(self, lines: list[bytes], place: Place, limit: int, *, final: bool) -> Scan:
        scan = Scan()
        # Undecodable bytes must not stop the parser in the middle of a record; the record is found out afterwards.
        feed = _Feed([line.decode("utf-8", "surrogateescape") for line in lines])
        reader = csv.reader(feed, strict=True)
        while feed.next < len(lines) and scan.records < limit:
            start = feed.next
            row, problem = _next_row(reader)
            size = sum(map(len, lines[start : feed.next]))
            if feed.dry and not final and size <= RECORD_BYTES:
                return scan
            if size > RECORD_BYTES or (problem and (feed.dry or size > csv.field_size_limit())):
                # A quote that nothing closes. Taking all it swallowed for one bad record would lose good ones behind it.
                problem = f"a quoted field is not closed within {RECORD_BYTES} bytes or before the end of the file ({problem})"
                feed.next, feed.dry = start + 1, False
            if row or problem:
                self._scan_row(row, problem, b"".join(lines[start : feed.next]), start, place, scan)
                scan.records += 1
            scan.lines = feed.next
        return scan

    def _scan_row(self, row: list[str], problem: str, raw: bytes, start: int, place: Place, scan: Scan) -> None:
        selection = self._selection
        turn = selection.has_turn(place.record + scan.records)
        problem = _undecodable(raw) or problem
        if not problem and len(row) != len(self._columns):
            problem = f"expected {len(self._columns)} columns as in the header, got {len(row)}"
        if not problem and selection.key_field is not None:
            key = row[self._key_column]
            turn = selection.partition.owns(key) if key else selection.reports_missing_keys
            problem = "" if key else f"expected a value in column {selection.key_field!r}, got an empty one"
        if not turn:
            return
        if problem:
            scan.rejects.append(reject(place, scan, start, problem, raw))
        else:
            scan.kept.append(dict(zip(self._columns, row, strict=True)))

    def _scan_header(self, lines: list[bytes], place: Place, *, final: bool) -> Scan:
        feed = _Feed([line.decode("utf-8", "surrogateescape") for line in lines])
        reader = csv.reader(feed, strict=True)
        row: list[str] = []
        problem = ""
        while not row and not problem and feed.next < len(lines):
            row, problem = _next_row(reader)
        size = sum(map(len, lines[: feed.next]))
        if (feed.dry or not row) and not final and size <= RECORD_BYTES:
            return Scan()  # blank lines are gone past together with the header, so every position has it behind it
        if row or problem or not final:
            problem = _undecodable(b"".join(lines[: feed.next])) or problem or self._header_problem(row)
            if problem:
                msg = f"{place.name}: expected a first line with the names of the columns: {problem}"
                raise IngressError(msg)
            self._columns = row
            self._key_column = row.index(self._selection.key_field) if self._selection.key_field is not None else 0
        return Scan(lines=feed.next)

    def _header_problem(self, row: list[str]) -> str:
        if not row:
            return f"there are only blank lines in the first {RECORD_BYTES} bytes"
        twice = sorted({name for name in row if row.count(name) > 1})
        if twice:
            return f"column {twice[0]!r:.200} is there twice"
        key_field = self._selection.key_field
        if key_field is not None and key_field not in row:
            return f"expected the column {key_field!r} of 'partition_by', got {', '.join(map(repr, row)):.500}"
        return ""


def _next_row(reader: Any) -> tuple[list[str], str]:
    """The next row, or why there is none."""
    try:
        return next(reader), ""
    except csv.Error as error:
        return [], f"not valid CSV: {error}"


def _undecodable(raw: bytes) -> str:
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return f"not valid UTF-8: {error.reason}"
    return ""


def _described(record: dict[str, Any], name: str) -> str:
    return f"{record[name]!r:.100}" if name in record else "no such field"
