"""Marks of checkpoints as bytes, and the small files of a store that hold one."""

from __future__ import annotations

import struct
from pathlib import Path

from shardfun.errors import CorruptionError
from shardfun.state.chain import Mark
from shardfun.state.files import DIGEST_BYTES, FileForm, read_checked, remove_file, sync_directory, write_checked
from shardfun.state.filesystem import FileSystem

FLUSHED_FORM = FileForm(b"sfflush\n", 1, "flushed mark")
REPAIR_FORM = FileForm(b"sfrepair", 1, "repair mark")

_CHECKPOINT = struct.Struct(">Q")


class MarkFile:
    """A file with a mark in it."""

    def __init__(self, path: Path, form: FileForm, disk: FileSystem) -> None:
        self._path = path
        self._form = form
        self._disk = disk

    def read(self) -> Mark | None:
        """The mark; ``None`` if there is no file.

        Raises:
            CorruptionError: the file is damaged.
            StorageError: it cannot be read.
        """
        content = read_checked(self._path, self._form, self._disk)
        return None if content is None else decode_mark(content)

    def write(self, mark: Mark) -> None:
        """Write the file, durably.

        Raises:
            StorageError: the disk refused.
        """
        write_checked(self._path, self._form, encode_mark(mark), self._disk)

    def remove(self) -> None:
        """Remove the file, durably.

        Raises:
            StorageError: the disk refused.
        """
        remove_file(self._path, self._disk)
        sync_directory(self._path.parent, self._disk)


def encode_mark(mark: Mark) -> bytes:
    """A mark as bytes."""
    return _CHECKPOINT.pack(mark.checkpoint) + mark.digest


def decode_mark(raw: bytes) -> Mark:
    """The mark back.

    Raises:
        CorruptionError: it is none.
    """
    if len(raw) not in {_CHECKPOINT.size, _CHECKPOINT.size + DIGEST_BYTES}:  # that of the beginning has no digest
        raise CorruptionError(f"the mark of a checkpoint is damaged: it has {len(raw)} bytes")
    return Mark(_CHECKPOINT.unpack_from(raw)[0], raw[_CHECKPOINT.size :])
