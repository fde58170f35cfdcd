"""Ingress kind ``file``: the records of a JSON lines or CSV file, plain, gzip or growing.

Every partition scans the whole file and keeps its own records: a file cannot be cut by bytes when a quoted field holds newlines
or when it is compressed, and this way the records of one key stay in the order of the file. Scanning costs a small part of what
the functions do with a record.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec

from shardfun.errors import ConfigurationError, IngressError
from shardfun.ingress.formats import Csv, Format, JsonLines, Place, Scan, Selection, reject
from shardfun.ingress.lines import RECORD_BYTES, LineSource
from shardfun.ingress.pace import Pace
from shardfun.ports import IngressBatch, Partition

SCAN_RECORDS: Final = 512
"""Records looked at in one call, kept or not: about a millisecond."""

FOLLOW_INTERVAL_S: Final = 0.2
"""How often the end of a growing file is looked at."""

FileFormat = Literal["jsonl", "csv"]

_SUFFIXES: Final[tuple[tuple[str, FileFormat], ...]] = (
    (".jsonl", "jsonl"),
    (".ndjson", "jsonl"),
    (".json", "jsonl"),
    (".csv", "csv"),
)


class FileIngressOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of a file ingress.

    Args:
        path: the file; with the ending ``.gz`` it is unpacked while it is read.
        format: ``jsonl`` (an object a line) or ``csv`` (with a header); ``None``: by the ending of the path.
        partition_by: the field that decides which shard reads a record; keeps the order of the file for each value of it.
            ``None``: records go round the shards in turn.
        rate: records of the file per second; ``None``: as fast as they are taken.
        follow: go on waiting for new lines at the end of the file.
    """

    path: Path
    format: FileFormat | None = None
    partition_by: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    rate: Annotated[float, msgspec.Meta(gt=0)] | None = None
    follow: bool = False

    def __post_init__(self) -> None:
        """Raise ``ConfigurationError`` for settings that contradict each other."""
        if self.format is None and format_of(self.path) is None:
            known = ", ".join(suffix for suffix, _ in _SUFFIXES)
            raise ConfigurationError(f"format: expected 'jsonl' or 'csv', since the ending of {self.path} is none of {known}")
        if self.follow and self.path.suffix == ".gz":
            raise ConfigurationError("follow: expected a plain file, since the end of a growing gzip file cannot be told")


def format_of(path: Path) -> FileFormat | None:
    """The format that the ending of a path (before ``.gz``) stands for."""
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    return dict(_SUFFIXES).get(plain.suffix.lower())


class FileIngress:
    """One partition's records of a file."""

    options: ClassVar[type[FileIngressOptions]] = FileIngressOptions

    def __init__(self, name: str, options: FileIngressOptions, partition: Partition) -> None:
        self._label = f"ingress {name!r}"
        self._options = options
        self._selection = Selection(partition, options.partition_by)
        self._path = options.path.absolute()
        self._format_name = options.format or format_of(options.path)
        # A position means nothing to a reader that splits the records among the partitions in another way.
        self._reading = {
            "path": str(self._path),
            "format": self._format_name,
            "partition_by": options.partition_by,
            "partitions": partition.count,
        }
        self._source = LineSource(self._path, self._label, follow=options.follow)
        self._format = self._new_format()
        self._pace = Pace(options.rate)
        self._line = 0
        self._record = 0
        self._wake_at: float | None = None
        self._finished = False

    def open(self, position: Any | None) -> None:
        """Go to ``position`` (``None``: the beginning).

        Raises:
            IngressError: the file cannot be read, is shorter than the position, or is another one.
        """
        self._source.open()
        self._format = self._new_format()
        self._pace = Pace(self._options.rate)
        self._line = self._record = 0
        self._wake_at = None
        self._finished = False
        if position is not None:
            try:
                self._resume(position)
            except IngressError:
                self.close()
                raise

    def read(self, limit: int, now: float) -> IngressBatch | None:
        """Up to ``limit`` records, of at most ``SCAN_RECORDS`` looked at. A batch may hold none and still move the position.

        Args:
            limit: at least 1.
            now: monotonic seconds, for ``rate``.

        Raises:
            IngressError: the file is damaged, or was truncated or replaced while it was read.
        """
        self._wake_at = None
        if self._finished:
            return None
        due = self._pace.allowance(now)
        if not due:
            self._wake_at = self._pace.next_due(now)
            return None
        scan = self._scan(min(limit, SCAN_RECORDS, due))
        if scan is None:
            self._finished = not self._options.follow
            self._wake_at = now + FOLLOW_INTERVAL_S if self._options.follow else None
            return None
        place = f"{self._path.name}:{self._line + 1}-{self._line + scan.lines}"
        self._line += scan.lines
        self._record += scan.records
        self._pace.spend(scan.records)
        return IngressBatch(self._position(), scan.kept, rejects=scan.rejects, scanned=scan.records, place=place)

    @property
    def wake_at(self) -> float | None:
        """When to ask again after ``read`` gave ``None``: monotonic seconds; ``None`` when finished."""
        return self._wake_at

    @property
    def finished(self) -> bool:
        """Whether ``read`` has met the end of a file that is not followed."""
        return self._finished

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        self._source.close()

    def _resume(self, position: Any) -> None:
        self._check_reading(position)
        self._source.verify(position["file"])
        if position["line"] == 0:
            return
        while self._format.needs_header and self._scan(1) is not None:
            pass
        self._source.seek(position["offset"])
        self._line, self._record = position["line"], position["record"]

    def _new_format(self) -> Format:
        return Csv(self._selection) if self._format_name == "csv" else JsonLines(self._selection)

    def _scan(self, limit: int) -> Scan | None:
        """Go through the next records and past their lines; ``None``: nothing more for now."""
        source = self._source
        place = Place(self._path.name, self._line, self._record)
        window = limit
        if not source.waiting:
            source.fill()
        while lines := source.peek(window):
            final = source.closed and len(lines) == source.waiting
            scan = self._format.scan(lines, place, limit, final=final)
            if scan.lines:
                source.take(scan.lines)
                return scan
            assert not final, "a record without an end is a fault, and gone past"
            if len(lines) == source.waiting and not source.fill() and not source.closed:
                return None  # the end of a growing file, in the middle of a record
            window *= 2
        return self._scan_oversize(place) if source.oversize is not None else None

    def _scan_oversize(self, place: Place) -> Scan | None:
        """Go past a line that is too long, a piece at a time: the position moves when its end is found."""
        source = self._source
        oversize = source.oversize
        assert oversize is not None, "there must be an oversize line"
        if not oversize.complete and not source.skip():
            return None
        scan = Scan()
        if oversize.complete:
            if self._selection.has_turn(place.record):
                reason = f"expected a line of at most {RECORD_BYTES} bytes, got {oversize.length}"
                scan.rejects.append(reject(place, scan, 0, reason, oversize.head))
            source.drop_oversize()
            scan.lines = scan.records = 1
        return scan

    def _position(self) -> dict[str, Any]:
        return {
            "reading": self._reading,
            "file": self._source.identity(),
            "offset": self._source.offset,
            "line": self._line,
            "record": self._record,
        }

    def _check_reading(self, position: Any) -> None:
        stored = position["reading"]
        for key in ("format", "partition_by", "partitions"):
            if stored[key] != self._reading[key]:
                msg = (
                    f"{self._label}: {self._path} was read with {key} = {stored[key]!r} so far, and {key} is "
                    f"{self._reading[key]!r} now: records would be lost or read twice; set it back, or start afresh with --fresh"
                )
                raise IngressError(msg)
