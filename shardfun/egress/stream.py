"""Egress kinds ``stream`` and ``http``: published records kept in the data directory for readers that come and go, exactly once.

Like the file egress, in segments: what is behind the published part is compared with the pending records, and kept as far as it
is the same. Whole segments are deleted, oldest first, when a partition outgrows its ``retention``; that may pass what the last
checkpoint knows to be published, since the names of the segments tell it as well. Read with ``egress.tail``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

import msgspec

from shardfun.config.units import Size, format_size, toml_key
from shardfun.egress.jsonlines import encode_line
from shardfun.egress.segments import JOB_DIGITS, Segment, partition_folder, segment_at, segments_in
from shardfun.errors import ConfigurationError, EgressError
from shardfun.ports import Partition, PublishedPosition

SEGMENT_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700
NO_JOB: Final = "0" * JOB_DIGITS


class StreamEgressOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename=toml_key):
    """Settings of a stream.

    Args:
        retention_bytes: the oldest records of a shard are deleted when it holds more. A reader that has not come to them is told.
        segment_bytes: they are deleted in pieces of this size.
        fsync: whether records are on the disk before they count as published. Without it they survive the death of every
            process, but not the loss of power.
    """

    retention_bytes: Annotated[int, Size(64 << 10)] = 256 << 20
    segment_bytes: Annotated[int, Size(4 << 10, 1 << 30)] = 16 << 20
    fsync: bool = True

    def __post_init__(self) -> None:
        """Raise ``ConfigurationError`` for settings that contradict each other."""
        if self.retention_bytes < 2 * self.segment_bytes:
            raise ConfigurationError(
                f"retention: expected at least twice the segment ({format_size(self.segment_bytes)}), "
                f"got {format_size(self.retention_bytes)}"
            )


class StreamEgress:
    """The segments of one partition."""

    options: ClassVar[type[StreamEgressOptions]] = StreamEgressOptions

    def __init__(self, name: str, options: StreamEgressOptions, partition: Partition) -> None:
        self._label = f"egress {name!r}"
        self._options = options
        self._job = partition.job[:JOB_DIGITS] or NO_JOB
        self._folder = partition_folder(partition.data_dir, name, partition.index)
        self._segments: list[Segment] = []
        self._descriptor: int | None = None
        self._records = 0
        self._bytes = 0
        self._torn = False

    @classmethod
    def check(cls, options: StreamEgressOptions, partitions: int) -> str | None:  # noqa: ARG003 - same for all kinds
        """Nothing more can be wrong."""
        return None

    @classmethod
    def remove_outputs(cls, options: StreamEgressOptions, partitions: int) -> None:
        """Nothing: the segments are in the data directory, which is erased as a whole."""

    def encode(self, value: Any) -> bytes:
        """The value as a line of JSON.

        Raises:
            TypeError: something in the value has no form in JSON.
        """
        return encode_line(value)

    def open(self, published: PublishedPosition, pending: Sequence[bytes]) -> int:
        """Find how many of the ``pending`` records are there behind what was ``published``; cut off a torn one.

        Raises:
            EgressError: there is less than was published, or something this data directory did not write.
        """
        self.close()
        try:
            self._make_folder()
            self._segments = segments_in(self._folder)
            self._check_own(published)
            found = self._find(published, pending)
            self._cut_to()
        except OSError as error:
            self.close()
            msg = (
                f"{self._label}: cannot open its stream in {self._folder}: {error.strerror or error}; check its owner and mode"
            )
            raise EgressError(msg, errno=error.errno) from error
        except EgressError:
            self.close()
            raise
        return found

    def publish(self, records: Sequence[bytes]) -> None:
        """Append records, and make them durable. After an error the stream is as before, and the same may be tried again.

        Raises:
            EgressError: the disk is full or failed.
        """
        before = self._records, self._bytes
        try:
            if self._torn:
                self._cut_to()
            first = 0
            while first < len(records):
                first += self._append(records, first)
            self._sync()
        except OSError as error:
            self._records, self._bytes = before
            self._torn = True
            with suppress(OSError):
                self._cut_to()
            size = sum(map(len, records))
            msg = f"{self._label}: cannot append {size} bytes in {self._folder}: {error.strerror or error}; will be tried again"
            raise EgressError(msg) from error
        self._delete_old()

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    # ---- opening --------------------------------------------------------------------------------------------------------
    def _make_folder(self) -> None:
        """With names that are durable: else a power cut could take a stream away that was published to."""
        new = [path for path in (self._folder, *self._folder.parents[:2]) if not path.exists()]
        for path in reversed(new):
            path.mkdir(mode=FOLDER_MODE, exist_ok=True)
            self._sync_folder(path.parent)

    def _check_own(self, published: PublishedPosition) -> None:
        segments = self._segments
        foreign = [segment for segment in segments if segment.job != self._job]
        if foreign:
            msg = f"{self._label}: {foreign[0].path} is of another data directory; move {self._folder} away, or use --fresh"
            raise EgressError(msg)
        for segment, following in pairwise(segments):
            size = segment.path.stat().st_size
            if segment.bytes + size < min(following.bytes, published.bytes):
                raise self._less(published, segment.bytes + size)
        if not segments and published.records:
            raise self._less(published, 0)

    def _less(self, published: PublishedPosition, size: int) -> EgressError:
        return EgressError(
            f"{self._label}: {self._folder} ends at byte {size}, but {published.bytes} bytes ({published.records} records) "
            f"were published to it; put its files back, or start afresh with --fresh"
        )

    def _find(self, published: PublishedPosition, pending: Sequence[bytes]) -> int:
        """How many of the pending records are there; moves to the place behind them."""
        self._records, self._bytes = published.records, published.bytes
        found = self._skip_deleted(pending)
        if not self._segments or self._bytes < self._segments[0].bytes:
            return found  # after a loss that was accepted, all of it may be newer than the checkpoint
        last = self._segments[-1]
        end = last.bytes + last.path.stat().st_size
        if end < self._bytes:
            raise self._less(published, end)
        tail = self._read_from(self._bytes, sum(map(len, pending[found:])) + 1)
        place = 0
        for record in pending[found:]:
            if not tail.startswith(record, place):
                break
            place += len(record)
            found += 1
        rest = tail[place:]
        self._records, self._bytes = published.records + found, self._bytes + place
        if not published.records and rest and not (found < len(pending) and pending[found].startswith(rest)):
            msg = f"{self._label}: {self._folder} has records which this data directory did not write; move it away, or use --fresh"
            raise EgressError(msg)
        return found

    def _skip_deleted(self, pending: Sequence[bytes]) -> int:
        """Pending records that were published and have been deleted for their age: the oldest segment begins behind them."""
        oldest = self._segments[0] if self._segments else None
        found = 0
        while oldest is not None and self._bytes < oldest.bytes and found < len(pending):
            self._records += 1
            self._bytes += len(pending[found])
            found += 1
        if oldest is not None and found and self._bytes > oldest.bytes:
            msg = f"{self._label}: {oldest.path} does not begin where a record ends; it was not written by this data directory"
            raise EgressError(msg)
        return found

    def _read_from(self, start: int, wanted: int) -> bytes:
        """What is there from byte ``start`` of the partition on, over the ends of segments that are whole."""
        parts: list[bytes] = []
        for segment in self._segments:
            if parts and segment.bytes != start:
                break  # the one before is not whole, after a power cut without fsync
            if wanted > 0 and segment.bytes + segment.path.stat().st_size > start:
                with segment.path.open("rb") as file:
                    file.seek(start - segment.bytes)
                    parts.append(file.read(wanted))
                wanted -= len(parts[-1])
                start += len(parts[-1])
        return b"".join(parts)

    # ---- writing --------------------------------------------------------------------------------------------------------
    def _append(self, records: Sequence[bytes], first: int) -> int:
        """As many records as go into the newest segment, at least one; begins a new one if it is full."""
        if self._bytes - self._segments[-1].bytes >= self._options.segment_bytes:
            self._sync()
            self._begin_segment()
        room = self._options.segment_bytes - (self._bytes - self._segments[-1].bytes)
        taken = 0
        while first + taken < len(records) and (not taken or room > 0):
            room -= len(records[first + taken])
            taken += 1
        data = b"".join(records[first : first + taken])
        assert self._descriptor is not None, "open() comes first"
        offset = self._bytes - self._segments[-1].bytes
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._descriptor, rest, offset)
            rest = rest[written:]
            offset += written
        self._records += taken
        self._bytes += len(data)
        return taken

    def _begin_segment(self) -> None:
        segment = segment_at(self._folder, self._records, self._bytes, self._job)
        self.close()
        self._descriptor = os.open(segment.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, SEGMENT_MODE)
        self._segments.append(segment)
        self._sync_folder(self._folder)

    def _cut_to(self) -> None:
        """Whatever lies behind the place goes: whole segments, and the rest of one. Then everything that is left is durable."""
        self.close()
        while self._segments and self._segments[-1].bytes > self._bytes:
            self._segments.pop().path.unlink()
        if not self._segments:
            self._begin_segment()
        if self._descriptor is None:
            self._descriptor = os.open(self._segments[-1].path, os.O_RDWR | os.O_CLOEXEC)
        size = self._bytes - self._segments[-1].bytes
        if os.fstat(self._descriptor).st_size != size:
            os.ftruncate(self._descriptor, size)
        # Found records were written, but perhaps not synced, before the crash: they count as published from now on.
        self._sync()
        self._torn = False

    def _delete_old(self) -> None:
        """Never the newest segment. An error is no reason to stop: it is tried again with the next records.

        Each durably before the next: a power cut that brings back an older one without the newer would leave a gap.
        """
        while len(self._segments) > 1 and self._bytes - self._segments[1].bytes >= self._options.retention_bytes:
            try:
                self._sync_folder(self._folder)
                self._segments[0].path.unlink(missing_ok=True)
            except OSError:
                return
            del self._segments[0]

    def _sync(self) -> None:
        if self._options.fsync and self._descriptor is not None:
            os.fsync(self._descriptor)

    def _sync_folder(self, folder: Path) -> None:
        if not self._options.fsync:
            return
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
