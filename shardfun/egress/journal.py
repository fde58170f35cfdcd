"""The last request of a webhook, on the disk before it is sent.

A receiver that was asked twice must be asked the same: it knows a request by its key, and whether it has taken one can only be
asked by sending it again. What goes into a request depends on what was there at that moment, so that is written down. Requests
go out one after the other, so the last one also tells that all before it were taken. Knows nothing of HTTP.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias
from zlib import crc32

import msgspec

RECORD_BYTES: Final = 128
"""Far less than a sector: a power cut leaves the old record or the new one."""

FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700


Form: TypeAlias = Literal["single", "json", "ndjson"]


class Attempt(NamedTuple):
    """A request.

    Args:
        first: the number of its first record in the partition, from 0.
        records: how many it has.
        form: of its body.
    """

    first: int
    records: int
    form: Form


class Journal:
    """The file of one partition.

    Args:
        path: of the file, in a folder that is made if needed.
        job: what an older file is told by.
        fsync: whether a record outlives a power cut.
    """

    def __init__(self, path: Path, job: str, *, fsync: bool) -> None:
        self._path = path
        self._job = job
        self._fsync = fsync
        self._descriptor: int | None = None

    def open(self) -> Attempt | None:
        """The last attempt; ``None`` if there is none that can be used.

        Raises:
            OSError: the file cannot be opened.
        """
        self.close()
        for folder in (self._path.parent.parent, self._path.parent):
            if not folder.exists():
                folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
                self._sync_folder(folder.parent)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        self._sync_folder(self._path.parent)
        text, _, check = os.pread(self._descriptor, RECORD_BYTES, 0).rstrip().rpartition(b" ")
        if check != b"%08x" % crc32(text):
            return None
        try:
            job, first, count, form = msgspec.json.decode(text, type=tuple[str, int, int, Form])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        return Attempt(first, count, form) if job == self._job else None

    def write(self, attempt: Attempt) -> None:
        """Replace the attempt.

        Raises:
            OSError: it cannot be written.
        """
        assert self._descriptor is not None, "open() comes first"
        text = msgspec.json.encode((self._job, *attempt))
        os.pwrite(self._descriptor, b"%s %08x" % (text, crc32(text)) + b" " * (RECORD_BYTES - len(text) - 10) + b"\n", 0)
        if self._fsync:
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _sync_folder(self, folder: Path) -> None:
        if not self._fsync:
            return
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
