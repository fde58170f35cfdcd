"""What happened in a local node: a digest over all of it, and the last events for a diagnosis."""

from __future__ import annotations

import hashlib
from collections import deque

LAST_EVENTS = 30


class Trace:
    """See the module."""

    def __init__(self) -> None:
        self.events = 0
        self._last: deque[str] = deque(maxlen=LAST_EVENTS)
        self._hasher = hashlib.blake2b(digest_size=16)

    def note(self, line: str) -> None:
        """Something has happened."""
        self.events += 1
        self._hasher.update(line.encode())
        self._hasher.update(b"\n")
        self._last.append(line)

    @property
    def digest(self) -> str:
        """Of everything noted so far: equal for equal runs."""
        return self._hasher.hexdigest()

    @property
    def last(self) -> list[str]:
        """The last events, oldest first."""
        return list(self._last)
