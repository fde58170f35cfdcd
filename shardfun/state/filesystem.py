"""What storage needs of a file system, and the real one.

A seam: the simulator puts a disk in its place that loses what was not fsynced. In which order the steps are taken is not decided
here (see ``files``), and errors are plain ``OSError``.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

FILE_MODE: Final = 0o600
DIRECTORY_MODE: Final = 0o700


class FileSystem(Protocol):
    """Steps of the operating system, one by one. All raise ``OSError``; only what is fsynced survives a power cut."""

    def create(self, path: Path) -> int:
        """Create a file that must not exist, and open it for writing; its descriptor."""

    def write(self, descriptor: int, piece: bytes | memoryview) -> int:
        """Append; how many bytes were taken, which may be fewer."""

    def fsync(self, descriptor: int) -> None:
        """Make what was written durable. After a failure, never again on the same file: it may report success then."""

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name, in place of what has that name."""

    def sync_folder(self, folder: Path) -> None:
        """Make the names in a folder durable."""

    def unlink(self, path: Path) -> None:
        """Remove a name."""

    def make_folder(self, folder: Path) -> None:
        """Create one folder, for its owner only."""

    def remove_tree(self, folder: Path) -> None:
        """Remove a folder and all that is in it."""

    def names(self, folder: Path) -> list[str]:
        """What is in a folder."""

    def is_folder(self, path: Path) -> bool:
        """Whether there is a folder of that name."""

    def exists(self, path: Path) -> bool:
        """Whether there is anything of that name."""

    def size(self, path: Path) -> int:
        """The bytes of a file."""

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """That part of a file; shorter only at its end."""

    def free_bytes(self, folder: Path) -> int:
        """What is free for this process on the disk of a folder."""

    def boot(self) -> bytes:
        """Names the current life of the machine: while it is the same, nothing that was written is lost. Empty: unknown."""


class RealFileSystem:
    """That of the operating system."""

    def create(self, path: Path) -> int:
        """See ``FileSystem``."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)

    def write(self, descriptor: int, piece: bytes | memoryview) -> int:
        """See ``FileSystem``."""
        return os.write(descriptor, piece)

    def fsync(self, descriptor: int) -> None:
        """See ``FileSystem``."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """See ``FileSystem``."""
        os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """See ``FileSystem``."""
        source.replace(target)

    def sync_folder(self, folder: Path) -> None:
        """See ``FileSystem``."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def unlink(self, path: Path) -> None:
        """See ``FileSystem``."""
        path.unlink()

    def make_folder(self, folder: Path) -> None:
        """See ``FileSystem``."""
        folder.mkdir(mode=DIRECTORY_MODE)

    def remove_tree(self, folder: Path) -> None:
        """See ``FileSystem``."""
        shutil.rmtree(folder)

    def names(self, folder: Path) -> list[str]:
        """See ``FileSystem``."""
        return [entry.name for entry in folder.iterdir()]

    def is_folder(self, path: Path) -> bool:
        """See ``FileSystem``."""
        return path.is_dir()

    def exists(self, path: Path) -> bool:
        """See ``FileSystem``."""
        return path.exists()

    def size(self, path: Path) -> int:
        """See ``FileSystem``."""
        return path.stat().st_size

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """See ``FileSystem``. Opens the file each time: a redo chain may be long, and descriptors held for all of it would need a limit."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Not all that is asked for: Python makes room for it, however short the file is.
            length = min(length, max(0, os.fstat(descriptor).st_size - offset))
            data = os.pread(descriptor, length, offset)
            while len(data) < length:
                more = os.pread(descriptor, length - len(data), offset + len(data))
                if not more:
                    break
                data += more
            return data
        finally:
            os.close(descriptor)

    def free_bytes(self, folder: Path) -> int:
        """See ``FileSystem``."""
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize

    def boot(self) -> bytes:
        """See ``FileSystem``."""
        with suppress(OSError):
            return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
        return b""


REAL_FILES: Final[FileSystem] = RealFileSystem()
