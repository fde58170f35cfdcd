"""``Intake``: takes messages in durably, and waits for replies. One for each process that does (an *owner*)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import trio

from shardfun.intake.entries import Entry, Reply, RequestEntry

SEGMENT_BYTES = 16 << 20


class Intake:
    """See the module.

    Args:
        owner: ``local`` or ``http``.
        folder: of the log, ``DATA_DIR/intake/OWNER``; made with the first entry.
        runtime_dir: where the sockets of the node are.
        shards: how many have to be told of new entries.
        backlog_bytes: entries in the log that no complete checkpoint has read, at most.
        segment_bytes: size of a file of the log, about.
        entry_bytes_max: the longest entry.
    """

    def __init__(
        self,
        owner: str,
        folder: Path,
        runtime_dir: Path,
        shards: int,
        *,
        backlog_bytes: int,
        segment_bytes: int = SEGMENT_BYTES,
        entry_bytes_max: int,
    ) -> None:
        raise NotImplementedError

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what is appended and listen for replies, until cancelled; then release everything.

        Raises:
            CorruptionError, StorageError, DirectoryInUseError: the log cannot be opened.
        """
        raise NotImplementedError

    async def append(self, entries: Sequence[Entry]) -> None:
        """Append entries, in order and next to each other. They are durable when it returns.

        If it is cancelled, they are in the log or not.

        Raises:
            BacklogFullError: nothing was appended; ``retry_after_s`` tells when to try again.
            PayloadTypeError: an entry is too long, or cannot be encoded.
            StorageError: nothing was appended: the disk is full or failed.
        """
        raise NotImplementedError

    async def ask(self, entry: RequestEntry) -> Reply:
        """Append a request and wait for its reply. Cancelling stops the waiting, not the request.

        Raises:
            BacklogFullError, PayloadTypeError, StorageError: as ``append``.
        """
        raise NotImplementedError

    def digest_of(self, key: str) -> bytes | None:
        """The digest of the request with this key that is in the log and perhaps not yet processed; ``None``: there is none."""
        raise NotImplementedError

    def consumed(self, offset: int) -> None:
        """Complete checkpoints have read up to here. (The log looks by itself, too, before it says that it is full.)"""
        raise NotImplementedError

    @property
    def backlog_bytes_now(self) -> int:
        """Bytes of entries that no complete checkpoint has read."""
        raise NotImplementedError
