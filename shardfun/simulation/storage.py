"""A shard's storage thread: jobs one after the other, each in two steps, so that a process can die in between.

First the disk does the job, then the loop hears of it. Killed while a job runs, a disk may have done nothing, a half, or all of it.
"""

from __future__ import annotations

import errno
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from shardfun.errors import CorruptionError, StorageError
from shardfun.shard.worker import Failed
from shardfun.simulation.file_store import AnyStore, FileStore
from shardfun.simulation.files import Trouble


class Job(NamedTuple):
    """``kind``: write, delete, apply, maintain or recover. ``done`` gets the result or the ``StorageError`` on the loop."""

    kind: str
    run: Callable[[], Any]
    done: Callable[[Any], None]


class StorageThread:
    """See the module."""

    def __init__(self, store: AnyStore) -> None:
        self._store = store
        self._jobs: deque[Job] = deque()
        self._results: deque[tuple[Job, Any]] = deque()

    def submit(self, job: Job) -> None:
        """Queue a job."""
        self._jobs.append(job)

    @property
    def next_kind(self) -> str | None:
        """What the disk would do next."""
        return self._jobs[0].kind if self._jobs else None

    def work(self, trouble: Trouble | None = None) -> str | None:
        """The disk does the next job; what kind it was, and whether it ``failed``. A failed apply or redo stays and is tried again.

        Args:
            trouble: what goes wrong, for a store of files; its process ends if it cannot recover, but waits for a full disk.

        Raises:
            CorruptionError: what is stored does not fit together.
            StorageError: as above, or there was no reason to fail.
        """
        if not self._jobs:
            return None
        job = self._jobs[0]
        done = job.kind
        try:
            result = self._store.run(job.run, trouble) if isinstance(self._store, FileStore) else job.run()
        except CorruptionError:
            raise
        except StorageError as error:
            if job.kind == "recover" and isinstance(self._store, FileStore) and not error.disk_full:
                raise
            self._check(error)
            if job.kind in {"apply", "recover"}:
                return f"{job.kind} failed"
            result, done = error, f"{job.kind} failed"
        if isinstance(result, Failed) and isinstance(result.error, StorageError):
            self._check(result.error)
        self._jobs.popleft()
        self._results.append((job, result))
        return done

    def _check(self, error: StorageError) -> None:
        """An error that is handled must have a reason, too."""
        if not (self._store.explains(error) if isinstance(self._store, FileStore) else error.errno is not None):
            raise error

    def report(self) -> str | None:
        """The loop hears of the oldest job that is done; what kind it was."""
        if not self._results:
            return None
        job, result = self._results.popleft()
        job.done(result)
        return job.kind

    def kill(self, chance: random.Random) -> str:
        """The process dies; what became of the job that ran."""
        outcome = "idle"
        if self._jobs and self._jobs[0].kind != "read":
            job = self._jobs[0]
            store = self._store
            how = chance.choice(("not begun", "half", "done", *(["half"] * 3 if isinstance(store, FileStore) else [])))
            outcome = f"{job.kind} {how}"
            if isinstance(store, FileStore):
                if how != "not begun":
                    self._die_in(store, job, how, chance)
            elif how != "not begun":
                if how == "half":
                    store.fail_next_sync = store.fail_next_apply = errno.EIO
                with suppress(StorageError):
                    job.run()
                store.fail_next_write = store.fail_next_sync = store.fail_next_apply = None
        self._store.crash()
        return outcome

    @staticmethod
    def _die_in(store: FileStore, job: Job, how: str, chance: random.Random) -> None:
        if how == "half":
            store.die_in(job.run, job.kind, chance)
        else:
            with suppress(StorageError):
                job.run()
