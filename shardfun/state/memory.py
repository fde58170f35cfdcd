"""The store of one shard in memory: the fake that tests and the simulator use in place of LevelDB.

Implements ``ports.StateStore`` with the same refusals, and models what a disk does to data: applied changes that no flush has
covered are lost as a suffix, a file whose folder was not fsynced may be gone, one that was deleted may be back. Deterministic:
randomness is handed in. One object is the *disk*: after ``crash`` or ``power_loss`` the shard's next process goes on with it.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from shardfun.errors import CorruptionError, LocalProtocolError, StorageError
from shardfun.model.delta import DeltaHeader, DeltaSummary, RecordBlock, StoredDelta, checkpoint_name
from shardfun.state.chain import BEGINNING, Identity, Mark, check_applicable, check_next, redo_chain
from shardfun.state.delta import check_block, decode_delta, encode_delta
from shardfun.state.files import digest_of
from shardfun.state.options import StoreOptions

_OBJECT_DIGEST = struct.Struct(">QQQ")


class _OldValue(NamedTuple):
    key: bytes
    value: bytes | None


class _OldMarks(NamedTuple):
    applied: Mark
    applying: Mark


class MemoryStore:
    """See the module.

    Args:
        keep_objects: keep deltas as objects instead of encoding them: many times faster, and their digests cover header and
            queues only.
        options: of these only ``flush_deltas`` and ``flush_bytes`` count.
    """

    def __init__(
        self, *, job: str, shard: int, shards: int, options: StoreOptions | None = None, keep_objects: bool = False
    ) -> None:
        self.fail_next_write: int | None = None
        """An errno: the next ``write_delta`` fails with it and leaves nothing."""
        self.fail_next_sync: int | None = None
        """An errno: the next ``write_delta`` fails in its last step; the delta is there, but a power loss may take it."""
        self.fail_next_apply: int | None = None
        """An errno: the next ``apply_delta`` or redo fails half-way."""
        self._identity = Identity(job, shard, shards)
        self._options = options or StoreOptions()
        self._keep_objects = keep_objects
        self._values: dict[bytes, bytes] = {}
        self._applied = BEGINNING
        self._applying = BEGINNING
        self._flushed = BEGINNING
        self._journal: list[_OldValue | _OldMarks] = []
        self._deltas: dict[int, bytes | StoredDelta] = {}
        self._unsynced: dict[int, None] = {}
        self._deleted: dict[int, bytes | StoredDelta] = {}
        self._prepared: StoredDelta | None = None
        self._unflushed_bytes = 0
        self._running = True

    @property
    def applied(self) -> int:
        """The checkpoint that is in the key-value store as a whole."""
        return self._applied.checkpoint

    # ---- reading ---------------------------------------------------------------------------------------------------------
    def get(self, key: bytes) -> bytes | None:
        """The value of ``key`` as of the applied checkpoint."""
        self._require_running()
        return self._values.get(key)

    def scan(self, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Keys that begin with ``prefix``, from ``prefix + start`` on, and their values, in order, from a snapshot taken now."""
        self._require_running()
        first = prefix + start
        return iter(sorted(item for item in self._values.items() if item[0].startswith(prefix) and item[0] >= first))

    # ---- deltas ----------------------------------------------------------------------------------------------------------
    def write_delta(self, header: DeltaHeader, blocks: Sequence[RecordBlock], queues: bytes) -> DeltaSummary:
        """Write one immutable delta.

        Raises:
            LocalProtocolError: it does not build on the applied checkpoint, or its keys are not ascending.
            StorageError: a fault was asked for.
        """
        self._require_running()
        check_next(header, self._applied, self._identity)
        checkpoint = header.checkpoint
        self._prepared = None
        fault, self.fail_next_write = self.fail_next_write, None
        _raise_fault(fault, "write", checkpoint)
        summary = self._put_delta(header, blocks, queues)
        self._unsynced[checkpoint] = None
        fault, self.fail_next_sync = self.fail_next_sync, None
        _raise_fault(fault, "fsync", checkpoint)
        del self._unsynced[checkpoint]
        self._deleted.clear()  # fsync of the folder covers removals, too
        self._prepared = StoredDelta(header, summary, [], b"")
        return summary

    def _put_delta(self, header: DeltaHeader, blocks: Sequence[RecordBlock], queues: bytes) -> DeltaSummary:
        if not self._keep_objects:
            pieces: list[bytes] = []
            summary = encode_delta(header, blocks, queues, pieces.append)
            self._deltas[header.checkpoint] = b"".join(pieces)
            return summary
        for block in blocks:
            check_block(block)
        records = sum(len(block.keys) for block in blocks)
        figures = _OBJECT_DIGEST.pack(header.checkpoint, header.parent, records)
        summary = DeltaSummary(
            digest_of(figures, header.parent_digest, queues), len(queues) + sum(map(_block_bytes, blocks)), records
        )
        copied = [RecordBlock(list(block.keys), list(block.values)) for block in blocks if block.keys]
        self._deltas[header.checkpoint] = StoredDelta(header, summary, copied, queues)
        return summary

    def read_delta(self, checkpoint: int) -> StoredDelta:
        """Read a delta back.

        Raises:
            CorruptionError: it is missing or damaged.
        """
        found = self._deltas.get(checkpoint)
        if found is None:
            raise CorruptionError(f"delta of {checkpoint_name(checkpoint)}: it is missing, and it is needed")
        return decode_delta(found) if isinstance(found, bytes) else found

    def delete_delta(self, checkpoint: int) -> None:
        """Delete the delta of an aborted checkpoint; no error if there is none.

        Raises:
            LocalProtocolError: it is the applied one.
        """
        if checkpoint == self._applied.checkpoint:
            raise LocalProtocolError(f"delta of {checkpoint_name(checkpoint)}: it is applied and cannot be aborted any more")
        self._prepared = None
        self._remove(checkpoint)

    def _remove(self, checkpoint: int) -> None:
        found = self._deltas.pop(checkpoint, None)
        if checkpoint in self._unsynced:
            del self._unsynced[checkpoint]
        elif found is not None:
            self._deleted[checkpoint] = found

    def apply_delta(self, checkpoint: int, blocks: Sequence[RecordBlock]) -> None:
        """Put a complete checkpoint's changes into the store. Doing it twice does no harm.

        Raises:
            CorruptionError: its delta is missing or damaged.
            LocalProtocolError: it does not follow the applied checkpoint.
            StorageError: a fault was asked for; half of the changes are there, try again.
        """
        self._require_running()
        prepared = self._prepared
        if prepared is None or prepared.header.checkpoint != checkpoint:
            prepared = self.read_delta(checkpoint)
        check_applicable(Mark(checkpoint, prepared.summary.digest), prepared.header, self._applied)
        self._apply(prepared, blocks)

    def _apply(self, delta: StoredDelta, blocks: Sequence[RecordBlock]) -> None:
        mark = Mark(delta.header.checkpoint, delta.summary.digest)
        values, journal = self._values, self._journal
        half = delta.summary.records // 2 if self.fail_next_apply is not None else -1
        journal.append(_OldMarks(self._applied, self._applying))
        self._applying = mark
        for block in blocks:
            for key, value in zip(block.keys, block.values, strict=True):
                if half == 0:
                    break
                half -= 1
                journal.append(_OldValue(key, values.get(key)))
                if value is None:
                    values.pop(key, None)
                else:
                    values[key] = value
        fault, self.fail_next_apply = self.fail_next_apply, None
        _raise_fault(fault, "apply", mark.checkpoint)
        journal.append(_OldMarks(self._applied, self._applying))
        self._applied, self._applying = mark, BEGINNING
        self._unflushed_bytes += delta.summary.bytes

    def maintain(self) -> None:
        """Flush when one is due, and delete deltas that are no longer needed."""
        self._require_running()
        waiting = sum(1 for checkpoint in self._deltas if self._flushed.checkpoint < checkpoint <= self._applied.checkpoint)
        if waiting >= self._options.flush_deltas or self._unflushed_bytes >= self._options.flush_bytes:
            self._journal.clear()
            self._flushed = self._applied
            self._unflushed_bytes = 0
        for checkpoint in list(self._deltas):
            if checkpoint <= self._flushed.checkpoint and checkpoint != self._applied.checkpoint:
                self._remove(checkpoint)

    def close(self) -> None:
        """The shard's process has ended in order."""
        self._running = False

    # ---- recovery --------------------------------------------------------------------------------------------------------
    def recover(self, checkpoint: int, digest: bytes) -> StoredDelta | None:
        """Bring the store to exactly ``checkpoint``; also what a new process begins with after ``crash`` or ``power_loss``.

        Raises:
            CorruptionError: what is there cannot be brought to ``checkpoint``.
            StorageError: a fault was asked for.
        """
        target = Mark(checkpoint, digest)
        delta = None if target == BEGINNING else self.read_delta(checkpoint)
        if delta is not None:
            redo_chain(Mark(delta.header.parent, delta.header.parent_digest), target, lambda _: delta, self._identity)
        beyond = max(self._applied, self._applying)
        if beyond.checkpoint > checkpoint:
            raise CorruptionError(
                f"the store holds changes of checkpoint {checkpoint_name(beyond.checkpoint)}, but the newest complete one is "
                f"{checkpoint_name(checkpoint)}"
            )
        for missing in redo_chain(self._applied, target, self.read_delta, self._identity):
            self._apply(missing, missing.blocks)
        for newer in [found for found in self._deltas if found > checkpoint]:
            self._remove(newer)
        self._prepared = None
        self._running = True
        return None if delta is None else StoredDelta(delta.header, delta.summary, [], delta.queues)

    # ---- faults ----------------------------------------------------------------------------------------------------------
    def crash(self) -> None:
        """The process is killed. What it had written stays, fsynced or not, since the operating system lives on."""
        self._running = False
        self._prepared = None

    def power_loss(self, randomness: random.Random) -> None:
        """The machine loses power: only fsynced things are certain."""
        self.crash()
        for checkpoint in sorted(self._unsynced):
            if randomness.random() < 0.5:
                del self._deltas[checkpoint]
        for checkpoint in sorted(self._deleted):
            if randomness.random() < 0.5:
                self._deltas.setdefault(checkpoint, self._deleted[checkpoint])
        self._unsynced.clear()
        self._deleted.clear()
        kept = randomness.randint(0, len(self._journal))
        while len(self._journal) > kept:
            old = self._journal.pop()
            if isinstance(old, _OldMarks):
                self._applied, self._applying = old
            elif old.value is None:
                self._values.pop(old.key, None)
            else:
                self._values[old.key] = old.value

    def _require_running(self) -> None:
        if not self._running:
            raise StorageError("the store is closed, or its process has died: recover first")


def _raise_fault(code: int | None, doing: str, checkpoint: int) -> None:
    if code is not None:
        raise StorageError(
            f"delta of {checkpoint_name(checkpoint)}: cannot {doing}: {os.strerror(code)} (asked for)", errno=code
        )


def _block_bytes(block: RecordBlock) -> int:
    return sum(map(len, block.keys)) + sum(map(len, filter(None, block.values)))
