"""A disk in memory, as mean as a disk may be: the simulator's ``FileSystem``.

One ``SimulatedDisk`` is the machine's; each process works on it through ``ProcessFiles``, which count the steps, fail at one of them or
die before it. What was written and not fsynced is lost by a power cut, in part or as a whole; so is each change of a folder.
Deterministic: randomness is handed in.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from shardfun.simulation.inodes import Change, Folder, Inode

FREE_BYTES = 1 << 40
FLIP_WEIGHTS = {".ldb": 4, "delta": 4, "manif": 3, ".log": 2}
"""By the end or the beginning of a name: kinds of files in which more bits flip. The others stop a node at once."""

SHORT_WRITE_EVERY = 7  # each so manieth step that writes takes only a part
PART_OF_DISK_CALLS = frozenset({"create", "write", "fsync", "rename", "make_folder"})
"""Steps that a full disk refuses."""


class ProcessDeath(BaseException):
    """The process that did this step is dead. No handler of the code under test may go on."""


class RefusedStepError(OSError):
    """A step that was made to fail."""


class Trouble(NamedTuple):
    """A step that fails.

    Args:
        at: which step of the job, counted from 1.
        code: ``ENOSPC``: from that step on, all that need room; else that step alone.
    """

    at: int
    code: int


class SimulatedDisk:
    """See the module. There is one folder at first: the root."""

    def __init__(self) -> None:
        self.root = Folder()
        self.boots = 1
        self.damages = 0
        """Bits that have flipped so far: who keeps what was read looks again when it changes."""
        self.told_full = False
        """Somebody who asked was told that there is no room."""

    def process(self) -> ProcessFiles:
        """The files as a new process sees them."""
        return ProcessFiles(self)

    def find(self, path: Path) -> Inode | Folder | None:
        """What has that name."""
        node: Inode | Folder | None = self.root
        for part in path.parts[1:]:
            if not isinstance(node, Folder):
                return None
            node = node.names.get(part)
        return node

    def is_durable(self, path: Path) -> bool:
        """Whether a file is there after any power cut, with all its bytes."""
        folder: Inode | Folder | None = self.root
        for part in path.parts[1:]:
            if not isinstance(folder, Folder) or folder.durable.get(part) is not folder.names.get(part):
                return False
            if any(part in (change.name, change.old) for change in folder.pending):
                return False
            folder = folder.names.get(part)
        return isinstance(folder, Inode) and folder.durable

    def original(self, path: Path) -> bytes:
        """A file as it was written, for those who check.

        Raises:
            FileNotFoundError: it is not there.
        """
        node = self.find(path)
        if not isinstance(node, Inode):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return bytes(node.data) if node.whole is None else node.whole

    def power_loss(self, chance: random.Random) -> None:
        """The machine loses power, and starts again."""
        self.boots += 1
        self.root.lose_power(chance)

    def flip(self, chance: random.Random) -> Path | None:
        """Flip a bit of a stored file; which one it was."""
        kinds: dict[tuple[str, str], list[tuple[Path, Inode]]] = {}
        for path, node in _files(Path("/"), self.root):
            if node.data:
                kinds.setdefault((path.parent.name, path.suffix or path.name[:5]), []).append((path, node))
        if not kinds:
            return None
        weighted = [kind for kind in sorted(kinds) for _ in range(FLIP_WEIGHTS.get(kind[1], 1))]
        files = kinds[chance.choice(weighted)]
        path, node = chance.choice((files[-1], chance.choice(files)))  # the newest matters most
        if node.whole is None:
            node.whole = bytes(node.data)
        place, bit = chance.randrange(len(node.data)), 1 << chance.randrange(8)
        for content in (node.data, node.stored):
            if place < len(content):
                content[place] ^= bit
        self.damages += 1
        return path

    def damaged(self) -> list[Path]:
        """The files that hold a flipped bit now; and what LevelDB does not open any more when a power cut has torn it."""
        files = _files(Path("/"), self.root)
        return [path for path, node in files if node.whole is not None or (node.torn and path.name.startswith("MANIFEST-"))]


def _files(path: Path, folder: Folder) -> Iterator[tuple[Path, Inode]]:
    for name in sorted(folder.names):
        node = folder.names[name]
        if isinstance(node, Folder):
            yield from _files(path / name, node)
        else:
            yield path / name, node


class ProcessFiles:
    """Implements ``FileSystem`` and ``LogDisk`` for one process."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self.disk = disk
        self._open: dict[int, Inode] = {}
        self._next = 3
        self._steps = 0
        self._trouble: Trouble | None = None
        self._dies_at: int | None = None
        self._dead = False

    # ---- what happens to the process ------------------------------------------------------------------------------------
    def begin_job(self, trouble: Trouble | None = None, dies_at: int | None = None) -> None:
        """Count the steps from 1 on; what goes wrong with one of them."""
        self._steps = 0
        self._trouble = trouble
        self._dies_at = dies_at

    def kill(self) -> None:
        """The process is dead: it cannot do a step any more."""
        self._dead = True
        for node in self._open.values():
            if node.owner is self:
                node.owner = None
        self._open.clear()

    def _step(self, call: str, path: Path | None = None) -> None:
        if self._dead:
            raise ProcessDeath
        self._steps += 1
        if self._steps == self._dies_at:
            self.kill()
            raise ProcessDeath
        if self._fails(call):
            assert self._trouble is not None
            raise RefusedStepError(self._trouble.code, *_words(self._trouble.code, path))

    def _fails(self, call: str) -> bool:
        trouble = self._trouble
        if trouble is None or self._steps < trouble.at:
            return False
        return call in PART_OF_DISK_CALLS if trouble.code == errno.ENOSPC else self._steps == trouble.at

    # ---- files ----------------------------------------------------------------------------------------------------------
    def create(self, path: Path) -> int:
        """See ``FileSystem``."""
        self._step("create", path)
        folder = self._folder(path.parent)
        if path.name in folder.names:
            raise _error(errno.EEXIST, path)
        node = Inode()
        folder.change(Change(path.name, node))
        return self._descriptor(node)

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> int:  # noqa: ARG002 - nothing is forbidden here
        """See ``LogDisk``."""
        if create and self.disk.find(path) is None:
            return self.create(path)
        self._step("open", path)
        return self._descriptor(self._file(path))

    def _descriptor(self, node: Inode) -> int:
        descriptor, self._next = self._next, self._next + 1
        self._open[descriptor] = node
        return descriptor

    def write(self, descriptor: int, piece: bytes | memoryview) -> int:
        """See ``FileSystem``: at the end. What fails may have written a part."""
        return self._write(descriptor, piece, None)

    def write_at(self, descriptor: int, piece: bytes | memoryview, position: int) -> int:
        """See ``LogDisk``. What fails may have written a part."""
        return self._write(descriptor, piece, position)

    def _write(self, descriptor: int, piece: bytes | memoryview, position: int | None) -> int:
        node = self._open.get(descriptor)
        try:
            self._step("write")
        except (OSError, ProcessDeath):
            if node is not None:
                node.write(piece[: len(piece) // 2], position)
            raise
        if self._steps % SHORT_WRITE_EVERY == 0 and len(piece) > 1:
            piece = piece[: len(piece) // 2]
        self._opened(descriptor).write(piece, position)
        return len(piece)

    def read_at(self, descriptor: int, length: int, position: int) -> bytes:
        """See ``LogDisk``."""
        self._step("read")
        return bytes(self._opened(descriptor).data[position : position + length])

    def truncate(self, descriptor: int, length: int) -> None:
        """See ``LogDisk``."""
        self._step("truncate")
        self._opened(descriptor).truncate(length)

    def fsync(self, descriptor: int) -> None:
        """See ``FileSystem``. The pages of an fsync that fails count as written afterwards, and are not."""
        try:
            self._step("fsync")
        except OSError:
            self._opened(descriptor).fsync(fails=True)
            raise
        self._opened(descriptor).fsync(fails=False)

    def sync_data(self, descriptor: int) -> None:
        """See ``LogDisk``."""
        self.fsync(descriptor)

    def lock(self, descriptor: int) -> None:
        """See ``LogDisk``."""
        self._step("lock")
        node = self._opened(descriptor)
        if node.owner is not None:
            raise _error(errno.EAGAIN, None)
        node.owner = self

    def unlock(self, descriptor: int) -> None:
        """See ``LogDisk``."""
        if not self._dead:
            self._opened(descriptor).owner = None

    def close(self, descriptor: int) -> None:
        """See ``FileSystem``."""
        if not self._dead:
            self._opened(descriptor)
            del self._open[descriptor]

    def rename(self, source: Path, target: Path) -> None:
        """See ``FileSystem``."""
        self._step("rename", source)
        folder = self._folder(source.parent)
        assert source.parent == target.parent, "storage renames within a folder only"
        node = folder.names.get(source.name)
        if node is None:
            raise _error(errno.ENOENT, source)
        folder.change(Change(target.name, node, source.name))

    def sync_folder(self, folder: Path) -> None:
        """See ``FileSystem``."""
        self._step("sync_folder", folder)
        self._folder(folder).sync()

    def unlink(self, path: Path) -> None:
        """See ``FileSystem``."""
        self._step("unlink", path)
        folder = self._folder(path.parent)
        node = folder.names.get(path.name)
        if node is None:
            raise _error(errno.ENOENT, path)
        if isinstance(node, Folder):
            raise _error(errno.EISDIR, path)
        folder.change(Change(path.name, None))

    def make_folder(self, folder: Path) -> None:
        """See ``FileSystem``."""
        self._step("make_folder", folder)
        parent = self._folder(folder.parent)
        if folder.name in parent.names:
            raise _error(errno.EEXIST, folder)
        parent.change(Change(folder.name, Folder()))

    def remove_tree(self, folder: Path) -> None:
        """See ``FileSystem``."""
        for name in self.names(folder):
            path = folder / name
            if isinstance(self._folder(folder).names[name], Folder):
                self.remove_tree(path)
            else:
                self.unlink(path)
        self._step("remove_folder", folder)
        self._folder(folder.parent).change(Change(folder.name, None))

    # ---- looking --------------------------------------------------------------------------------------------------------
    def names(self, folder: Path) -> list[str]:
        """See ``FileSystem``."""
        self._step("names", folder)
        return sorted(self._folder(folder).names)

    def is_folder(self, path: Path) -> bool:
        """See ``FileSystem``."""
        self._step("is_folder", path)
        return isinstance(self.disk.find(path), Folder)

    def exists(self, path: Path) -> bool:
        """See ``FileSystem``."""
        self._step("exists", path)
        return self.disk.find(path) is not None

    def size(self, path: Path) -> int:
        """See ``FileSystem``."""
        self._step("size", path)
        return len(self._file(path).data)

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """See ``FileSystem``."""
        self._step("read", path)
        return bytes(self._file(path).data[offset : offset + length])

    def look_again(self, path: Path) -> None:
        """Read what was read before: the system may have to fetch it from the disk again."""
        self._step("read", path)

    def free_bytes(self, folder: Path) -> int:
        """See ``FileSystem``."""
        self._step("free_bytes", folder)
        self._folder(folder)
        full = self._fails("write")
        self.disk.told_full |= full
        return 0 if full else FREE_BYTES

    def boot(self) -> bytes:
        """See ``FileSystem``."""
        return b"boot %d" % self.disk.boots

    # ---- names ----------------------------------------------------------------------------------------------------------
    def _folder(self, path: Path) -> Folder:
        node = self.disk.find(path)
        if node is None:
            raise _error(errno.ENOENT, path)
        if not isinstance(node, Folder):
            raise _error(errno.ENOTDIR, path)
        return node

    def _file(self, path: Path) -> Inode:
        node = self.disk.find(path)
        if node is None:
            raise _error(errno.ENOENT, path)
        if not isinstance(node, Inode):
            raise _error(errno.EISDIR, path)
        return node

    def _opened(self, descriptor: int) -> Inode:
        node = self._open.get(descriptor)
        if node is None:
            raise _error(errno.EBADF, None)
        return node


def _error(code: int, path: Path | None) -> OSError:
    return OSError(code, *_words(code, path))


def _words(code: int, path: Path | None) -> list[str]:
    return [os.strerror(code), *([] if path is None else [str(path)])]
