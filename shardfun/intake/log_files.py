"""The form of an intake log on the disk: segments of frames, and marks.

    DATA_DIR/intake/OWNER/segment-<offset>   frames, one after the other; the name says where in the log it begins (16 hex digits)
    DATA_DIR/intake/OWNER/durable            the mark up to which the log is on the disk; the writer holds a lock on it
    DATA_DIR/intake/OWNER/consumed           the mark up to which complete checkpoints have read; the supervisor writes it

A segment ends where the next one begins, whatever else it may hold: a write that failed may have left something there. Each group
of frames that was written and synced together begins with a frame of its own. So a damaged frame with a later group behind it was
durable once (the later one was written after its fsync): that is corruption, and no torn end of the log.
"""

from __future__ import annotations

import itertools
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from shardfun.errors import CorruptionError
from shardfun.intake.log_disk import REAL_LOG_DISK, LogDisk
from shardfun.state.files import remove_file, storage_error, sync_directory

HEAD: Final = struct.Struct(">IIH")
"""Of a frame: length of the content, checksum, slot."""

GROUP_SLOT: Final = 0xFFFF
"""No slot: such frames are read by nobody."""

GROUP_CONTENT: Final = b"\xd5group\x0d\x0a"

CONTENT_BYTES_MAX: Final = 64 << 20
"""The longest entry that any owner may take in."""

_PLACE = struct.Struct(">QHI")
_MARK = struct.Struct(">8sQQ")
_MARK_MAGIC = b"sfintak1"
_SUM = struct.Struct(">I")
_NAME = re.compile(r"segment-([0-9a-f]{16})")
_MARK_TRIES = 3


class Mark(NamedTuple):
    """A place in a log: ``offset`` from its beginning, and the ``segment`` (its first offset) that is being written there."""

    offset: int
    segment: int


NO_MARK: Final = Mark(0, 0)


# ---- frames --------------------------------------------------------------------------------------------------------------
def frame(offset: int, slot: int, content: bytes) -> bytes:
    """A frame that stands at ``offset``: its checksum covers the place, so that it is a frame nowhere else."""
    return HEAD.pack(len(content), checksum(offset, slot, content), slot) + content


def group_frame(offset: int) -> bytes:
    """The frame that begins a group."""
    return frame(offset, GROUP_SLOT, GROUP_CONTENT)


GROUP_BYTES: Final = HEAD.size + len(GROUP_CONTENT)


def checksum(offset: int, slot: int, content: bytes | memoryview) -> int:
    """CRC-32 over place, slot, length and content."""
    return zlib.crc32(content, zlib.crc32(_PLACE.pack(offset, slot, len(content))))


class Frame(NamedTuple):
    """A whole frame in a buffer: where it ends in the log, for which slot it is, what it holds."""

    end: int
    slot: int
    content: bytes


def frame_at(buffer: bytes, position: int, offset: int) -> Frame | None:
    """The frame at ``position`` of a buffer, which stands at ``offset`` of the log; ``None`` if there is no whole, valid one."""
    if len(buffer) - position < HEAD.size:
        return None
    length, expected, slot = HEAD.unpack_from(buffer, position)
    start = position + HEAD.size
    if not 0 < length <= len(buffer) - start:
        return None
    content = buffer[start : start + length]
    if checksum(offset, slot, content) != expected:
        return None
    return Frame(offset + HEAD.size + length, slot, content)


def whole_frames(buffer: bytes, offset: int) -> tuple[list[Frame], int]:
    """The frames a buffer begins with, and the offset behind the last whole one."""
    found: list[Frame] = []
    end = offset
    while (item := frame_at(buffer, end - offset, end)) is not None:
        found.append(item)
        end = item.end
    return found, end


def group_behind(buffer: bytes, position: int, offset: int) -> int | None:
    """The offset of the first valid group frame behind ``position`` of a buffer that stands at ``offset``; ``None``: none."""
    at = buffer.find(GROUP_CONTENT, position)
    while at >= 0:
        begin = at - HEAD.size
        if begin >= position and frame_at(buffer, begin, offset + begin) is not None:
            return offset + begin
        at = buffer.find(GROUP_CONTENT, at + 1)
    return None


# ---- segments ------------------------------------------------------------------------------------------------------------
def segment_path(folder: Path, start: int) -> Path:
    """The file of the segment that begins at ``start``."""
    return folder / f"segment-{start:016x}"


def segments(folder: Path, disk: LogDisk = REAL_LOG_DISK) -> list[int]:
    """Where the segments of a log begin, in order; none if there is no log.

    Raises:
        StorageError: the folder cannot be read.
    """
    try:
        names = disk.names(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise storage_error("list", folder, error) from error
    return sorted(int(found[1], 16) for name in names if (found := _NAME.fullmatch(name)))


def trim(folder: Path, offset: int, disk: LogDisk = REAL_LOG_DISK) -> int:
    """Remove the segments that end at or before ``offset``, never the last one; how many.

    One after the other, and each durably before the next: after a power cut any file that was removed may be back, and an older one
    without the newer would look like a log that has lost something.

    Raises:
        StorageError: one of them cannot be removed.
    """
    starts = segments(folder, disk)
    doomed = [start for start, end in itertools.pairwise(starts) if end <= offset]
    for start in doomed:
        sync_directory(folder, disk)
        remove_file(segment_path(folder, start), disk)
    return len(doomed)


def scan(folder: Path, start: int, end: int, disk: LogDisk = REAL_LOG_DISK) -> Iterator[Frame]:
    """All frames between two offsets, without those that begin groups.

    Raises:
        CorruptionError: a frame is damaged or missing.
        StorageError: a file cannot be read.
    """
    starts = segments(folder, disk)
    for index, first in enumerate(starts):
        limit = min(end, starts[index + 1]) if index + 1 < len(starts) else end
        at = max(start, first)
        if at >= limit:
            continue
        path = segment_path(folder, first)
        found, reached = whole_frames(read_range(path, at - first, limit - at, disk), at)
        if reached != limit:
            raise damaged(path, reached - first)
        yield from (item for item in found if item.slot != GROUP_SLOT)


def read_range(path: Path, position: int, length: int, disk: LogDisk = REAL_LOG_DISK) -> bytes:
    """Up to ``length`` bytes of a file.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        return disk.read(path, position, length)
    except OSError as error:
        raise storage_error("read", path, error) from error


def damaged(path: Path, position: int) -> CorruptionError:
    """The error for a frame that was durable and is none any more."""
    return CorruptionError(
        f"{path}: the intake log is damaged at byte {position} of this file; what was acknowledged may be lost: restore the file "
        "from a backup, or start afresh with --fresh"
    )


# ---- marks ---------------------------------------------------------------------------------------------------------------
def write_mark(descriptor: int, mark: Mark, disk: LogDisk = REAL_LOG_DISK) -> None:
    """Put a mark into an open file. Not durable; may raise ``OSError``."""
    head = _MARK.pack(_MARK_MAGIC, *mark)
    write_all_at(disk, descriptor, head + _SUM.pack(zlib.crc32(head)), 0)


def write_all_at(disk: LogDisk, descriptor: int, data: bytes, position: int) -> None:
    """Write all of ``data``, in as many parts as the disk wants. May raise ``OSError``."""
    rest = memoryview(data)
    while rest:
        written = disk.write_at(descriptor, rest, position)
        rest = rest[written:]
        position += written


def read_mark(descriptor: int, disk: LogDisk = REAL_LOG_DISK) -> Mark | None:
    """The mark in an open file; ``None``: there is none, or it is damaged. May raise ``OSError``."""
    for _ in range(_MARK_TRIES):  # it may be read in the middle of a write
        raw = disk.read_at(descriptor, _MARK.size + _SUM.size, 0)
        if len(raw) < _MARK.size + _SUM.size:
            return None
        magic, offset, segment = _MARK.unpack_from(raw)
        if magic == _MARK_MAGIC and _SUM.unpack_from(raw, _MARK.size)[0] == zlib.crc32(raw[: _MARK.size]):
            return Mark(offset, segment)
    return None


def load_mark(path: Path, disk: LogDisk = REAL_LOG_DISK) -> Mark | None:
    """The mark in a file; ``None``: there is none, or it is damaged.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        descriptor = disk.open(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error("read", path, error) from error
    try:
        return read_mark(descriptor, disk)
    except OSError as error:
        raise storage_error("read", path, error) from error
    finally:
        disk.close(descriptor)


def save_mark(path: Path, mark: Mark, disk: LogDisk = REAL_LOG_DISK) -> None:
    """Put a mark into a file of an existing folder. Not durable.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        descriptor = disk.open(path, write=True, create=True)
        try:
            write_mark(descriptor, mark, disk)
        finally:
            disk.close(descriptor)
    except OSError as error:
        raise storage_error("write", path, error) from error
