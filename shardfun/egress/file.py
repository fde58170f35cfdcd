"""Egress kind ``file``: published records appended to one file per partition, exactly once.

What makes it exact: the checkpoint knows the length of all records published so far, and holds the records that follow. So after
a crash the file is that length plus a part of those records, and the rest is appended. Bytes are compared, never trusted; a file
that holds anything else is refused and left as it is. One process writes a file at a time: the supervisor reaps a dead shard
before its replacement opens the file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import msgspec

from shardfun.egress.jsonlines import encode_line
from shardfun.errors import EgressError
from shardfun.ports import Partition, PublishedPosition

PARTITION_MARK: Final = "{partition}"

FILE_MODE: Final = 0o600
"""Results may be private; who is to read them is the operator's decision."""


class FileEgressOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of a file egress.

    Args:
        path: the file; ``{partition}`` stands for the number of the shard, and is needed with more than one.
        fsync: whether records are on the disk before they count as published. Without it they survive the death of every
            process, but not the loss of power.
    """

    path: Path
    fsync: bool = True


class FileEgress:
    """The file of one partition."""

    options: ClassVar[type[FileEgressOptions]] = FileEgressOptions

    def __init__(self, name: str, options: FileEgressOptions, partition: Partition) -> None:
        self._label = f"egress {name!r}"
        self._path = output_path(options, partition.index)
        self._fsync = options.fsync
        self._descriptor: int | None = None
        self._length = 0
        self._torn = False

    @classmethod
    def check(cls, options: FileEgressOptions, partitions: int) -> str | None:
        """What is wrong with the options for that many partitions, as one sentence; ``None``: nothing."""
        if partitions > 1 and PARTITION_MARK not in str(options.path):
            return f"path: expected {PARTITION_MARK} in it, since each of the {partitions} shards writes its own; got {options.path}"
        return None

    @classmethod
    def remove_outputs(cls, options: FileEgressOptions, partitions: int) -> None:
        """Delete the files of all partitions, for a start from nothing.

        Raises:
            EgressError: one of them cannot be deleted.
        """
        for index in range(partitions):
            path = output_path(options, index)
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                msg = f"cannot delete {path}: {error.strerror or error}; delete it, or choose another path"
                raise EgressError(msg) from error

    def encode(self, value: Any) -> bytes:
        """The value as a line of JSON.

        Raises:
            TypeError: something in the value has no form in JSON.
        """
        return encode_line(value)

    def open(self, published: PublishedPosition, pending: Sequence[bytes]) -> int:
        """Find how many of the ``pending`` records are in the file behind what was ``published``; cut off a torn one.

        Raises:
            EgressError: the file holds less than was published, or something this data directory did not write.
        """
        self.close()
        try:
            descriptor = self._open_file()
            size = os.fstat(descriptor).st_size
            self._check_size(published, size)
            tail = self._read_tail(descriptor, published.bytes, pending)
            found, length = _match(tail, pending)
            if not published.records:
                self._check_own(size, tail[length:], pending[found:])
            self._length = published.bytes + length
            if size > self._length:
                os.ftruncate(descriptor, self._length)
            # Found records were written, but perhaps not synced, before the crash: they count as published from now on.
            if size > published.bytes:
                self._sync(descriptor)
        except OSError as error:
            self.close()
            msg = f"{self._label}: cannot open {self._path}: {error.strerror or error}; make it writable, or correct 'path'"
            raise EgressError(msg, errno=error.errno) from error
        except EgressError:
            self.close()
            raise
        return found

    def publish(self, records: Sequence[bytes]) -> None:
        """Append records, and make them durable. After an error the file is as before, and the same records may be tried again.

        Raises:
            EgressError: the disk is full or failed.
        """
        descriptor = self._descriptor
        assert descriptor is not None, "open() comes first"
        data = b"".join(records)
        try:
            if self._torn:
                os.ftruncate(descriptor, self._length)
                self._torn = False
            _write_at(descriptor, data, self._length)
            self._sync(descriptor)
        except OSError as error:
            self._cut_back(descriptor)
            msg = f"{self._label}: cannot append {len(data)} bytes to {self._path}: {error.strerror or error}; will be tried again"
            raise EgressError(msg) from error
        self._length += len(data)

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open_file(self) -> int:
        """Open or create the file, and make its name durable, in folders that may be new as well."""
        folder = self._path.parent
        changed = [folder, *(new.parent for new in (folder, *folder.parents) if not new.exists())]
        folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK  # not to wait for ever for the reader of a named pipe
        self._descriptor = os.open(self._path, flags, FILE_MODE)
        if self._fsync:
            for path in changed:
                _sync_directory(path)
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            msg = f"{self._label}: {self._path} is not a regular file, so nothing could be found again after a crash"
            raise EgressError(msg)
        return self._descriptor

    def _check_size(self, published: PublishedPosition, size: int) -> None:
        if size < published.bytes:
            msg = (
                f"{self._label}: {self._path} has {size} bytes, but {published.bytes} bytes ({published.records} records) were "
                f"published to it; put the whole file back, or start afresh with --fresh"
            )
            raise EgressError(msg)

    def _check_own(self, size: int, rest: bytes, pending: Sequence[bytes]) -> None:
        """Nothing was published yet, so whatever is behind the records found can only be the beginning of the next one."""
        if rest and not (pending and pending[0].startswith(rest)):
            msg = (
                f"{self._label}: {self._path} already has {size} bytes, which this data directory did not write; "
                f"move it away, or use --fresh to delete it"
            )
            raise EgressError(msg)

    def _read_tail(self, descriptor: int, start: int, pending: Sequence[bytes]) -> bytes:
        """What is behind the published part, as far as it can be of interest: one byte more than all pending records."""
        wanted = sum(map(len, pending)) + 1
        parts: list[bytes] = []
        while wanted and (part := os.pread(descriptor, wanted, start)):
            parts.append(part)
            start += len(part)
            wanted -= len(part)
        return b"".join(parts)

    def _cut_back(self, descriptor: int) -> None:
        """After a failed write, or a failed sync (pages written again are dirty again, so the next sync is a true one)."""
        try:
            os.ftruncate(descriptor, self._length)
        except OSError:
            self._torn = True

    def _sync(self, descriptor: int) -> None:
        if self._fsync:
            os.fsync(descriptor)


def output_path(options: FileEgressOptions, partition: int) -> Path:
    """The file of one partition."""
    return Path(str(options.path).replace(PARTITION_MARK, str(partition))).absolute()


def _match(tail: bytes, pending: Sequence[bytes]) -> tuple[int, int]:
    """How many whole pending records ``tail`` begins with, and their length in bytes."""
    length = 0
    for found, record in enumerate(pending):
        if not tail.startswith(record, length):
            return found, length
        length += len(record)
    return len(pending), length


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest = rest[written:]
        offset += written


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
