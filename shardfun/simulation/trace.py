"""The trace of a run: one line per event, a digest over all of them, and the last ones for a report.

Two runs of one seed must have the same digest, whatever the hash seed of the interpreter: the core is deterministic, or the
simulator could not repeat a failure.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable

LAST_EVENTS = 60
HEADER = f"{'step':>7} {'time':>9}  {'who':<10} {'event':<14} detail"


class Trace:
    """See the module.

    Args:
        out: called with each line; ``None``: nobody reads along.
    """

    def __init__(self, out: Callable[[str], None] | None = None) -> None:
        self.step = 0
        self.now = 0.0
        """Virtual seconds."""
        self.events = Counter[str]()
        self._out = out
        self._last: deque[str] = deque(maxlen=LAST_EVENTS)
        self._hasher = hashlib.blake2b(digest_size=16)

    def note(self, who: str, event: str, detail: str = "") -> None:
        """Something has happened."""
        line = f"{self.step:>7} {self.now:>9.3f}  {who:<10} {event:<14} {detail}".rstrip()
        self._hasher.update(line.encode())
        self._last.append(line)
        self.events[event] += 1
        if self._out is not None:
            self._out(line)

    @property
    def digest(self) -> str:
        """Of everything noted so far."""
        return self._hasher.hexdigest()

    @property
    def last(self) -> list[str]:
        """The last events, oldest first."""
        return list(self._last)
