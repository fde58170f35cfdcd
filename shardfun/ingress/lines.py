"""Complete lines of a plain or gzip file, read in pieces, each line at a known offset.

It exists so that the formats see whole lines and nothing else: pieces of the disk, half lines at the end of a growing file,
lines too long to keep and compression end here. Knows nothing of records, partitions or time. Offsets count uncompressed bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from shardfun.errors import IngressError

CHUNK_BYTES: Final = 64 << 10
"""Read at once: about a millisecond of parsing."""

RECORD_BYTES: Final = 1 << 20
"""The longest line, and the longest record of several lines. What is longer becomes a dead letter."""

REJECT_BYTES: Final = 4096
"""Of a record that cannot be read, so much is kept in its dead letter."""

HEAD_BYTES: Final = 4096
"""So much of a file's beginning tells whether it is the same file."""

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

# Then a line longer than RECORD_BYTES can only be the first in the buffer (see _split), and what is kept of it lies within it:
# all readers judge it alike, wherever their pieces begin.
assert CHUNK_BYTES <= RECORD_BYTES
assert REJECT_BYTES <= RECORD_BYTES


@dataclass(slots=True)
class OversizeLine:
    """A line longer than ``RECORD_BYTES``: its beginning, its length so far, and whether its end was found."""

    head: bytes
    length: int
    complete: bool


class LineSource:
    """The lines of one file.

    Args:
        path: where the file is.
        label: how to call the ingress in errors.
        follow: the file is growing: its end is not the end of its lines, and a last line without a newline is not complete.
    """

    def __init__(self, path: Path, label: str, *, follow: bool) -> None:
        self.path = path
        self.offset = 0
        """Of the first line that was not taken, in uncompressed bytes."""
        self.oversize: OversizeLine | None = None
        """The line that follows the waiting ones, if it is too long. Nothing more is read until it was dropped."""
        self.ended = False
        """Whether the end of the file is behind the waiting lines."""
        self._label = label
        self._follow = follow
        self._lines: list[bytes] = []
        self._next = 0
        self._buffer = b""
        self._raw: BinaryIO | None = None
        self._file: BinaryIO | None = None
        self._inode = 0
        self._head_length = 0
        self._head_digest = ""

    # ---- the file ------------------------------------------------------------------------------------------------------
    def open(self) -> None:
        """Go to the beginning of the file.

        Raises:
            IngressError: there is no such file, or it cannot be read.
        """
        self.close()
        try:
            self._raw = cast("BinaryIO", self.path.open("rb", buffering=0))
            status = os.fstat(self._raw.fileno())
        except OSError as error:
            msg = f"{self._label}: cannot read {self.path}: {error.strerror or error}; put the file there, or correct 'path'"
            raise IngressError(msg) from error
        if not stat.S_ISREG(status.st_mode):
            self.close()
            msg = f"{self._label}: {self.path} is not a regular file, so no position in it could be found again after a crash"
            raise IngressError(msg)
        compressed = self.path.suffix == ".gz"
        self._file = cast("BinaryIO", gzip.GzipFile(fileobj=self._raw)) if compressed else self._raw
        self._inode = status.st_ino
        self._head_length, self._head_digest = self._head(HEAD_BYTES)
        self._forget(0)

    def seek(self, offset: int) -> None:
        """Go to the line at ``offset``. A gzip file is unpacked up to there, which takes its time.

        Raises:
            IngressError: the file is shorter.
        """
        file = self._opened()
        length = self._unpack_to(offset) if file is not self._raw else os.fstat(file.fileno()).st_size
        if length < offset:
            msg = (
                f"{self._label}: {self.path} has {length} bytes, but was already read up to byte {offset}; "
                f"put the whole file back, or start afresh with --fresh"
            )
            raise IngressError(msg)
        if file is self._raw:
            file.seek(offset)
        self._forget(offset)

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        for file in (self._file, self._raw):
            if file is not None:
                file.close()
        self._file = self._raw = None

    # ---- which file it is ----------------------------------------------------------------------------------------------
    def identity(self) -> dict[str, Any]:
        """What tells this file from another one: inode and the digest of its first bytes."""
        if self._follow and self._head_length < min(HEAD_BYTES, self.offset):
            self._head_length, self._head_digest = self._head(HEAD_BYTES)
        return {"inode": self._inode, "head": self._head_digest, "head_bytes": self._head_length}

    def verify(self, identity: dict[str, Any]) -> None:
        """Make sure that the file is the one ``identity`` was taken from. A copy is: only its beginning counts.

        Raises:
            IngressError: it begins differently.
        """
        length, digest = self._head(identity["head_bytes"])
        if (length, digest) == (identity["head_bytes"], identity["head"]):
            return
        inode = identity["inode"]
        what = "was overwritten" if inode == self._inode else f"is another file (inode {self._inode}, was {inode})"
        msg = (
            f"{self._label}: {self.path} {what} since it was read: its first {identity['head_bytes']} bytes have "
            f"the digest {digest[:12]}, expected {identity['head'][:12]}; put the old file back, or start afresh with --fresh"
        )
        raise IngressError(msg)

    def _head(self, length: int) -> tuple[int, str]:
        head = os.pread(self._opened().fileno(), length, 0)
        return len(head), hashlib.sha256(head).hexdigest()

    # ---- lines ---------------------------------------------------------------------------------------------------------
    @property
    def waiting(self) -> int:
        """Complete lines that were read and not taken."""
        return len(self._lines) - self._next

    @property
    def closed(self) -> bool:
        """Whether no further line can join the waiting ones."""
        return self.ended or self.oversize is not None

    def peek(self, count: int) -> list[bytes]:
        """The next waiting lines, at most ``count``, each with its newline (the last of a file may have none)."""
        return self._lines[self._next : self._next + count]

    def take(self, count: int) -> None:
        """Go past ``count`` waiting lines."""
        self.offset += sum(map(len, self._lines[self._next : self._next + count]))
        self._next += count

    def fill(self) -> bool:
        """Read on until another line waits, or an oversize one is met. ``False``: nothing came, see ``ended``.

        Raises:
            IngressError: the file is damaged, or was truncated or replaced while it was read.
        """
        while not self.closed:
            if self._split():
                return True
            data = self._read(CHUNK_BYTES)
            if not data:
                return self._at_end()
            self._buffer += data
        return False

    def skip(self) -> bool:
        """Read one more piece of the oversize line. ``False``: nothing came, and it is not complete."""
        oversize = self.oversize
        assert oversize is not None, "only an oversize line is skipped"
        data = self._read(CHUNK_BYTES)
        end = data.find(b"\n") + 1
        if end:
            oversize.complete = True
            self._buffer = data[end:]
        elif not data and not self._follow:
            oversize.complete = True
        oversize.length += end or len(data)
        if not data:
            self._check_unchanged()
        return bool(data) or oversize.complete

    def drop_oversize(self) -> None:
        """Go past the oversize line, which is complete."""
        assert self.oversize is not None, "there must be an oversize line"
        assert self.oversize.complete, "its end must be known"
        assert not self.waiting, "lines before it come first"
        self.offset += self.oversize.length
        self.oversize = None

    def _forget(self, offset: int) -> None:
        self.offset = offset
        self.oversize = None
        self.ended = False
        self._lines = []
        self._next = 0
        self._buffer = b""

    def _split(self) -> bool:
        """Move the complete lines of the buffer to the waiting ones."""
        if self.offset == 0 and not self._lines and self._buffer.startswith(BYTE_ORDER_MARK):
            self._buffer = self._buffer.removeprefix(BYTE_ORDER_MARK)
            self.offset = len(BYTE_ORDER_MARK)
        end = self._buffer.rfind(b"\n") + 1
        if not end:
            if len(self._buffer) <= RECORD_BYTES:
                return False
            self.oversize = OversizeLine(self._buffer[:REJECT_BYTES], len(self._buffer), complete=False)
            self._buffer = b""
            return True
        first = self._buffer.find(b"\n") + 1
        if first > RECORD_BYTES:
            self.oversize = OversizeLine(self._buffer[:REJECT_BYTES], first, complete=True)
            self._buffer = self._buffer[first:]
            return True
        # Not splitlines(): lines end at "\n" alone, and a stray "\r" belongs to its line.
        self._append(BytesIO(self._buffer[:end]).readlines())
        self._buffer = self._buffer[end:]
        return True

    def _append(self, lines: list[bytes]) -> None:
        self._lines = self._lines[self._next :] + lines
        self._next = 0

    def _at_end(self) -> bool:
        self._check_unchanged()
        if self._follow:
            return False
        self.ended = True
        if not self._buffer:
            return False
        self._append([self._buffer])
        self._buffer = b""
        return True

    def _check_unchanged(self) -> None:
        """At the end of the file: was it cut short, or does the path lead to another file by now?"""
        file = self._opened()
        if file is not self._raw:
            return
        problem = ""
        if os.fstat(file.fileno()).st_size < file.tell():
            problem = f"has {os.fstat(file.fileno()).st_size} bytes, but {file.tell()} were already read: it was truncated"
        elif self._follow:
            problem = self._replacement()
        if problem:
            msg = f"{self._label}: {self.path} {problem}; put the old file back, or start afresh with --fresh"
            raise IngressError(msg)

    def _replacement(self) -> str:
        try:
            inode = self.path.stat().st_ino
        except OSError as error:
            return f"was removed while it was followed: {error.strerror or error}"
        if inode != self._inode:
            return f"was replaced by another file (inode {inode}, was {self._inode}) while it was followed"
        if self._head(self._head_length) != (self._head_length, self._head_digest):
            return "was overwritten while it was followed"
        return ""

    def _read(self, size: int) -> bytes:
        file = self._opened()
        try:
            return file.read(size)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            msg = f"{self._label}: {self.path} is not a whole gzip file: {error}; put an undamaged copy there"
            raise IngressError(msg) from error
        except OSError as error:
            msg = f"{self._label}: cannot read {self.path}: {error.strerror or error}; correct that and start again"
            raise IngressError(msg) from error

    def _unpack_to(self, offset: int) -> int:
        """Read a gzip file from its beginning; returns where that ended: at ``offset``, or before it at the end."""
        self._opened().seek(0)
        length = 0
        while length < offset and (data := self._read(min(CHUNK_BYTES, offset - length))):
            length += len(data)
        return length

    def _opened(self) -> BinaryIO:
        assert self._file is not None, "open() comes first"
        return self._file
