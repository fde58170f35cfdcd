"""The keys of requests that are in a log and perhaps not processed yet: so that a door can refuse a key's second use at once."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from shardfun.errors import ProtocolError
from shardfun.intake.entries import RequestEntry, decode_entry
from shardfun.intake.log import CONSUMED
from shardfun.intake.log_disk import REAL_LOG_DISK, LogDisk
from shardfun.intake.log_files import load_mark, scan, segments


class PendingKeys:
    """Keys with the digest of their first request. Bounded by the log, whose backlog has a limit."""

    def __init__(self) -> None:
        self._digests: dict[str, bytes] = {}
        self._ends: dict[str, int] = {}
        """Of the last request of each key in the log, in its order."""
        self._waiting: dict[str, int] = {}
        """How many requests of a key wait for the disk."""

    def __len__(self) -> int:
        return len(self._digests)

    def digest_of(self, key: str) -> bytes | None:
        """The digest of a key; ``None``: it is not here."""
        return self._digests.get(key)

    def add(self, key: str, digest: bytes) -> None:
        """A request is about to be written. The first digest of a key stays: the other request will be told of the conflict."""
        self._digests.setdefault(key, digest)
        self._waiting[key] = self._waiting.get(key, 0) + 1

    def written(self, key: str, digest: bytes, end: int) -> None:
        """A request of ``add`` stands in the log before ``end``."""
        if self._ends.pop(key, None) is None:
            self._digests[key] = digest  # the one that was first may have failed
        self._ends[key] = end
        self._done(key)

    def remove(self, key: str) -> None:
        """A request of ``add`` was not written."""
        self._done(key)

    def consumed(self, offset: int) -> None:
        """Complete checkpoints have read up to ``offset``: what is before it is known to the functions."""
        while self._ends:
            key, end = next(iter(self._ends.items()))
            if end > offset:
                return
            del self._ends[key]
            self._forget(key)

    def _done(self, key: str) -> None:
        left = self._waiting.pop(key) - 1
        if left:
            self._waiting[key] = left
        self._forget(key)

    def _forget(self, key: str) -> None:
        if key not in self._waiting and key not in self._ends:
            del self._digests[key]


def find_pending(folder: Path, durable: int, keys: PendingKeys, disk: LogDisk = REAL_LOG_DISK) -> int:
    """Add the keys that are in a log and perhaps not processed yet; up to where complete checkpoints have read it for certain.

    Args:
        durable: where the log ends.

    Raises:
        CorruptionError: the log is damaged.
        StorageError: it cannot be read.
    """
    mark = load_mark(folder / CONSUMED, disk)
    consumed = 0 if mark is None else min(mark.offset, durable)
    starts = segments(folder, disk)
    begin = max(consumed, starts[0]) if starts else consumed
    for item in scan(folder, begin, durable, disk):
        with suppress(ProtocolError):  # the shard that it is for will say so
            entry = decode_entry(item.content)
            if isinstance(entry, RequestEntry) and not entry.anonymous:
                keys.add(entry.key, entry.digest)
                keys.written(entry.key, entry.digest, item.end)
    return consumed
