"""The trace of a run: one line per event, a digest over all of them, and the last ones for a report.

Two runs of one seed must have the same digest, whatever the hash seed of the interpreter: the core is deterministic, or the
simulator could not repeat a failure.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

from shardfun.model.delta import checkpoint_name

LAST_EVENTS = 60
DISTURBANCES = frozenset(
    {
        "killed",
        "power loss",
        "pipe breaks",
        "stopped",
        "held up",
        "time passes",
        "clock is set",
        "bit flips",
        "disk full",
        "storage fails",
        "start refused",
        "sink goes down",
        "loss",
        "death",
    }
)
"""Events that have a mark in the line, so that the eye finds them."""
HEADER = f"{'step':>7} {'time':>9} {'inc':>4} {'checkpoint':<10} {'who':<10} {'event':<16} detail"


class Event(NamedTuple):
    """Something that has happened.

    Args:
        now: virtual seconds.
        incarnation: that ``who`` is in; 0: in none.
        checkpoint: of a shard the last that it has cut, of all others the newest that is complete.
        detail: a few words or nothing.
    """

    step: int
    now: float
    incarnation: int
    checkpoint: int
    who: str
    event: str
    detail: str

    def line(self) -> str:
        """With fixed columns, as ``HEADER`` names them."""
        mark = "!" if self.event in DISTURBANCES else " "
        where = f"{self.incarnation or '-':>4} {checkpoint_name(self.checkpoint):<10}"
        return f"{self.step:>7} {self.now:>9.3f} {where}{mark}{self.who:<10} {self.event:<16} {self.detail}".rstrip()


class Trace:
    """See the module.

    Args:
        out: called with each event; ``None``: nobody reads along.
        where: tells of somebody in which incarnation he is, and his newest checkpoint.
    """

    def __init__(
        self, out: Callable[[Event], None] | None = None, where: Callable[[str], tuple[int, int]] = lambda _who: (0, 0)
    ) -> None:
        self.step = 0
        self.now = 0.0
        """Virtual seconds."""
        self.events = Counter[str]()
        self._out = out
        self._where = where
        self._last: deque[Event] = deque(maxlen=LAST_EVENTS)
        self._hasher = hashlib.blake2b(digest_size=16)

    def note(self, who: str, event: str, detail: str = "") -> None:
        """Something has happened."""
        incarnation, checkpoint = self._where(who)
        happened = Event(self.step, self.now, incarnation, checkpoint, who, event, detail)
        # Of the same fields as the event: its ``repr`` takes four times as long.
        line = f"{self.step} {self.now!r} {incarnation} {checkpoint} {who} {event} {detail}\n"
        self._hasher.update(line.encode())
        self._last.append(happened)
        self.events[event] += 1
        if self._out is not None:
            self._out(happened)

    def aside(self, who: str, event: str, detail: str) -> None:
        """Something that only whoever reads along wants to know: the digest is the same without it."""
        happened = Event(self.step, self.now, *self._where(who), who, event, detail)
        self._last.append(happened)
        if self._out is not None:
            self._out(happened)

    @property
    def digest(self) -> str:
        """Of everything noted so far."""
        return self._hasher.hexdigest()

    @property
    def last(self) -> list[str]:
        """Lines of the last events, oldest first."""
        return [event.line() for event in self._last]
