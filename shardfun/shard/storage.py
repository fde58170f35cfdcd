"""A shard's storage as the process uses it: jobs for one worker thread, so that they happen in the order asked.

That order is what makes a reset safe: the restore of a new incarnation waits behind whatever the old one still writes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from shardfun.core.cell_keys import stored_addresses
from shardfun.core.cells import Stored
from shardfun.core.effects import ApplyDelta, DeleteDelta, WriteDelta
from shardfun.core.participant import ShardIdentity
from shardfun.core.snapshot import EMPTY_QUEUES, Queues, decode_queues
from shardfun.errors import CorruptionError, StorageError
from shardfun.failpoints import Point, reached
from shardfun.model.address import is_declared
from shardfun.model.control import Letters
from shardfun.shard.letters import find_letters
from shardfun.shard.worker import Failed, TryAgain, Worker
from shardfun.state.options import StoreOptions
from shardfun.state.store import LevelDBStore

RETRY_S = 1.0

log = structlog.get_logger("shardfun.shard")

Done = Callable[[Any], None]
"""Called on the loop with the result of a job, or ``Failed``."""


@dataclass(frozen=True, slots=True)
class Place:
    """Whose store, and where."""

    identity: ShardIdentity
    directory: Path


class Storage:
    """The store of one shard behind a worker.

    Args:
        types_with_end: function types (and namespaces, as ``shop/*``) whose addresses are looked for at the end of a bounded run.
    """

    def __init__(self, worker: Worker, options: StoreOptions, types_with_end: frozenset[str]) -> None:
        self._worker = worker
        self._options = options
        self._types_with_end = types_with_end
        self._store: LevelDBStore | None = None
        self._restores = 0
        self._ending = False
        self.waits_for_space = False
        """A restore waits until the disk is no longer full. May be read by any thread."""

    @property
    def stored(self) -> Stored:
        """What the store holds, once it is restored."""
        return self._open_store()

    def restore(self, place: Place, complete: int, digest: bytes, done: Done) -> None:
        """Bring the store to a complete checkpoint; the result is the checkpoint's ``Queues``."""
        self._restores += 1
        restore = self._restores
        self._worker.submit(lambda: self._restore(place, complete, digest, restore), done)

    def write(self, effect: WriteDelta, done: Done) -> None:
        """Write a delta; the result is its summary."""
        store = self._open_store()
        self._worker.submit(lambda: store.write_delta(effect.header, effect.blocks, effect.queues), done)

    def delete(self, effect: DeleteDelta) -> None:
        """Delete the delta of an aborted checkpoint."""
        store = self._open_store()
        self._worker.submit(lambda: store.delete_delta(effect.checkpoint), _warn)

    def apply(self, effect: ApplyDelta, done: Done) -> None:
        """Apply a complete checkpoint; the result is, for the end of a bounded run, the ids with state by typename."""
        restore = self._restores
        self._worker.submit(lambda: self._apply(effect, restore), done)

    def find_letters(self, slots: tuple[int, int], question: Letters, done: Done) -> None:
        """Look for dead letters; the result is what ``find_letters`` gives, and the checkpoint as of which."""
        store = self._open_store()
        self._worker.submit(lambda: (*find_letters(store, slots, question), store.applied), done)

    def read(self, job: Callable[[LevelDBStore], bytes], done: Done) -> None:
        """Look into the store, which holds exactly the last applied checkpoint then."""
        store = self._open_store()
        self._worker.submit(lambda: job(store), done)

    def read_now(self, job: Callable[[LevelDBStore], bytes]) -> bytes:
        """A job that needs no key of the store, at once."""
        return job(self._open_store())

    def give_up(self) -> None:
        """The process ends: a job that waits for the disk to recover shall not wait any longer."""
        self._ending = True

    def close(self) -> None:
        """Close the store, when the worker has ended."""
        if self._store is not None:
            self._store.close()

    def _open_store(self) -> LevelDBStore:
        assert self._store is not None
        return self._store

    # ---- in the worker's thread -----------------------------------------------------------------------------------------
    def _restore(self, place: Place, complete: int, digest: bytes, restore: int) -> Queues:
        """A full disk is waited for: a world that runs through one may lose a shard meanwhile, and shall not end with it."""
        try:
            if self._store is None:
                identity = place.identity
                self._store = LevelDBStore.open(
                    place.directory, job=identity.job, shard=identity.shard, shards=identity.shards, options=self._options
                )
            delta = self._store.recover(complete, digest)
        except StorageError as error:
            if not error.disk_full or self._restores != restore or self._ending:
                self.waits_for_space = False
                raise
            self.waits_for_space = True
            log.warning("disk full, waiting for space to restore", error=str(error))
            raise TryAgain(RETRY_S) from error
        self.waits_for_space = False
        reached(Point.RECOVERED)
        return EMPTY_QUEUES if delta is None else decode_queues(delta.queues)

    def _apply(self, effect: ApplyDelta, restore: int) -> dict[str, list[str]]:
        """A disk that refuses (full, most often) is tried again until it does not, or the incarnation is over.

        There is nothing else to do with a complete checkpoint. Meanwhile no other begins, and by the limit of changed state all
        comes to rest.
        """
        store = self._open_store()
        try:
            store.apply_delta(effect.checkpoint, effect.blocks)
        except StorageError as error:
            if isinstance(error, CorruptionError) or self._restores != restore or self._ending:
                raise
            log.warning("checkpoint cannot be applied, will try again", error=str(error))
            raise TryAgain(RETRY_S) from error
        reached(Point.APPLIED)
        stored: dict[str, list[str]] = {}
        if effect.end and self._types_with_end:
            found = stored_addresses(key for key, _ in store.scan())
            stored = {typename: ids for typename, ids in found.items() if is_declared(typename, self._types_with_end)}
        try:
            store.maintain()
        except CorruptionError:
            raise
        except StorageError as error:  # it is tried again after the next checkpoint
            log.warning("store cannot be flushed", error=str(error))
        return stored


def _warn(result: Any) -> None:
    if isinstance(result, Failed):
        log.warning("delta of an aborted checkpoint cannot be deleted", error=str(result.error))
