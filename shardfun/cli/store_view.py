"""One shard's stored state as of the newest complete checkpoint, read without changing anything.

LevelDB cannot be opened read-only: opening replays its log, writes tables, deletes files. And it holds the last checkpoint that
was *applied*, while the newest complete one may still be a delta file. So the store's own recovery runs, but on a shadow: a
temporary folder with copies of what LevelDB may write and links to the tables and deltas, which it only reads and deletes
(deleting a link leaves the file). What is seen is what a start of the node would see, by the same code.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from shardfun.errors import CorruptionError, StorageError
from shardfun.state.directory import JobIdentity
from shardfun.state.files import TEMPORARY_SUFFIX, storage_error
from shardfun.state.manifest import Manifest
from shardfun.state.store import LevelDBStore

_NUMBERED: Final = re.compile(r"(?:MANIFEST-)?(\d+)(?:\.log)?")
_TABLE: Final = re.compile(r"(\d+)\.(?:ldb|sst)")
_NOT_COPIED: Final = ("LOCK", "LOG", "LOG.old")


@contextmanager
def open_store_view(directory: Path, identity: JobIdentity, shard: int, manifest: Manifest | None) -> Iterator[LevelDBStore]:
    """A shard's store, at the checkpoint of ``manifest``. Nothing else may have the store open meanwhile.

    Args:
        directory: the shard's own folder; need not exist if there is no manifest.
        manifest: the newest one; ``None``: there is no complete checkpoint, and the view is empty.

    Raises:
        CorruptionError: a start of the node would be refused.
        StorageError: something cannot be read, or the temporary folder cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="shardfun-inspect-") as temporary:
        shadow = Path(temporary)
        try:
            if manifest is not None:
                _cast(directory, shadow)
            store = LevelDBStore.open(shadow, job=identity.job, shard=shard, shards=identity.shards)
        except OSError as error:
            raise storage_error("read", directory, error) from error
        except StorageError as error:
            raise _renamed(error, shadow, directory) from error
        try:
            if manifest is not None:
                store.recover(manifest.checkpoint, manifest.digest(shard))
            yield store
        except StorageError as error:
            raise _renamed(error, shadow, directory) from error
        finally:
            store.close()


def is_locked(path: Path, *, by_flock: bool) -> bool:
    """Whether another process holds the lock file ``path``.

    Args:
        by_flock: the data directory's own; LevelDB uses POSIX record locks.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise storage_error("read", path, error) from error
    try:
        lock = fcntl.flock if by_flock else fcntl.lockf
        lock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # POSIX leaves open which of the two
        return True
    except OSError as error:
        raise storage_error("lock", path, error) from error
    finally:
        os.close(descriptor)
    return False


def _cast(directory: Path, shadow: Path) -> None:
    """Make the shadow of a shard's folder."""
    for name in ("leveldb", "deltas"):
        (shadow / name).mkdir()
    for name in ("flushed", "repair"):
        if (directory / name).exists():
            shutil.copyfile(directory / name, shadow / name)
    for delta in _entries(directory / "deltas"):
        if not delta.name.endswith(TEMPORARY_SUFFIX):
            (shadow / "deltas" / delta.name).symlink_to(delta.absolute())
    files = _entries(directory / "leveldb")
    # LevelDB gives new files the numbers after those of its logs and manifest, and a crash may have left a table with such a number
    # that it does not know: it would be written *through* the link. So tables that young are copied; there are few of them.
    safe_below = max((int(found[1]) for file in files if (found := _NUMBERED.fullmatch(file.name))), default=0)
    for file in files:
        table = _TABLE.fullmatch(file.name)
        if table is not None and int(table[1]) < safe_below:
            (shadow / "leveldb" / file.name).symlink_to(file.absolute())
        elif file.name not in _NOT_COPIED:
            shutil.copyfile(file, shadow / "leveldb" / file.name)


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _renamed(error: StorageError, shadow: Path, directory: Path) -> StorageError:
    """The same error with the names of the real files."""
    text = str(error).replace(str(shadow), str(directory))
    return CorruptionError(text) if isinstance(error, CorruptionError) else type(error)(text, errno=error.errno)
