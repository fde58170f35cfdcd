"""What happened in a run, one line per event with its virtual time: for a person to read, and as a digest to compare two runs."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import structlog
import trio

LINES_KEPT: Final = 400
LINE_MAX: Final = 260
NOT_SHOWN: Final = frozenset({"timestamp", "level", "exc_info", "took_ms", "pid", "shard"})

who: Final[ContextVar[str]] = ContextVar("shells_who", default="world")
"""Whose task runs: ``world``, ``supervisor``, or a shard process."""


class Trace:
    """See the module."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=LINES_KEPT)
        self.events = 0
        self._hash = hashlib.sha256()

    def add(self, event: str, **fields: Any) -> None:
        """One event of whoever runs now."""
        shown = " ".join(f"{name}={value}" for name, value in fields.items() if name not in NOT_SHOWN)
        line = f"{trio.current_time():12.6f}  {who.get():<12}  {event} {shown}"[:LINE_MAX].rstrip()
        self.lines.append(line)
        self.events += 1
        self._hash.update(line.encode())

    def mix(self, number: int) -> None:
        """Something that is in the digest only."""
        self._hash.update(b"%.9f %d" % (trio.current_time(), number))

    @property
    def digest(self) -> str:
        """Of all lines, and of when which frame arrived at a shard."""
        return self._hash.hexdigest()

    @contextmanager
    def of_logs(self) -> Iterator[None]:
        """Within it, what supervisor and shards log is in the trace, and nowhere else."""

        def take(_logger: Any, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
            text = str(event.pop("event"))
            error = event.pop("exc_info", None)
            if isinstance(error, BaseException):
                event["raised"] = repr(error)
            self.add(f"[{level}] {text}", **event)
            raise structlog.DropEvent

        before = structlog.get_config()
        structlog.configure(
            processors=[take], wrapper_class=structlog.make_filtering_bound_logger(10), cache_logger_on_first_use=False
        )
        try:
            yield
        finally:
            structlog.configure(**before)

    def __str__(self) -> str:
        return "\n".join(self.lines)
