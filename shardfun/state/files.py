"""Durable files: written whole or not at all, and checked when they are read.

Everything that must survive a power cut goes through here, so that the order of steps stands in one place: temporary file,
fsync, rename, fsync of the directory. Knows nothing of what the files hold.

After a failed fsync the kernel may drop the dirty pages and report success the next time. So a file whose fsync failed is
removed and never fsynced again; the caller gets a ``StorageError`` and writes a new file, or gives up.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from shardfun.errors import CorruptionError, StorageError
from shardfun.failpoints import FilePoints, reached
from shardfun.state.filesystem import REAL_FILES, FileSystem

DIGEST_BYTES = 16
CHECKED_BYTES_MAX = 64 << 20
TEMPORARY_SUFFIX = ".tmp"

_HEAD = struct.Struct(">8sHQ")  # magic, format version, length of the content

_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EIO: "the disk reports an input/output error: check it before going on",
    errno.EROFS: "the file system is read-only: check the disk, it may have failed",
    errno.EFBIG: "the file would pass the allowed file size: raise the limit (ulimit -f)",
    errno.EMFILE: "too many open files: raise the limit (ulimit -n)",
    errno.EACCES: "check owner and mode of the file and its folder",
    errno.EPERM: "check owner and mode of the file and its folder",
}

Write = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class FileForm:
    """One kind of small checked file.

    Args:
        magic: eight bytes that open the file.
        version: of the content.
        what: its name in messages, such as ``"manifest"``.
        points: failpoints, if its steps are worth some.
    """

    magic: bytes
    version: int
    what: str
    points: FilePoints | None = None


def storage_error(doing: str, path: Path, error: OSError) -> StorageError:
    """The ``StorageError`` for an ``OSError``; ``doing`` as in ``"write"``. The errno is kept."""
    reason = _ADVICE.get(error.errno or 0, "")
    return StorageError(
        f"{path}: cannot {doing}: {error.strerror or error}" + (f"; {reason}" if reason else ""), errno=error.errno
    )


def digest_of(*pieces: bytes) -> bytes:
    """BLAKE2b of 16 bytes: fast, in the standard library, and hashes outside the GIL."""
    hasher = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for piece in pieces:
        hasher.update(piece)
    return hasher.digest()


# ---- writing -------------------------------------------------------------------------------------------------------------
@contextmanager
def durable_file(path: Path, points: FilePoints | None = None, disk: FileSystem = REAL_FILES) -> Iterator[Write]:
    """Write ``path`` piece by piece; it appears, durably, when the block ends, and not at all if the block raises.

    Raises:
        StorageError: nothing is left at ``path``, except if the last step (fsync of the folder) failed: then the file may be
            there, and may be gone after a power cut.
    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    with _mapped("write", path):
        # A left-over temporary file may be one whose fsync failed: a new inode, never the old one again.
        with suppress(FileNotFoundError):
            disk.unlink(temporary)
        descriptor = disk.create(temporary)
        try:
            try:
                yield lambda piece: _write_all(disk, descriptor, piece)
                if points is not None:
                    reached(points.written)
                disk.fsync(descriptor)
            finally:
                disk.close(descriptor)
            if points is not None:
                reached(points.synced)
            disk.rename(temporary, path)
        except BaseException:
            with suppress(OSError):
                disk.unlink(temporary)
            raise
        if points is not None:
            reached(points.renamed)
        disk.sync_folder(path.parent)
        if points is not None:
            reached(points.durable)


def _write_all(disk: FileSystem, descriptor: int, piece: bytes) -> None:
    done = disk.write(descriptor, piece)
    while done < len(piece):
        done += disk.write(descriptor, memoryview(piece)[done:])


def sync_directory(folder: Path, disk: FileSystem = REAL_FILES) -> None:
    """Make names in ``folder`` durable.

    Raises:
        StorageError: the disk refused.
    """
    with _mapped("fsync", folder):
        disk.sync_folder(folder)


def make_directory(folder: Path, disk: FileSystem = REAL_FILES) -> None:
    """Create ``folder`` and its missing parents durably, mode 0700; no error if it exists.

    One that exists may have been made by a process that died before its name was durable. (Its parent was not: that one's name is
    durable before anything is made in it.)

    Raises:
        StorageError: it cannot be created, or is not a folder.
    """
    with _mapped("create folder", folder):
        if disk.is_folder(folder):
            with suppress(PermissionError):  # of a parent that this process has no say in
                disk.sync_folder(folder.parent)
            return
        make_directory(folder.parent, disk)
        with suppress(FileExistsError):
            disk.make_folder(folder)
        disk.sync_folder(folder.parent)
        if not disk.is_folder(folder):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


def free_bytes(folder: Path, disk: FileSystem = REAL_FILES) -> int:
    """The disk space that is free for this process.

    Raises:
        StorageError: the disk refused.
    """
    with _mapped("ask for free space", folder):
        return disk.free_bytes(folder)


def file_bytes(path: Path, disk: FileSystem = REAL_FILES) -> int:
    """The size of a file.

    Raises:
        StorageError: it is missing, or the disk refused.
    """
    with _mapped("read", path):
        return disk.size(path)


def remove_file(path: Path, disk: FileSystem = REAL_FILES) -> None:
    """Remove a file; no error if there is none. Not durable: after a power cut it may be back.

    Raises:
        StorageError: it cannot be removed.
    """
    with _mapped("remove", path), suppress(FileNotFoundError):
        disk.unlink(path)


def remove_temporaries(folder: Path, disk: FileSystem = REAL_FILES) -> None:
    """Remove what writers that died left in ``folder``.

    Raises:
        StorageError: it cannot be read or written.
    """
    with _mapped("clean", folder):
        leftovers = [folder / name for name in disk.names(folder) if name.endswith(TEMPORARY_SUFFIX)]
    for leftover in leftovers:
        remove_file(leftover, disk)


# ---- small checked files -------------------------------------------------------------------------------------------------
def write_checked(path: Path, form: FileForm, content: bytes, disk: FileSystem = REAL_FILES) -> None:
    """Write ``content`` durably between magic, version, length and a digest over all of it.

    Raises:
        StorageError: as ``durable_file``.
    """
    head = _HEAD.pack(form.magic, form.version, len(content))
    with durable_file(path, form.points, disk) as write:
        write(head + content + digest_of(head, content))


def read_checked(path: Path, form: FileForm, disk: FileSystem = REAL_FILES) -> bytes | None:
    """The content of a file written by ``write_checked``; ``None`` if there is no such file.

    Raises:
        CorruptionError: the file is damaged, or not of this form.
        StorageError: it cannot be read.
    """
    with _mapped("read", path):
        try:
            raw = disk.read(path, 0, CHECKED_BYTES_MAX + 1)
        except FileNotFoundError:
            return None
    return unwrap(path, form, raw)


def unwrap(path: Path, form: FileForm, raw: bytes) -> bytes:
    """Check the bytes of a whole file and return its content.

    Raises:
        CorruptionError: as ``read_checked``.
    """
    if not _HEAD.size + DIGEST_BYTES <= len(raw) <= CHECKED_BYTES_MAX:
        raise CorruptionError(f"{path}: the {form.what} is damaged: its size of {len(raw)} bytes cannot be right")
    magic, version, length = _HEAD.unpack_from(raw)
    if magic != form.magic:
        raise CorruptionError(f"{path}: expected a {form.what} (magic {form.magic!r}), got magic {magic!r}")
    if length != len(raw) - _HEAD.size - DIGEST_BYTES or digest_of(raw[:-DIGEST_BYTES]) != raw[-DIGEST_BYTES:]:
        raise CorruptionError(f"{path}: the {form.what} is damaged: its checksum does not fit")
    if version != form.version:
        raise CorruptionError(
            f"{path}: expected a {form.what} of version {form.version}, got {version}: use that release of shardfun"
        )
    return raw[_HEAD.size : -DIGEST_BYTES]


@contextmanager
def _mapped(doing: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage_error(doing, path, error) from error
