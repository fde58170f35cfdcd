"""What an intake log needs of a file system beyond what storage needs (``state.filesystem``): writing in place, and a lock.

A seam: the simulator puts a disk in its place that loses what was not fsynced.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final, Protocol

from shardfun.state.filesystem import FILE_MODE, FileSystem, RealFileSystem


class LogDisk(FileSystem, Protocol):
    """Steps of the operating system, one by one. All raise ``OSError``."""

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> int:
        """Open a file for reading, or for reading and writing; its descriptor."""

    def read_at(self, descriptor: int, length: int, position: int) -> bytes:
        """A part of an open file, perhaps not all of it; empty at the end."""

    def write_at(self, descriptor: int, piece: bytes | memoryview, position: int) -> int:
        """Write into an open file; how many bytes were taken, which may be fewer."""

    def truncate(self, descriptor: int, length: int) -> None:
        """Cut an open file."""

    def sync_data(self, descriptor: int) -> None:
        """Make content and length of a file durable."""

    def lock(self, descriptor: int) -> None:
        """Lock a file for this process alone.

        Raises:
            BlockingIOError: another one has it.
        """

    def unlock(self, descriptor: int) -> None:
        """Give the lock up, also for processes forked meanwhile."""


class RealLogDisk(RealFileSystem):
    """That of the operating system."""

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> int:
        """See ``LogDisk``."""
        return os.open(path, (os.O_RDWR if write else os.O_RDONLY) | (os.O_CREAT if create else 0) | os.O_CLOEXEC, FILE_MODE)

    def read_at(self, descriptor: int, length: int, position: int) -> bytes:
        """See ``LogDisk``."""
        return os.pread(descriptor, length, position)

    def write_at(self, descriptor: int, piece: bytes | memoryview, position: int) -> int:
        """See ``LogDisk``."""
        return os.pwrite(descriptor, piece, position)

    def truncate(self, descriptor: int, length: int) -> None:
        """See ``LogDisk``."""
        os.ftruncate(descriptor, length)

    def sync_data(self, descriptor: int) -> None:
        """See ``LogDisk``."""
        os.fdatasync(descriptor)

    def lock(self, descriptor: int) -> None:
        """See ``LogDisk``."""
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def unlock(self, descriptor: int) -> None:
        """See ``LogDisk``."""
        fcntl.flock(descriptor, fcntl.LOCK_UN)


REAL_LOG_DISK: Final[LogDisk] = RealLogDisk()
