"""The incarnation file: how often the world was started. No number is ever used twice, whatever happens to the machine."""

from __future__ import annotations

from pathlib import Path

import cbor2

from shardfun.errors import CorruptionError
from shardfun.model.delta import CHECKPOINT_SEQUENCE_BITS
from shardfun.state.files import FileForm, read_checked, write_checked
from shardfun.state.filesystem import REAL_FILES, FileSystem
from shardfun.state.plain import UndecodableError, load_typed

INCARNATION_MAX = (1 << 31) - 1

_FORM = FileForm(b"sfincar\n", 1, "incarnation file")


class IncarnationFile:
    """See the module."""

    def __init__(self, path: Path, disk: FileSystem = REAL_FILES) -> None:
        self.path = path
        self._disk = disk

    def create(self) -> None:
        """Begin to count.

        Raises:
            StorageError: it cannot be written.
        """
        self._write(0)

    def read(self) -> int | None:
        """The number of the last start; ``None`` if there is no file.

        Raises:
            CorruptionError: the file is damaged.
            StorageError: it cannot be read.
        """
        content = read_checked(self.path, _FORM, self._disk)
        try:
            return None if content is None else load_typed(content, int)
        except UndecodableError as error:
            raise CorruptionError(f"{self.path}: the incarnation file is damaged; restore it from a backup") from error

    def raise_beyond(self, newest_checkpoint: int) -> int:
        """Raise the number durably and return it.

        Args:
            newest_checkpoint: of the manifests; 0 if there are none.

        Raises:
            CorruptionError: the file is missing, damaged, or older than that manifest (restored from an old backup).
            StorageError: it cannot be read or written.
        """
        last = self.read()
        if last is None:
            raise CorruptionError(f"{self.path}: the incarnation file is missing; restore it from a backup")
        newest = newest_checkpoint >> CHECKPOINT_SEQUENCE_BITS
        if not newest <= last < INCARNATION_MAX:
            raise CorruptionError(
                f"{self.path}: expected an incarnation of at least {newest} (the newest manifest's) and below {INCARNATION_MAX}, got {last}; "
                "restore the whole data directory from one backup"
            )
        self._write(last + 1)
        return last + 1

    def _write(self, number: int) -> None:
        write_checked(self.path, _FORM, cbor2.dumps(number), self._disk)
