"""The simulated door: a process that takes entries into the intake log and waits for replies. The log and its keys are the real ones.

It dies at any moment, and a new one goes on with the log. What it has answered with 202 is durable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from shardfun.errors import StorageError
from shardfun.intake.bells import Bell
from shardfun.intake.entries import Entry, RequestEntry, encode_entry, slot_of_entry
from shardfun.intake.log import CONSUMED, LogWriter, log_exists
from shardfun.intake.log_files import load_mark
from shardfun.intake.pending import PendingKeys, find_pending
from shardfun.simulation.faults import Faults
from shardfun.simulation.file_store import JOB_STEPS
from shardfun.simulation.files import ProcessDeath, SimulatedDisk
from shardfun.simulation.reasons import has_reason
from shardfun.simulation.trace import Trace

WHO = "door"
FOLDER = Path("/data/intake/http")
SEGMENT_BYTES = 1_500  # small, so that there are many
GROUP_MAX = 4


class SimulatedBell(Bell):
    """A bell without a socket."""

    def __init__(self) -> None:
        self.rings = 0

    @property
    def fd(self) -> int:
        """Nobody waits for it here."""
        return -1

    def listen(self, now: float) -> None:
        """Rings are heard at once."""

    def close(self) -> None:
        """There is nothing to close."""


class Post(NamedTuple):
    """A POST under way.

    Args:
        client: who has sent it.
        answered: called with ``"taken"``, ``"conflict"`` or ``"refused"``; never, if the door dies.
    """

    client: int
    entry: Entry
    answered: Callable[[str], None]


class Door:
    """See the module. One object is one process.

    Args:
        bells: of the shards.
    """

    def __init__(
        self,
        machine: SimulatedDisk,
        bells: list[SimulatedBell],
        faults: Faults,
        trace: Trace,
    ) -> None:
        self._hands = machine.process()
        self._machine = machine
        self._bells = bells
        self._faults = faults
        self._trace = trace
        self._writer = LogWriter(FOLDER, SEGMENT_BYTES, self._hands)
        self._opened = False
        self._keys = PendingKeys()
        self._posts: deque[Post] = deque()
        self._writing: list[Post] = []
        self._written: deque[tuple[Post, str]] = deque()

    @property
    def log_end(self) -> int | None:
        """Where the log ends; ``None`` if this process does not know it yet."""
        if self._opened:
            return self._writer.durable
        return None if log_exists(FOLDER, self._hands) else 0

    def post(self, post: Post) -> None:
        """A client sends something."""
        self._posts.append(post)

    def work(self) -> str | None:
        """One step; what it was.

        Raises:
            CorruptionError: the log does not fit together.
        """
        if self._written:
            post, answer = self._written.popleft()
            post.answered(answer)
            return "answered"
        if self._writing:
            return self._write()
        if not self._opened and (self._posts or log_exists(FOLDER, self._hands)):
            return self._open()
        if self._posts:
            self._look_consumed()
        while self._posts and len(self._writing) < GROUP_MAX:
            self._take(self._posts.popleft())
        return "taken" if self._writing or self._written else None

    def _take(self, post: Post) -> None:
        entry = post.entry
        if isinstance(entry, RequestEntry) and not entry.anonymous:
            known = self._keys.digest_of(entry.key)
            if known is not None and known != entry.digest:
                self._written.append((post, "conflict"))
                return
            self._keys.add(entry.key, entry.digest)
        self._writing.append(post)

    def _open(self) -> str:
        """As a real door does: find what in the log is not processed yet."""
        self._hands.begin_job(self._faults.log_trouble("open log"))
        try:
            self._writer.open()
            find_pending(FOLDER, self._writer.durable, self._keys, self._hands)
        except StorageError as error:
            self._check(error)
            self._writer.close()
            self._keys = PendingKeys()
            return "open refused"
        finally:
            self._hands.begin_job()
        self._opened = True
        return "log opened"

    def _write(self) -> str:
        posts, self._writing = self._writing, []
        self._hands.begin_job(self._faults.log_trouble("append"))
        try:
            offset = self._append(posts)
        except StorageError as error:
            self._check(error)
            for post in posts:
                self._forget(post)
                self._written.append((post, "refused"))
            return "write refused"
        finally:
            self._hands.begin_job()
        for post in posts:
            if isinstance(post.entry, RequestEntry) and not post.entry.anonymous:
                self._keys.written(post.entry.key, post.entry.digest, offset)
            self._written.append((post, "taken"))
        for bell in self._bells:
            bell.rings += 1
        return "intake written"

    def _check(self, error: StorageError) -> None:
        if not has_reason(error, self._machine):
            raise error

    def _forget(self, post: Post) -> None:
        if isinstance(post.entry, RequestEntry) and not post.entry.anonymous:
            self._keys.remove(post.entry.key)

    def _append(self, posts: list[Post]) -> int:
        return self._writer.append([(slot_of_entry(post.entry), encode_entry(post.entry)) for post in posts])

    def _look_consumed(self) -> None:
        """Complete checkpoints may have read further."""
        mark = load_mark(FOLDER / CONSUMED, self._hands)
        if mark is not None:
            self._keys.consumed(mark.offset)

    def kill(self) -> list[Post]:
        """SIGKILL: perhaps in the middle of a write. The posts that nobody will answer."""
        chance = self._faults.detail
        if chance.random() < 0.7:
            self._hands.begin_job(dies_at=chance.randint(1, JOB_STEPS["append" if self._opened else "open log"]))
            with suppress(ProcessDeath, StorageError):
                if not self._opened:
                    self._writer.open()
                elif self._writing:
                    self._append(self._writing)
        self._hands.kill()
        return [*(post for post, _ in self._written), *self._writing, *self._posts]
