"""Read what an egress of kind ``stream`` (or ``http``) has published, and wait for more.

For other processes than the one that writes: it looks at files only, holds none of them open, and takes no lock. What it gives
out is final: a sink writes only records of complete checkpoints, and a torn line is not yet a record. So a reader needs nothing
but the id of the last event it has seen to go on later, in this process or another.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal, Self

import msgspec
import trio

from shardfun.egress.segments import JOB_DIGITS, Segment, partition_folder, segment_at, segments_in
from shardfun.errors import EgressError, EventIdError, EventsGoneError

CHUNK_BYTES: Final = 64 << 10
"""Read at once from one partition; a longer line is read whole."""

SLEEP_MIN_S: Final = 0.005
SLEEP_MAX_S: Final = 0.25
"""A reader that finds nothing looks again after pauses that double between these two: a look costs a few microseconds."""

EVENT_ID_CHARACTERS_MAX: Final = 2048

_EVENT_ID: Final = re.compile(rf"([0-9a-f]{{{JOB_DIGITS}}})-(\d{{1,16}}(?:\.\d{{1,16}})*)", re.ASCII)


class EgressTail:
    """An endless asynchronous iterator (Trio) over ``(event id, record)`` of all partitions.

    The records of one partition come in order; those of different partitions interleave anyhow. A record is what JSON makes of
    it: dicts, lists, texts, numbers. An event id stands for everything up to its record, in all partitions.

    Making one reads a little; a loop that may not wait for a disk does it in a thread.

    Args:
        data_dir: of the node.
        name: of the egress.
        partitions: the number of shards.
        after: the event id to go on behind.
        start: without ``after``, where to begin: at the ``oldest`` record that is still there, or at what comes from now on.

    Raises:
        EventIdError: ``after`` is no event id of this stream.
        EventsGoneError: the records behind ``after`` were deleted, since newer ones needed the room (``retention``).
        OSError: the files cannot be read.
    """

    def __init__(
        self,
        data_dir: Path,
        name: str,
        partitions: int,
        *,
        after: str | None = None,
        start: Literal["oldest", "newest"] = "oldest",
    ) -> None:
        self._label = f"egress {name!r}"
        folders = [partition_folder(data_dir, name, partition) for partition in range(partitions)]
        if after is None:
            self._job = ""
            self._cursors = [_Cursor(self._label, folder, 0) for folder in folders]
        else:
            self._job, numbers = self._parse(after, partitions)
            self._cursors = [_Cursor(self._label, folder, number) for folder, number in zip(folders, numbers, strict=True)]
        for cursor in self._cursors:
            if after is None:
                cursor.begin(newest=start == "newest")
            else:
                cursor.check(self._job)
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._sleep_s = SLEEP_MIN_S

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[str, Any]:
        """The next event; waits until there is one. May be cancelled: no event is lost by that.

        Raises:
            EventsGoneError: this reader is so slow that records were deleted before it came to them.
            EventIdError: the stream is one of another run now (``--fresh``).
            EgressError: a file cannot be read.
        """
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            if self._grown():
                await trio.to_thread.run_sync(self._look)
            if not self._waiting:
                await trio.sleep(self._sleep_s)
                self._sleep_s = min(2 * self._sleep_s, SLEEP_MAX_S)
        self._sleep_s = SLEEP_MIN_S
        partition, line = self._waiting.popleft()
        self._cursors[partition].given += 1
        return self.event_id, self._record(partition, line)

    def take(self, limit: int) -> list[tuple[str, Any]]:
        """What is there at this moment, or the beginning of it; none if there is nothing new. Blocks on the disk, and needs no Trio.

        Raises:
            EgressError: as ``__anext__``.
        """
        if not self._waiting:
            self._look()
        found: list[tuple[str, Any]] = []
        while self._waiting and len(found) < limit:
            partition, line = self._waiting.popleft()
            self._cursors[partition].given += 1
            found.append((self.event_id, self._record(partition, line)))
        return found

    def _record(self, partition: int, line: bytes) -> Any:
        try:
            return msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            cursor = self._cursors[partition]
            msg = f"{self._label}: record {cursor.given} in {cursor.folder} is no JSON ({error}): its file is damaged"
            raise EgressError(msg) from error

    @property
    def ready(self) -> bool:
        """Whether the next event is in memory: asking for it does not wait."""
        return bool(self._waiting)

    @property
    def event_id(self) -> str:
        """Of the last event given out: an iterator made with it goes on where this one is."""
        return f"{self._job or '0' * JOB_DIGITS}-{'.'.join(str(cursor.given) for cursor in self._cursors)}"

    def _grown(self) -> bool:
        return any(cursor.grown() for cursor in self._cursors)

    def _look(self) -> None:
        """Take some of the lines that are there; in a thread. An error in one partition leaves what another gave."""
        for partition, cursor in enumerate(self._cursors):
            try:
                self._waiting.extend((partition, line) for line in cursor.read())
            except OSError as error:
                msg = f"{self._label}: cannot read its stream in {cursor.folder}: {error.strerror or error}"
                raise EgressError(msg) from error
            self._job = self._same_job(cursor.job)

    def _same_job(self, job: str) -> str:
        if job and self._job not in ("", "0" * JOB_DIGITS, job):
            msg = f"{self._label}: this is the stream of another run now: it was begun anew; read it without an event id"
            raise EventIdError(msg)
        return job or self._job

    def _parse(self, after: str, partitions: int) -> tuple[str, list[int]]:
        match = _EVENT_ID.fullmatch(after) if len(after) <= EVENT_ID_CHARACTERS_MAX else None
        numbers = [] if match is None else [int(number) for number in match[2].split(".")]
        if match is None or len(numbers) != partitions:
            msg = f"{self._label}: expected an event id that this stream gave ({partitions} partitions), got {after[:80]!r}"
            raise EventIdError(msg)
        return match[1], numbers


class _Cursor:
    """A place in one partition: behind record number ``records``, which is ``bytes`` from its beginning.

    Args:
        records: how many records to leave out.
    """

    def __init__(self, label: str, folder: Path, records: int) -> None:
        self.folder = folder
        self.given = records
        self.job = ""
        self._label = label
        self._records = records
        self._bytes = 0
        self._segment: Segment | None = None

    def begin(self, *, newest: bool) -> None:
        """Go to the oldest record, or behind the newest one."""
        segments = segments_in(self.folder)
        if not segments:
            return
        self._enter(segments[-1 if newest else 0])
        if newest:
            while data := _lines_at(segments[-1].path, self._bytes - segments[-1].bytes):
                self._records += data.count(b"\n")
                self._bytes += len(data)
        self.given = self._records

    def check(self, job: str) -> None:
        """Raise an error if it is clear from the names of the files that reading cannot go on here."""
        segments = segments_in(self.folder)
        if segments and segments[0].job != job and job != "0" * JOB_DIGITS:
            msg = (
                f"{self._label}: the event id is of another run, before the stream was begun anew; read it without an event id"
            )
            raise EventIdError(msg)
        if segments and segments[0].records > self._records:
            raise self._gone(segments[0])

    def grown(self) -> bool:
        """Whether it is worth to read: whether anything differs from what was there at the last look."""
        segment = self._segment
        if segment is None:
            return self.folder.exists()
        try:
            if segment.path.stat().st_size > self._bytes - segment.bytes:
                return True
        except OSError:
            return True
        return self._next(segment).path.exists()

    def read(self) -> list[bytes]:
        """Some more whole lines.

        Raises:
            EventsGoneError: they were deleted.
            OSError: a file cannot be read.
        """
        if self._segment is None:
            self._locate()
        while (segment := self._segment) is not None:
            try:
                data = _lines_at(segment.path, self._bytes - segment.bytes)
            except FileNotFoundError:  # deleted, or cut back and written again
                self._locate()
                if self._segment is None or self._segment.path == segment.path:
                    return []
                continue
            if data:
                lines = data[:-1].split(b"\n")
                self._bytes += len(data)
                self._records += len(lines)
                return lines
            following = self._next(segment)
            if following.path == segment.path or not following.path.exists():
                return []
            self._enter(following)
        return []

    def _next(self, segment: Segment) -> Segment:
        return segment_at(self.folder, self._records, self._bytes, segment.job)

    def _enter(self, segment: Segment) -> None:
        self._segment = segment
        self._records, self._bytes = segment.records, segment.bytes
        self.job = segment.job

    def _locate(self) -> None:
        """Find the segment of the place, and the place in it, by the number of the record."""
        segments = segments_in(self.folder)
        self._segment = None
        if not segments:
            return
        wanted = self._records
        holding = [segment for segment in segments if segment.records <= wanted]
        if not holding:
            raise self._gone(segments[0])
        self._enter(holding[-1])
        while self._records < wanted:
            data = _lines_at(holding[-1].path, self._bytes - holding[-1].bytes)
            if not data:  # not written yet: its sink is being restored, and will write the same records again
                self._records, self._segment = wanted, None
                return
            lines = data[:-1].split(b"\n")[: wanted - self._records]
            self._records += len(lines)
            self._bytes += sum(map(len, lines)) + len(lines)

    def _gone(self, oldest: Segment) -> EventsGoneError:
        msg = (
            f"{self._label}: the records {self._records} to {oldest.records - 1} of partition {self.folder.name} were deleted "
            f"before they were read; raise its 'retention', or read on without an event id"
        )
        return EventsGoneError(msg)


def _lines_at(path: Path, offset: int) -> bytes:
    """Whole lines from ``offset`` on: about a chunk, or one line that is longer; empty if there is none."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _whole_lines(_chunks(descriptor, offset))
    finally:
        os.close(descriptor)


def _chunks(descriptor: int, offset: int) -> Iterable[bytes]:
    while chunk := os.pread(descriptor, CHUNK_BYTES, offset):
        offset += len(chunk)
        yield chunk


def _whole_lines(chunks: Iterable[bytes]) -> bytes:
    parts: list[bytes] = []
    for chunk in chunks:
        parts.append(chunk)
        if (end := chunk.rfind(b"\n")) >= 0:
            parts[-1] = chunk[: end + 1]
            return b"".join(parts)
    return b""
