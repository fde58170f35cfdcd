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
from shardfun.simulation.files import ProcessDeath
from shardfun.simulation.log_disk import LogHands, LogMachine
from shardfun.simulation.trace import Trace

WHO = "door"
FOLDER = Path("/data/intake/http")
SEGMENT_BYTES = 1_500  # small, so that there are many
STEPS_OF_APPEND = 7
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
        machine: LogMachine,
        bells: list[SimulatedBell],
        faults: Faults,
        trace: Trace,
    ) -> None:
        self._hands = LogHands(machine)
        self._bells = bells
        self._faults = faults
        self._trace = trace
        self._writer = LogWriter(FOLDER, SEGMENT_BYTES, self._hands)
        self._opened = False
        self._keys = PendingKeys()
        self._posts: deque[Post] = deque()
        self._writing: list[Post] = []
        self._written: deque[tuple[Post, str]] = deque()

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
        self._hands.fails = self._faults.log_trouble(STEPS_OF_APPEND)
        try:
            self._writer.open()
        except StorageError as error:
            if error.errno is None:
                raise
            return "open refused"
        finally:
            self._hands.fails = None
        self._opened = True
        find_pending(FOLDER, self._writer.durable, self._keys, self._hands)
        return "log opened"

    def _write(self) -> str:
        posts, self._writing = self._writing, []
        self._hands.fails = self._faults.log_trouble(STEPS_OF_APPEND)
        try:
            offset = self._append(posts)
        except StorageError:
            for post in posts:
                self._forget(post)
                self._written.append((post, "refused"))
            return "write refused"
        finally:
            self._hands.fails = None
        for post in posts:
            if isinstance(post.entry, RequestEntry) and not post.entry.anonymous:
                self._keys.written(post.entry.key, post.entry.digest, offset)
            self._written.append((post, "taken"))
        for bell in self._bells:
            bell.rings += 1
        return "intake written"

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
        if self._writing and self._opened and self._faults.detail.random() < 0.7:
            self._hands.dies_in = self._faults.detail.randrange(STEPS_OF_APPEND)
            with suppress(ProcessDeath, StorageError):
                self._append(self._writing)
        self._hands.kill()
        return [*(post for post, _ in self._written), *self._writing, *self._posts]
