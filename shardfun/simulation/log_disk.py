"""The disk of a simulated intake log: a ``LogDisk`` in memory that loses what was not fsynced.

The ``LogMachine`` outlives processes; each works on it through ``LogHands``, which may fail at one of the next steps, or die before it.
"""

from __future__ import annotations

import errno
import os
import random
from dataclasses import dataclass, field
from pathlib import Path

from shardfun.simulation.files import ProcessDeath

FREE_BYTES = 1 << 40


@dataclass(slots=True, eq=False)
class LogFile:
    """A file. ``durable``: what it held at its last fsync. ``owner``: who has locked it."""

    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    owner: object = None


class LogMachine:
    """See the module."""

    def __init__(self) -> None:
        self.files: dict[Path, LogFile] = {}
        self.folders: dict[Path, None] = {}
        self._durable: dict[Path, LogFile] = {}

    def sync_folder(self, folder: Path) -> None:
        """The names in a folder survive."""
        kept = {path: file for path, file in self._durable.items() if path.parent != folder}
        self._durable = kept | {path: file for path, file in self.files.items() if path.parent == folder}

    def power_loss(self, chance: random.Random) -> None:
        """Each name and each byte that is not durable is kept or lost."""
        for path in sorted(self.files.keys() | self._durable.keys()):
            now, before = self.files.get(path), self._durable.get(path)
            kept = now if now is before or chance.random() < 0.5 else before
            if kept is None:
                self.files.pop(path, None)
            else:
                self.files[path] = kept
        for _, file in sorted(self.files.items()):
            if file.durable != file.data:
                until = chance.choice((0, len(file.data), chance.randint(0, len(file.data))))
                file.data = bytearray(bytes(file.data[:until]) + file.durable[until:])
            file.durable = bytes(file.data)
            file.owner = None
        self._durable = dict(self.files)


class LogHands:
    """What one process does with the disk."""

    def __init__(self, machine: LogMachine) -> None:
        self.dies_in: int | None = None
        """Before so manieth step from now on."""
        self.fails: tuple[int, int] | None = None
        """The so manieth step from now on fails, with this errno."""
        self._machine = machine
        self._dead = False
        self._open: dict[int, LogFile] = {}
        self._places: dict[int, int] = {}
        self._next = 3

    def kill(self) -> None:
        """The process is dead: its descriptors are closed, its locks are free."""
        self._dead = True
        for file in self._machine.files.values():
            if file.owner is self:
                file.owner = None
        self._open.clear()

    def _step(self) -> None:
        """A step that changes something."""
        if self.dies_in is not None:
            self.dies_in -= 1
            self._dead = self._dead or self.dies_in < 0
        if self._dead:
            raise ProcessDeath
        if self.fails is not None:
            left, code = self.fails
            self.fails = (left - 1, code) if left else None
            if not left:
                raise OSError(code, os.strerror(code))

    def _file(self, path: Path) -> LogFile:
        found = self._machine.files.get(path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return found

    def _descriptor(self, file: LogFile) -> int:
        self._next += 1
        self._open[self._next] = file
        self._places[self._next] = 0
        return self._next

    # ---- descriptors ----------------------------------------------------------------------------------------------------
    def create(self, path: Path) -> int:
        """See ``FileSystem``."""
        self._step()
        if path in self._machine.files:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        self._machine.files[path] = LogFile()
        return self._descriptor(self._machine.files[path])

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> int:  # noqa: ARG002 - nothing is forbidden here
        """See ``LogDisk``."""
        if create and path not in self._machine.files:
            return self.create(path)
        return self._descriptor(self._file(path))

    def write(self, descriptor: int, piece: bytes | memoryview) -> int:
        """See ``FileSystem``."""
        place = self._places[descriptor]
        self._places[descriptor] = place + self.write_at(descriptor, piece, place)
        return len(piece)

    def write_at(self, descriptor: int, piece: bytes | memoryview, position: int) -> int:
        """See ``LogDisk``."""
        self._step()
        data = self._open[descriptor].data
        if len(data) < position:
            data += bytes(position - len(data))
        data[position : position + len(piece)] = piece
        return len(piece)

    def read_at(self, descriptor: int, length: int, position: int) -> bytes:
        """See ``LogDisk``."""
        return bytes(self._open[descriptor].data[position : position + length])

    def truncate(self, descriptor: int, length: int) -> None:
        """See ``LogDisk``."""
        self._step()
        del self._open[descriptor].data[length:]

    def fsync(self, descriptor: int) -> None:
        """See ``FileSystem``."""
        self._step()
        file = self._open[descriptor]
        file.durable = bytes(file.data)

    sync_data = fsync

    def lock(self, descriptor: int) -> None:
        """See ``LogDisk``."""
        file = self._open[descriptor]
        if file.owner is not None:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        file.owner = self

    def unlock(self, descriptor: int) -> None:
        """See ``LogDisk``."""
        self._open[descriptor].owner = None

    def close(self, descriptor: int) -> None:
        """See ``FileSystem``."""
        self._open.pop(descriptor, None)

    # ---- names ----------------------------------------------------------------------------------------------------------
    def rename(self, source: Path, target: Path) -> None:
        """See ``FileSystem``."""
        self._step()
        self._machine.files[target] = self._machine.files.pop(source)

    def unlink(self, path: Path) -> None:
        """See ``FileSystem``."""
        self._file(path)
        self._step()
        del self._machine.files[path]

    def sync_folder(self, folder: Path) -> None:
        """See ``FileSystem``."""
        self._step()
        self._machine.sync_folder(folder)

    def make_folder(self, folder: Path) -> None:
        """See ``FileSystem``: durable at once."""
        self._machine.folders[folder] = None

    def remove_tree(self, folder: Path) -> None:
        """See ``FileSystem``. Nobody does that with a log."""
        raise AssertionError(folder)

    def names(self, folder: Path) -> list[str]:
        """See ``FileSystem``."""
        if not self.is_folder(folder):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
        return [path.name for path in self._machine.files if path.parent == folder]

    def is_folder(self, path: Path) -> bool:
        """See ``FileSystem``."""
        return path in self._machine.folders or path == path.parent

    def exists(self, path: Path) -> bool:
        """See ``FileSystem``."""
        return path in self._machine.files or self.is_folder(path)

    def size(self, path: Path) -> int:
        """See ``FileSystem``."""
        return len(self._file(path).data)

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """See ``FileSystem``."""
        return bytes(self._file(path).data[offset : offset + length])

    def free_bytes(self, folder: Path) -> int:  # noqa: ARG002 - there is always room
        """See ``FileSystem``."""
        return FREE_BYTES

    def boot(self) -> bytes:
        """See ``FileSystem``: unknown."""
        return b""
