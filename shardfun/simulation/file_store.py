"""A shard's real store on the simulated disk, as the simulated shard process uses it.

One object is the shard's place on the disk: it outlives processes, and each process that recovers opens a ``LevelDBStore`` of its own,
as a real one does. Takes the place of a ``MemoryStore``.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from shardfun.errors import StorageError
from shardfun.model.delta import DeltaHeader, DeltaSummary, RecordBlock, StoredDelta, checkpoint_name
from shardfun.simulation.engine import simulated_leveldb
from shardfun.simulation.files import ProcessDeath, ProcessFiles, SimulatedDisk, Trouble
from shardfun.simulation.reasons import has_reason
from shardfun.simulation.violation import wrong
from shardfun.state.chain import Identity
from shardfun.state.delta import decode_delta
from shardfun.state.memory import MemoryStore
from shardfun.state.options import StoreOptions
from shardfun.state.store import LevelDBStore

DATA = Path("/data")
WRITE_BUFFER_BYTES = 4096  # small, so that LevelDB makes tables on its own, too

JOB_STEPS = {
    "write": 14,
    "apply": 4,
    "recover": 100,
    "maintain": 18,
    "delete": 1,
    "manifest": 8,
    "incarnation": 12,
    "boot": 14,
    "open log": 24,
    "append": 9,
    "tend": 12,
    "read": 3,
}
"""About how many steps of the disk a job takes: one of them fails, or is the last one before a death."""


def draw_trouble(kind: str, chance: random.Random) -> Trouble:
    """What goes wrong in a job: anything, anywhere."""
    return Trouble(chance.randint(1, JOB_STEPS[kind]), chance.choice((errno.EIO, errno.EIO, errno.ENOSPC)))


class FileStore:
    """See the module."""

    def __init__(self, disk: SimulatedDisk, identity: Identity, flush_deltas: int) -> None:
        self._disk = disk
        self._identity = identity
        self._options = StoreOptions(flush_deltas=flush_deltas, write_buffer_bytes=WRITE_BUFFER_BYTES)
        self._folder = DATA / f"shard-{identity.shard}"
        self._files: ProcessFiles | None = None
        self._store: LevelDBStore | None = None
        self._trouble: Trouble | None = None
        self._dies_at: int | None = None
        self._applied = 0

    # ---- what processes do with it --------------------------------------------------------------------------------------
    @property
    def applied(self) -> int:
        """The checkpoint that is in the key-value store as a whole."""
        return self._applied if self._store is None else self._store.applied

    def get(self, key: bytes) -> bytes | None:
        """See ``StateStore``."""
        return self._opened().get(key)

    def scan(self, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """See ``StateStore``."""
        return self._opened().scan(prefix, start)

    def write_delta(self, header: DeltaHeader, blocks: Sequence[RecordBlock], queues: bytes) -> DeltaSummary:
        """See ``StateStore``."""
        return self._opened().write_delta(header, blocks, queues)

    def delete_delta(self, checkpoint: int) -> None:
        """See ``StateStore``."""
        self._opened().delete_delta(checkpoint)

    def apply_delta(self, checkpoint: int, blocks: Sequence[RecordBlock]) -> None:
        """See ``StateStore``."""
        self._opened().apply_delta(checkpoint, blocks)

    def maintain(self) -> None:
        """See ``StateStore``."""
        self._opened().maintain()

    def recover(self, checkpoint: int, digest: bytes) -> StoredDelta | None:
        """See ``StateStore``; a process that has not opened the store does that first."""
        if self._store is None:
            self._files = files = self._disk.process()
            self._arm()
            engine = simulated_leveldb(files, lambda: self._disk.damages, files.look_again)
            job, shard, shards = self._identity
            self._store = LevelDBStore.open(
                self._folder, job=job, shard=shard, shards=shards, options=self._options, disk=files, engine=engine
            )
        return self._store.recover(checkpoint, digest)

    def close(self) -> None:
        """The shard's process has ended in order."""
        if self._store is not None:
            self._store.close()
        self.crash()

    def _opened(self) -> LevelDBStore:
        if self._store is None:
            raise StorageError("the store is not open: recover first")
        return self._store

    # ---- what checks do with it -----------------------------------------------------------------------------------------
    def read_delta(self, checkpoint: int) -> StoredDelta:
        """The delta of a complete checkpoint, as it was written; it must survive any power cut.

        Raises:
            Violation: it would not.
        """
        path = self._folder / "deltas" / f"delta-{checkpoint:016x}"
        if not self._disk.is_durable(path):
            wrong(f"{path}: {checkpoint_name(checkpoint)} is complete, and a power cut could take this delta of it")
        return decode_delta(self._disk.original(path))

    def explains(self, error: StorageError) -> bool:
        """Whether an error has a reason."""
        return has_reason(error, self._disk)

    # ---- faults ---------------------------------------------------------------------------------------------------------
    def run(self, job: Callable[[], Any], trouble: Trouble | None) -> Any:
        """Do a job.

        Args:
            trouble: a step that fails.
        """
        self._trouble = trouble
        self._arm()
        try:
            return job()
        finally:
            self._trouble = self._dies_at = None
            self._arm()

    def expect(self, trouble: Trouble | None) -> None:
        """What goes wrong in reads that are no job, from now on."""
        self._trouble = trouble
        self._arm()

    def die_in(self, job: Callable[[], Any], kind: str, chance: random.Random) -> None:
        """The process dies before one of the steps of a job, which may be the first: to open the store."""
        self._dies_at = chance.randint(1, JOB_STEPS[kind])
        with suppress(ProcessDeath, StorageError):
            self.run(job, None)

    def crash(self) -> None:
        """The process is killed. What it had written stays, fsynced or not, since the operating system lives on."""
        if self._store is not None:
            self._applied = self._store.applied
        if self._files is not None:
            self._files.kill()
        self._files = self._store = None

    def power_loss(self, _randomness: random.Random) -> None:
        """The disk has lost power as a whole."""
        self.crash()

    def _arm(self) -> None:
        """What goes wrong in the job, for the hands that do it; those of a process that opens the store are made in the job."""
        if self._files is not None:
            self._files.begin_job(self._trouble, self._dies_at)


AnyStore = MemoryStore | FileStore
