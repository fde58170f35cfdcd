"""The data directory: its lock, whose it is, how often it was started, and what a start has to clean up.

    lock              held (flock) by the one supervisor that may use the directory
    job               format, job id, application, number of shards: written at first use, never changed
    incarnation       raised durably before any start of the world
    manifests/        complete checkpoints (``manifest``)
    shard-<k>/        one shard's store (``store``)
    node.json         not durable: the running node, for ``status`` and for clean-up after a SIGKILL

Knows the layout, and nothing of what stores and manifests hold.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

import cbor2
import msgspec

from shardfun.errors import CorruptionError, DirectoryInUseError, IncompatibleDataError, LocalProtocolError
from shardfun.state.files import (
    TEMPORARY_SUFFIX,
    FileForm,
    make_directory,
    read_checked,
    remove_file,
    storage_error,
    write_checked,
)
from shardfun.state.filesystem import DIRECTORY_MODE, FILE_MODE
from shardfun.state.incarnation import IncarnationFile
from shardfun.state.manifest import Manifests
from shardfun.state.plain import UndecodableError, load_typed

DATA_FORMAT = 1
NODE_BYTES_MAX = 1 << 20
PID_BYTES_MAX = 32

_JOB_FORM = FileForm(b"sfjob--\n", 1, "job file")
_SHARD = re.compile(r"shard-\d{1,6}")
_FILES = ("lock", "job", "incarnation", "node.json")
_FOLDERS = ("intake", "streams", "webhooks")  # of doors, which know what is in them
_IGNORED = ("lost+found",)  # a directory that is a mount point


class JobIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Whose data this is.

    Args:
        format: of the data directory as a whole.
        job: 32 random hex digits, in every delta and manifest.
        app: the application's reference, such as ``"shop.app:app"``.
    """

    format: int
    job: str
    app: str
    shards: int


class _AnyFormat(msgspec.Struct, frozen=True):
    format: int


class ProcessMark(msgspec.Struct, frozen=True):
    """A process that a later start may have to kill: the start time (clock ticks since boot, from ``/proc``) tells it from a
    younger one that got the same pid.
    """

    pid: int
    started: int


class NodeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The running node.

    Args:
        url: of its control door, for the command line.
        runtime_dir: where its sockets are; removed by the next start if the node died.
    """

    pid: int
    url: str
    runtime_dir: str
    processes: list[ProcessMark] = []


class DataDirectory:
    """One data directory. Nothing is touched before ``acquire``, except by ``read_node`` and ``identity``, which only read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifests = Manifests(path / "manifests")
        self._incarnation = IncarnationFile(path / "incarnation")
        self._lock: int | None = None
        self._made_folder = False

    def shard(self, shard: int) -> Path:
        """The folder of one shard's store."""
        return self.path / f"shard-{shard}"

    # ---- lock ------------------------------------------------------------------------------------------------------------
    def acquire(self) -> None:
        """Create the directory if needed, and lock it until ``release`` or the end of this process, however it ends.

        Raises:
            DirectoryInUseError: another supervisor holds it.
            IncompatibleDataError: the folder holds other things and was never a data directory.
            StorageError: it cannot be created or written.
        """
        assert self._lock is None, "the data directory is locked already"
        self._refuse_foreign()
        self._made_folder = not self.path.exists()
        make_directory(self.path)
        path = self.path / "lock"
        try:
            if self.identity() is None:
                self.path.chmod(DIRECTORY_MODE)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        except OSError as error:
            raise storage_error("lock", path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_at(descriptor, path):  # its holder discarded the directory in between: two would hold two locks
                raise BlockingIOError(errno.EWOULDBLOCK, "the lock was replaced")  # noqa: TRY301 - handled as the others
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        except BlockingIOError as error:
            holder = os.pread(descriptor, PID_BYTES_MAX, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise DirectoryInUseError(
                f"{self.path}: in use by another supervisor (pid {holder}); stop it, or use another data directory",
                errno=error.errno,
            ) from error
        except OSError as error:
            os.close(descriptor)
            raise storage_error("lock", path, error) from error
        self._lock = descriptor

    def release(self) -> None:
        """Give the lock up. Safe to call twice."""
        if self._lock is not None:
            fcntl.flock(self._lock, fcntl.LOCK_UN)  # a process forked meanwhile has the same lock, and would keep it
            os.close(self._lock)
            self._lock = None

    def _refuse_foreign(self) -> None:
        names = self._names()
        if "job" not in names and (foreign := [name for name in names if not _ours(name)]):
            raise IncompatibleDataError(
                f"{self.path}: expected a shardfun data directory or an empty folder, found {', '.join(foreign[:5])}; "
                "use another folder as data directory"
            )

    def _names(self) -> list[str]:
        try:
            return sorted(entry.name for entry in self.path.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise storage_error("list", self.path, error) from error

    def _require_lock(self) -> None:
        if self._lock is None:
            raise LocalProtocolError(f"{self.path}: lock the data directory before changing it")

    # ---- identity --------------------------------------------------------------------------------------------------------
    def identity(self) -> JobIdentity | None:
        """Whose data this is; ``None`` before the first use.

        Raises:
            CorruptionError: the job file is damaged.
            IncompatibleDataError: it is of another format.
            StorageError: it cannot be read.
        """
        path = self.path / "job"
        content = read_checked(path, _JOB_FORM)
        if content is None:
            return None
        try:
            found = load_typed(content, _AnyFormat).format  # other formats have other fields, and shall be named, too
            if found == DATA_FORMAT:
                return load_typed(content, JobIdentity)
        except UndecodableError as error:
            raise CorruptionError(f"{path}: the job file is damaged: {error}") from error
        raise IncompatibleDataError(
            f"{self.path}: expected data of format {DATA_FORMAT}, got format {found}; use the release of shardfun that wrote it, "
            "or another data directory"
        )

    def prepare(self, *, app: str, shards: int) -> JobIdentity:
        """Check that the directory belongs to this application and number of shards; make it theirs at first use.

        Raises:
            IncompatibleDataError: it belongs to another application, format or number of shards.
            CorruptionError: there is data, and the file that says whose it is is missing or damaged.
            StorageError: it cannot be read or written.
        """
        self._require_lock()
        found = self.identity()
        if found is None:
            return self._create(app, shards)
        if found.app != app:
            raise IncompatibleDataError(
                f"{self.path}: belongs to application {found.app!r}, not to {app!r}; use another data directory, or delete this one"
            )
        if found.shards != shards:
            raise IncompatibleDataError(
                f"{self.path}: was made for {found.shards} shards, and {shards} are configured; the number cannot change: "
                f"set it to {found.shards}, or use another data directory"
            )
        return found

    def _create(self, app: str, shards: int) -> JobIdentity:
        if (
            data := [name for name in self._names() if name == "intake" or _SHARD.fullmatch(name)]
            or self.manifests.checkpoints()
        ):
            raise CorruptionError(
                f"{self.path}: there is data ({data[0]}), but the file 'job' is missing; restore it from a backup"
            )
        identity = JobIdentity(format=DATA_FORMAT, job=secrets.token_hex(16), app=app, shards=shards)
        make_directory(self.manifests.folder)
        self._incarnation.create()
        # The job file comes last: it says that everything else is there.
        write_checked(self.path / "job", _JOB_FORM, cbor2.dumps(msgspec.to_builtins(identity)))
        return identity

    # ---- incarnation -----------------------------------------------------------------------------------------------------
    def incarnation(self) -> int | None:
        """The number of the last start; ``None`` if there was none. Only reads.

        Raises:
            CorruptionError: the file is damaged.
            StorageError: it cannot be read.
        """
        return self._incarnation.read()

    def next_incarnation(self) -> int:
        """Raise the incarnation durably and return it: 1 at the first start. No number is ever returned twice.

        Raises:
            CorruptionError: the file is missing, damaged, or older than a manifest (restored from an old backup).
            StorageError: it cannot be read or written.
        """
        self._require_lock()
        return self._incarnation.raise_beyond(next(iter(self.manifests.checkpoints()), 0))

    # ---- the running node ------------------------------------------------------------------------------------------------
    def write_node(self, node: NodeRecord) -> None:
        """Say who runs here: replaced as a whole, not durable (after a power cut nobody runs).

        Raises:
            StorageError: it cannot be written.
        """
        self._require_lock()
        path = self.path / "node.json"
        temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(node))
            temporary.replace(path)
        except OSError as error:
            raise storage_error("write", path, error) from error

    def read_node(self) -> NodeRecord | None:
        """The node that runs, or died without cleaning up; ``None`` if there is none, or the file cannot be understood.

        Raises:
            StorageError: it cannot be read.
        """
        path = self.path / "node.json"
        try:
            with path.open("rb") as file:
                return msgspec.json.decode(file.read(NODE_BYTES_MAX), type=NodeRecord)
        except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        except OSError as error:
            raise storage_error("read", path, error) from error

    def remove_node(self) -> None:
        """The node has ended.

        Raises:
            StorageError: the file cannot be removed.
        """
        self._require_lock()
        remove_file(self.path / "node.json")

    # ---- removal ---------------------------------------------------------------------------------------------------------
    def erase(self) -> None:
        """Delete the data, and only what is of our layout; the folder and the lock stay. Foreign files are left alone.

        The job file goes last: a removal that was cut short leaves a directory that can be erased again, and that no start
        takes for a good one (manifests go first, and a store without its manifest is refused).

        Raises:
            IncompatibleDataError: this is not a data directory.
            StorageError: something cannot be removed.
        """
        self._require_lock()
        names = self._names()
        if "job" not in names:
            if any(_SHARD.fullmatch(name) for name in names) or self.manifests.checkpoints():
                raise IncompatibleDataError(
                    f"{self.path}: not deleted: without the file 'job' it is not known to be a shardfun data directory"
                )
            return
        if (head := self._job_magic()) != _JOB_FORM.magic:
            raise IncompatibleDataError(
                f"{self.path}: not deleted: its file 'job' is not of shardfun (it begins with {head!r})"
            )
        doomed = [name for name in names if _ours(name) and name not in (*_FILES, *_IGNORED, "manifests")]
        for name in ("manifests", *doomed, "node.json", "incarnation", "job"):
            _remove(self.path / name)

    def discard(self) -> None:
        """Undo the first use: ``erase``, and delete the folder if ``acquire`` made it. The lock is given up.

        Raises:
            IncompatibleDataError, StorageError: as ``erase``.
        """
        self.erase()
        if self._made_folder:
            _remove(self.path / "lock")
            with suppress(OSError):  # somebody has put something into it
                self.path.rmdir()
        self.release()

    def _job_magic(self) -> bytes:
        path = self.path / "job"
        try:
            with path.open("rb") as file:
                return file.read(len(_JOB_FORM.magic))
        except OSError as error:
            raise storage_error("read", path, error) from error


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one at ``path``."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _ours(name: str) -> bool:
    known = (*_FILES, *_FOLDERS, *_IGNORED, "manifests")
    return name.removesuffix(TEMPORARY_SUFFIX) in known or _SHARD.fullmatch(name) is not None


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            with suppress(FileNotFoundError):
                path.unlink()
    except OSError as error:
        raise storage_error("delete", path, error) from error
