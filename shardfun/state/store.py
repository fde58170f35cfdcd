"""The store of one shard on disk: LevelDB holds exactly the last applied checkpoint, delta files what leads up to it.

Redo, never undo: LevelDB is changed only after a checkpoint is complete, and what a crash leaves half done is done again from
the delta files. LevelDB's writes are therefore not fsynced one by one; ``flushed`` records up to where they are durable for
certain, and no delta after that is deleted. ::

    leveldb/               keys and values, and under reserved keys: applied, applying
    deltas/delta-<id>      one per prepared checkpoint
    flushed                checkpoint and digest that LevelDB's table files are known to cover
    repair                 only while the database is repaired: from where on deltas are applied again

After a power cut the mark ``applied`` is not believed: of LevelDB's log, which is not fsynced, a page in the middle may be missing,
and LevelDB skips it without a word. So everything since the last flush is applied again when the machine was started anew.

Opening is a ladder. (1) Open with every check. (2) If LevelDB is damaged, open without, but only if the deltas chain by hash
without a gap from ``flushed`` to the newest complete checkpoint: whatever the damaged log held is written again. (3) Refuse.
LevelDB's own repair is never used: it drops what it cannot read.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from shardfun.errors import CorruptionError, LocalProtocolError, StorageError
from shardfun.failpoints import DELTA
from shardfun.model.delta import DeltaHeader, DeltaSummary, RecordBlock, StoredDelta, checkpoint_name
from shardfun.state.chain import BEGINNING, Identity, Mark, check_applicable, check_next, redo_chain
from shardfun.state.delta import RESERVED, DeltaReader, encode_delta
from shardfun.state.files import (
    durable_file,
    file_bytes,
    free_bytes,
    make_directory,
    remove_file,
    remove_temporaries,
    storage_error,
)
from shardfun.state.filesystem import REAL_FILES, FileSystem
from shardfun.state.leveldb import LEVELDB, Database, OpenEngine
from shardfun.state.marks import FLUSHED_FORM, REPAIR_FORM, MarkFile, decode_mark, encode_mark
from shardfun.state.options import StoreOptions

REOPEN_FREE_FACTOR = 4  # free disk, in write buffers, below which a failed database is not closed: reads would end, too

_DELTA_NAME = re.compile(r"delta-([0-9a-f]{16})")
_APPLIED = RESERVED + b"meta/applied"
_APPLYING = RESERVED + b"meta/applying"
_FLUSH_WITNESS = RESERVED + b"meta/witness"
_BOOT = RESERVED + b"meta/boot"


class LevelDBStore:
    """Implements ``ports.StateStore``. Made by ``open``, usable after ``recover``.

    A failed ``apply_delta`` or ``maintain`` (disk full) leaves reads as they were, and may be tried again.
    """

    def __init__(
        self,
        directory: Path,
        identity: Identity,
        options: StoreOptions,
        disk: FileSystem = REAL_FILES,
        engine: OpenEngine = LEVELDB,
    ) -> None:
        self._identity = identity
        self._options = options
        self._disk = disk
        self._deltas = directory / "deltas"
        self._flushed_file = MarkFile(directory / "flushed", FLUSHED_FORM, disk)
        self._repair_file = MarkFile(directory / "repair", REPAIR_FORM, disk)
        self._database = Database(directory / "leveldb", options, disk, engine)
        self.get = self._database.get
        """The value of a key as of the applied checkpoint. Not a method: it is asked for with each entry of a map."""
        self._damage: str | None = None
        self._repair: Mark | None = None
        """From where on deltas have to be applied again: a repair has begun and is not done."""
        self._recovered = False
        """By this process: the machine was not started anew since."""
        self._applied = BEGINNING
        self._target = BEGINNING
        """Where readers are, and where the database is brought to when it has to be opened again."""
        self._flushed = BEGINNING
        self._written: tuple[DeltaHeader, DeltaSummary] | None = None
        self._unflushed_deltas = 0
        self._unflushed_bytes = 0

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        job: str,
        shard: int,
        shards: int,
        options: StoreOptions | None = None,
        disk: FileSystem = REAL_FILES,
        engine: OpenEngine = LEVELDB,
    ) -> LevelDBStore:
        """Open or create a shard's store. Damage that deltas may repair is only noted: ``recover`` repairs or refuses.

        Args:
            directory: the shard's own folder.
            job: the data directory's job id.
            disk: where the files are.
            engine: opens the key-value database.

        Raises:
            CorruptionError: the flushed mark is damaged.
            StorageError: the disk refused, or another process has the store open.
        """
        store = cls(directory, Identity(job, shard, shards), options or StoreOptions(), disk, engine)
        make_directory(store._deltas, disk)
        make_directory(store._database.path, disk)
        remove_temporaries(store._deltas, disk)
        store._flushed = store._flushed_file.read() or BEGINNING
        store._repair = store._repair_file.read()
        store._open_checked()
        return store

    @property
    def applied(self) -> int:
        """The checkpoint that is in the key-value store as a whole."""
        return self._applied.checkpoint

    # ---- reading ---------------------------------------------------------------------------------------------------------
    def scan(self, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Keys that begin with ``prefix``, from ``prefix + start`` on, and their values, in order, from a snapshot taken now.

        Never the store's own keys.
        """
        return self._database.scan(prefix + start, min(_end_of_prefix(prefix), RESERVED))

    def scan_kind(self, kind: bytes, slots: tuple[int, int]) -> Iterator[tuple[bytes, bytes]]:
        """The keys of one kind in a range of slots, slot by slot, and their values. Fails if the store is opened again meanwhile."""
        return self._database.scan_kind(kind, *slots)

    def seeker(self, end_slot: int) -> Callable[[bytes], bytes | None]:
        """Finds keys of a snapshot taken now, by jumping: for a key, the first one from there on whose slot is below ``end_slot``.

        Fails if the store is opened again meanwhile.
        """
        return self._database.seeker(end_slot.to_bytes(2, "big"))

    # ---- deltas ----------------------------------------------------------------------------------------------------------
    def write_delta(self, header: DeltaHeader, blocks: Sequence[RecordBlock], queues: bytes) -> DeltaSummary:
        """Write one immutable delta durably.

        Raises:
            LocalProtocolError: it does not build on the applied checkpoint, or its keys are not ascending.
            StorageError: the disk refused; ``delete_delta`` and abort, or write it again.
        """
        if self._database.lost:  # else no checkpoint would be complete again, and nothing would ask for the database
            self._reopen(self._target)
        self._require_recovered()
        check_next(header, self._applied, self._identity)
        self._written = None
        with durable_file(self._delta_path(header.checkpoint), DELTA, self._disk) as write:
            summary = encode_delta(header, blocks, queues, write)
        self._written = header, summary
        return summary

    def read_delta(self, checkpoint: int) -> StoredDelta:
        """Read a delta back.

        Raises:
            CorruptionError: it is missing or damaged.
            StorageError: it cannot be read.
        """
        return self._fetch(checkpoint).read()

    def delete_delta(self, checkpoint: int) -> None:
        """Delete the delta of an aborted checkpoint; no error if there is none.

        Raises:
            LocalProtocolError: it is the applied one.
            StorageError: it cannot be removed.
        """
        if checkpoint == self._applied.checkpoint:
            raise LocalProtocolError(f"delta of {checkpoint_name(checkpoint)}: it is applied and cannot be aborted any more")
        self._written = None
        remove_file(self._delta_path(checkpoint), self._disk)

    def apply_delta(self, checkpoint: int, blocks: Sequence[RecordBlock]) -> None:
        """Put a complete checkpoint's changes into LevelDB. Doing it twice does no harm.

        Args:
            blocks: those of ``write_delta``.

        Raises:
            CorruptionError: its delta is missing or damaged, or LevelDB is and deltas cannot repair it.
            LocalProtocolError: it does not follow the applied checkpoint.
            StorageError: the disk refused; the changes are not applied as a whole, try again.
        """
        header, summary = self._prepared(checkpoint)
        check_applicable(Mark(checkpoint, summary.digest), header, self._applied)
        if self._database.failed or not self._database.is_open:
            self._reopen(Mark(checkpoint, summary.digest))
        else:
            self._apply(header, summary, blocks)
        self._target = self._applied

    def _prepared(self, checkpoint: int) -> tuple[DeltaHeader, DeltaSummary]:
        """What identifies a delta. Usually it was just written, and need not be read and hashed again."""
        if self._written is not None and self._written[0].checkpoint == checkpoint:
            return self._written
        delta = self._fetch(checkpoint)
        return delta.header, delta.summary

    def _apply(
        self, header: DeltaHeader, summary: DeltaSummary, blocks: Iterable[RecordBlock], reach: Mark = BEGINNING
    ) -> None:
        """Put a delta into LevelDB.

        Args:
            reach: how far LevelDB's changes may go already, in a redo, which writes older values over newer ones first.
        """
        mark = Mark(header.checkpoint, summary.digest)
        encoded, ahead = encode_mark(mark), encode_mark(max(mark, reach))
        # A start that goes back to an older checkpoint must find out that a part of a newer one is there: see _check_reach.
        each = RecordBlock([_APPLYING], [ahead])
        last = RecordBlock([_APPLIED, _APPLYING], [encoded, None if ahead == encoded else ahead])
        self._database.write(blocks, each=each, last=last)
        self._applied = mark
        self._unflushed_deltas += 1
        self._unflushed_bytes += summary.bytes

    def maintain(self) -> None:
        """Force a flush when one is due, and delete deltas that are no longer needed.

        Raises:
            StorageError: the disk refused; nothing is lost, try again after the next checkpoint.
        """
        if self._database.failed or not self._database.is_open:
            self._reopen(self._target)
        if self._unflushed_deltas >= self._options.flush_deltas or self._unflushed_bytes >= self._options.flush_bytes:
            self._flush()
        # The applied checkpoint's own delta stays: it holds the queues that a recovery restores.
        for checkpoint in self._delta_checkpoints():
            if checkpoint <= self._flushed.checkpoint and checkpoint != self._applied.checkpoint:
                remove_file(self._delta_path(checkpoint), self._disk)

    def close(self) -> None:
        """Release files and locks. Safe to call twice."""
        self._database.close()

    # ---- recovery --------------------------------------------------------------------------------------------------------
    def recover(self, checkpoint: int, digest: bytes) -> StoredDelta | None:
        """Bring the store to exactly ``checkpoint``; works on one that was just opened, and on one in use.

        Args:
            checkpoint: the newest complete one; 0: none.
            digest: of this shard's delta of it, from the manifest; empty for 0.

        Returns:
            That delta without its blocks; ``None`` for 0.

        Raises:
            CorruptionError: what is there cannot be brought to ``checkpoint``; the message names the damaged file.
            StorageError: the disk refused.
        """
        target = Mark(checkpoint, digest)
        delta = None if target == BEGINNING else self._fetch_target(target)
        if self._database.failed or not self._database.is_open:
            self._reopen(target)
        else:
            self._bring_to(target)
        self._target = target
        self._note_boot()
        # Last, since a refusal must leave everything as it was: an operator may bring a newer manifest back.
        for newer in self._delta_checkpoints():
            if newer > checkpoint:
                remove_file(self._delta_path(newer), self._disk)
        self._written = None
        self._count_unflushed()
        return None if delta is None else StoredDelta(delta.header, delta.summary, [], delta.queues())

    def _fetch_target(self, target: Mark) -> DeltaReader:
        """The newest delta, checked before anything is changed."""
        try:
            delta = self._fetch(target.checkpoint)
            redo_chain(Mark(delta.header.parent, delta.header.parent_digest), target, lambda _: delta, self._identity)
        except CorruptionError as error:
            raise CorruptionError(
                f"{error}. The newest complete checkpoint is not whole without it; restore the data directory from a backup"
            ) from error
        return delta

    def _reopen(self, target: Mark) -> None:
        """Open again after a failed write, or after damage; reads wait, since they must not see what is in between."""
        needed = REOPEN_FREE_FACTOR * self._options.write_buffer_bytes
        free = free_bytes(self._deltas, self._disk)
        if self._database.is_open and free < needed:
            raise StorageError(
                f"{self._database.path}: expected {needed} bytes of free disk to go on after a failed write, got {free}: free some space",
                errno=errno.ENOSPC,
            )
        with self._database.exclusive:
            try:
                self._open_checked()
                self._bring_to(target)
            except BaseException as error:
                self._database.close(error)  # what is in it now is older than what readers may see
                raise

    def _open_checked(self) -> None:
        """The first rung of the ladder."""
        self._database.close()
        self._damage = None
        if self._repair is not None:
            self._damage = f"{self._database.path}: a repair of the database was not finished"
            return
        if not self._database.exists and (self._flushed != BEGINNING or self._database.has_strays):
            self._damage = f"{self._database.path}: the database is missing"
            return
        try:
            self._database.open(paranoid=True)
            self._applied = self._read_mark(_APPLIED)
        except CorruptionError as error:
            self._database.close()
            self._damage = str(error)

    def _bring_to(self, target: Mark) -> None:
        if self._damage is not None:
            self._rebuild(target)
            return
        self._check_reach(target)
        if self._applied.checkpoint < self._flushed.checkpoint:
            raise CorruptionError(
                f"{self._database.path}: expected at least checkpoint {checkpoint_name(self._flushed.checkpoint)}, which was flushed, "
                f"got {checkpoint_name(self._applied.checkpoint)}; restore the data directory from a backup"
            )
        base, reach = (self._flushed, target) if self._lost_power() else (self._applied, self._reach())
        for delta in redo_chain(base, target, self._fetch, self._identity):
            self._apply(delta.header, delta.summary, delta.blocks(), reach)

    def _lost_power(self) -> bool:
        """Whether the machine may have been started anew since LevelDB was written."""
        boot = self._disk.boot()
        return not self._recovered and (not boot or self._database.get(_BOOT) != boot)

    def _note_boot(self) -> None:
        """From now on what LevelDB holds is there until the machine is started anew."""
        if self._lost_power():
            nothing = RecordBlock([], [])
            self._database.write([], each=nothing, last=RecordBlock([_BOOT], [self._disk.boot()]))
        self._recovered = True

    def _reach(self) -> Mark:
        """How far the changes in LevelDB may go, as its marks say."""
        return max(self._applied, self._read_mark(_APPLYING))

    def _check_reach(self, target: Mark) -> None:
        """Nothing newer than ``target`` may be in LevelDB, not even a part: there is no undo."""
        beyond = self._reach()
        if beyond.checkpoint > target.checkpoint:
            raise CorruptionError(
                f"{self._database.path}: holds changes of checkpoint {checkpoint_name(beyond.checkpoint)}, but the newest complete one is "
                f"{checkpoint_name(target.checkpoint)}; restore the newer manifest, or the whole data directory from one backup"
            )

    def _rebuild(self, target: Mark) -> None:
        """The second and third rung: damaged, so write everything since the last flush again, or refuse."""
        lost = not self._database.exists
        base = BEGINNING if lost else self._repair or self._flushed
        try:
            deltas = redo_chain(base, target, self._fetch, self._identity)
        except CorruptionError as error:
            raise CorruptionError(
                f"{self._damage}. It cannot be repaired from the deltas in {self._deltas}: {error}. Restore the data directory from a backup"
            ) from error
        # Opened without checks, the database drops the damaged log with all that came from it. If this process dies before that was
        # applied again, nothing shows it to the next one, and the mark ``applied`` may have stayed.
        self._repair_file.write(base)
        self._repair = base
        if lost:  # stray tables and logs of the lost database would be read by the new one
            _empty_directory(self._database.path, self._disk)
        self._database.open(paranoid=False)
        self._applied = self._read_mark(_APPLIED)
        self._check_reach(target)
        if self._applied.checkpoint < base.checkpoint:
            raise CorruptionError(
                f"{self._damage}. The flushed checkpoint {checkpoint_name(base.checkpoint)} is not in it either"
            )
        for delta in deltas:
            self._apply(delta.header, delta.summary, delta.blocks(), target)
        self._flush()
        # Only now, with the damaged log gone: the rest of this process shall run with every check.
        self._database.open(paranoid=True)
        self._repair_file.remove()
        self._damage = self._repair = None

    def _require_recovered(self) -> None:
        if not self._database.is_open:
            raise self._database.closed()

    def _fetch(self, checkpoint: int) -> DeltaReader:
        return DeltaReader(self._delta_path(checkpoint), self._disk)

    # ---- flushing --------------------------------------------------------------------------------------------------------
    def _flush(self) -> None:
        self._database.flush(_FLUSH_WITNESS)
        self._flushed_file.write(self._applied)
        self._flushed = self._applied
        self._unflushed_deltas = self._unflushed_bytes = 0

    def _count_unflushed(self) -> None:
        """A store that restarts often must not put its flush off for ever."""
        waiting = [checkpoint for checkpoint in self._delta_checkpoints() if checkpoint > self._flushed.checkpoint]
        self._unflushed_deltas = len(waiting)
        self._unflushed_bytes = sum(file_bytes(self._delta_path(checkpoint), self._disk) for checkpoint in waiting)

    def _read_mark(self, key: bytes) -> Mark:
        value = self._database.get(key)
        return BEGINNING if value is None else decode_mark(value)

    # ---- delta files -----------------------------------------------------------------------------------------------------
    def _delta_path(self, checkpoint: int) -> Path:
        return self._deltas / f"delta-{checkpoint:016x}"

    def _delta_checkpoints(self) -> list[int]:
        try:
            names = self._disk.names(self._deltas)
        except OSError as error:
            raise storage_error("list", self._deltas, error) from error
        return sorted(int(found[1], 16) for name in names if (found := _DELTA_NAME.fullmatch(name)))


def _end_of_prefix(prefix: bytes) -> bytes:
    """The first key after all that begin with ``prefix``."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else RESERVED


def _empty_directory(folder: Path, disk: FileSystem) -> None:
    try:
        disk.remove_tree(folder)
    except OSError as error:
        raise storage_error("delete", folder, error) from error
    make_directory(folder, disk)
