"""Reads an intake log as an ingress: one reader for each owner in each shard. Sees what is durable, and takes what is its shard's."""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path
from typing import Any, Final

from shardfun.errors import CorruptionError, ProtocolError
from shardfun.intake.bells import Bell
from shardfun.intake.entries import Entry, decode_entry
from shardfun.intake.log import DURABLE
from shardfun.intake.log_disk import REAL_LOG_DISK, LogDisk
from shardfun.intake.log_files import (
    GROUP_SLOT,
    HEAD,
    Frame,
    Mark,
    damaged,
    frame_at,
    read_mark,
    segment_path,
    segments,
)
from shardfun.model.doors import IngressBatch, Reject
from shardfun.state.files import file_bytes, storage_error

PIECE_BYTES: Final = 256 << 10
"""Read at once, and looked at in one call: well below a millisecond."""

ENTRIES_AT_ONCE: Final = 256
"""Taken in one call: decoding and routing them takes about a millisecond."""

LOOK_AGAIN_S: Final = 1.0
"""Without any ring: somebody may have tidied up the folder of sockets."""

REJECT_BYTES: Final = 4096
"""Of an entry that cannot be understood, so much is kept in its dead letter."""


class LogReader:
    """An ``IngressReader``. Its position is the offset in the log behind what was read.

    Args:
        folder: of the log; it need not exist yet.
        slots: of this shard, half-open.
        bell: rings when the log has grown.
    """

    def __init__(self, folder: Path, slots: tuple[int, int], bell: Bell, disk: LogDisk = REAL_LOG_DISK) -> None:
        self._folder = folder
        self._disk = disk
        self._low, self._high = slots
        self._bell = bell
        self._offset = 0
        self._end = 0  # of what is durable
        self._segment = -1  # that is open, by its beginning
        self._segment_end = 0
        self._newest = -1
        self._file: int | None = None
        self._mark_file: int | None = None
        self._buffer = b""
        self._buffer_at = 0
        self._heard = -1
        self._look_at = 0.0

    @property
    def wake_fd(self) -> int:
        """Readable when the log may have grown."""
        return self._bell.fd

    @property
    def wake_at(self) -> float | None:
        """When to look again although nobody rang."""
        return self._look_at

    @property
    def finished(self) -> bool:
        """Never: more may come."""
        return False

    def open(self, position: Any | None) -> None:
        """Go to an offset.

        Raises:
            CorruptionError: the log does not reach from there, or not to there.
            StorageError: it cannot be read.
        """
        self.close()
        self._offset = self._end = position or 0
        self._heard, self._look_at = -1, 0.0
        starts = segments(self._folder, self._disk)
        first = starts[0] if starts else 0
        end = starts[-1] + file_bytes(segment_path(self._folder, starts[-1]), self._disk) if starts else 0
        if not first <= self._offset <= end:
            raise CorruptionError(
                f"{self._folder}: the last checkpoint has read this intake log up to byte {self._offset}, and it has bytes {first} to "
                f"{end}; restore the data directory as a whole from one backup, or start afresh with --fresh"
            )

    def read(self, limit: int, now: float) -> IngressBatch | None:
        """The next entries of this shard; without any, perhaps only a new position.

        Raises:
            CorruptionError: what was durable is damaged or missing.
            StorageError: it cannot be read.
        """
        if self._offset >= self._end and not self._look(now):
            return None
        before = self._offset
        records: list[Any] = []
        rejects: list[Reject] = []
        scanned = 0
        limit = min(limit, ENTRIES_AT_ONCE)
        while self._offset - before < PIECE_BYTES and len(records) + len(rejects) < limit and self._offset < self._end:
            item = self._next()
            if self._low <= item.slot < self._high:
                entry = _entry(item.content)
                if isinstance(entry, str):
                    rejects.append(Reject(f"byte {self._offset}", entry, item.content[:REJECT_BYTES]))
                else:
                    records.append(entry)
            scanned += item.slot != GROUP_SLOT
            self._offset = item.end
        place = f"intake log {self._folder.name}, bytes {before} to {self._offset}"
        return IngressBatch(self._offset, records=records, rejects=rejects, scanned=scanned, place=place)

    def close(self) -> None:
        """Close the files. Safe to call twice."""
        for descriptor in (self._file, self._mark_file):
            if descriptor is not None:
                self._disk.close(descriptor)
        self._file = self._mark_file = None
        self._segment = self._newest = -1
        self._buffer, self._buffer_at = b"", 0

    # ---- how far ----------------------------------------------------------------------------------------------------------
    def _look(self, now: float) -> bool:
        """Whether there is more than before."""
        self._bell.listen(now)
        if self._heard == self._bell.rings and now < self._look_at:
            return False
        self._heard, self._look_at = self._bell.rings, now + LOOK_AGAIN_S
        mark = self._read_mark()
        if (
            mark is None or mark.offset <= self._end
        ):  # it may be behind what was read: the power was cut, nobody has opened the log
            return False
        self._end, self._newest = mark
        if self._segment != self._newest:
            self._segment_end = 0  # segments may have come since: look at the folder again
        return True

    def _read_mark(self) -> Mark | None:
        path = self._folder / DURABLE
        try:
            if self._mark_file is None:
                self._mark_file = self._disk.open(path)
            return read_mark(self._mark_file, self._disk)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error("read", path, error) from error

    # ---- frames -----------------------------------------------------------------------------------------------------------
    def _next(self) -> Frame:
        item = frame_at(self._buffer, self._offset - self._buffer_at, self._offset)
        if item is None:
            self._fill()
            item = frame_at(self._buffer, 0, self._offset)
        if item is None:
            raise damaged(segment_path(self._folder, self._segment), self._offset - self._segment)
        return item

    def _fill(self) -> None:
        """Read what follows the offset: a piece, or a longer frame as a whole."""
        end = self._open_segment()
        piece = self._pread(min(PIECE_BYTES, end - self._offset))
        if len(piece) >= HEAD.size:
            length = HEAD.size + HEAD.unpack_from(piece)[0]
            if len(piece) < length <= end - self._offset:
                piece = self._pread(length)
        self._buffer, self._buffer_at = piece, self._offset

    def _pread(self, length: int) -> bytes:
        assert self._file is not None
        parts: list[bytes] = []
        position = self._offset - self._segment
        try:
            while length > 0 and (part := self._disk.read_at(self._file, length, position)):
                parts.append(part)
                position += len(part)
                length -= len(part)
        except OSError as error:
            raise storage_error("read", segment_path(self._folder, self._segment), error) from error
        return b"".join(parts)

    def _open_segment(self) -> int:
        """Have the segment of the offset open; where the durable part of it ends."""
        if self._segment == self._newest and self._file is not None:
            return self._end
        if self._file is None or self._offset >= self._segment_end:
            starts = segments(self._folder, self._disk)
            index = bisect_right(starts, self._offset) - 1
            if index < 0:
                raise CorruptionError(
                    f"{self._folder}: the intake log has no file for byte {self._offset}; restore it from a backup"
                )
            if starts[index] != self._segment:
                self._open_file(starts[index])
            self._segment_end = starts[index + 1] if index + 1 < len(starts) else self._end
        return min(self._segment_end, self._end)

    def _open_file(self, start: int) -> None:
        if self._file is not None:
            self._disk.close(self._file)
            self._file = None
        path = segment_path(self._folder, start)
        try:
            self._file = self._disk.open(path)
        except OSError as error:
            raise storage_error("read", path, error) from error
        self._segment = start


def _entry(content: bytes) -> Entry | str:
    """An entry, or why it is none."""
    try:
        return decode_entry(content)
    except ProtocolError as error:
        return str(error)
