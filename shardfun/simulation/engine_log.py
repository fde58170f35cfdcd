"""The log format of LevelDB, with smaller blocks: records in checked fragments, and what a reader makes of damage.

Faithful where it matters: a torn end is the end, a fragment whose checksum does not fit is damage and takes the rest of its block with it,
and zeros where a fragment should begin are skipped to the end of the block without a word. So a page that was never written may take
records out of the middle, unseen.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

BLOCK_BYTES = 512
TRAILER_BYTES = 64
"""Less room than this at the end of a block is not used. More than LevelDB leaves, so that a record often begins with a block."""

FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4

_HEAD = struct.Struct(">IHB")  # checksum of type and content, length, type


class LogWriter:
    """Turns records into bytes to append; knows the place in the block."""

    def __init__(self) -> None:
        self._offset = 0

    def encode(self, record: bytes) -> bytes:
        """The bytes of the next record."""
        pieces: list[bytes] = []
        position = 0
        while True:
            room = BLOCK_BYTES - self._offset % BLOCK_BYTES
            if room < TRAILER_BYTES:
                pieces.append(bytes(room))
                self._offset += room
                continue
            fragment = record[position : position + room - _HEAD.size]
            first, last = position == 0, position + len(fragment) == len(record)
            kind = (FULL if last else FIRST) if first else (LAST if last else MIDDLE)
            pieces.append(_HEAD.pack(_checksum(kind, fragment), len(fragment), kind) + fragment)
            self._offset += _HEAD.size + len(fragment)
            position += len(fragment)
            if last:
                return b"".join(pieces)


def read_log(raw: bytes) -> tuple[list[bytes], bool]:
    """The records that can be read, and whether damage was noticed."""
    records: list[bytes] = []
    damaged = False
    parts: list[bytes] | None = None
    for kind, fragment in _fragments(raw):
        if kind in {FULL, FIRST}:
            damaged |= parts is not None
            parts = []
        if kind == 0 or parts is None:  # what is not readable, or the rest of a record whose beginning is not
            damaged |= kind != 0 or bool(fragment) or parts is not None
            parts = None
            continue
        parts.append(fragment)
        if kind in {FULL, LAST}:
            records.append(b"".join(parts))
            parts = None
    return records, damaged


def _fragments(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and content of each fragment; kind 0: the rest of a block cannot be used, and content says whether that is damage."""
    for start in range(0, len(raw), BLOCK_BYTES):
        block = raw[start : start + BLOCK_BYTES]
        at_end = start + len(block) == len(raw)
        position = 0
        while len(block) - position >= _HEAD.size and (position <= BLOCK_BYTES - TRAILER_BYTES):
            checksum, length, kind = _HEAD.unpack_from(block, position)
            fragment = block[position + _HEAD.size : position + _HEAD.size + length]
            if len(fragment) < length and at_end:
                return  # the writer died here
            if kind == 0 and length == 0:
                yield 0, b""
                break
            if len(fragment) < length or kind > LAST or checksum != _checksum(kind, fragment):
                yield 0, b"damage"
                break
            yield kind, fragment
            position += _HEAD.size + length


def _checksum(kind: int, fragment: bytes) -> int:
    return zlib.crc32(fragment, kind)
