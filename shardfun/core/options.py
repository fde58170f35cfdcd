"""How a function type runs and fails, as its author declared it. Plain values; what they mean is decided in the core.

Times are whole milliseconds in the core, because a stored deadline has to be the same number on every machine.
"""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass
from typing import Literal

from shardfun.errors import DefinitionError

Style = Literal["plain", "async", "blocking"]
ATTEMPTS_MAX = 1_000_000
EXPIRY_MS_MAX = 1 << 45  # a thousand years: a deadline stays far below 64 bits


def milliseconds(duration: dt.timedelta | float, what: str) -> int:
    """A duration as whole milliseconds, rounded up.

    Args:
        duration: a timedelta, or seconds.
        what: names the place in an error.

    Raises:
        DefinitionError: it is negative, or too long, or no duration.
    """
    if isinstance(duration, dt.timedelta):
        seconds = duration.total_seconds()
    elif isinstance(duration, (int, float)) and not isinstance(duration, bool):
        seconds = float(duration)
    else:
        msg = f"{what}: expected a timedelta or seconds, got {duration!r:.100}"
        raise DefinitionError(msg)
    if not 0 <= seconds <= EXPIRY_MS_MAX / 1000:
        msg = f"{what}: expected 0 to {EXPIRY_MS_MAX // 1000} seconds, got {seconds!r}"
        raise DefinitionError(msg)
    return -int(-seconds * 1000 // 1)


class ExpiryMode(enum.Enum):
    """What starts the time to live anew."""

    AFTER_WRITE = "after_write"
    AFTER_ACCESS = "after_access"


@dataclass(frozen=True, slots=True)
class Expiry:
    """When a state value goes back to its default by itself.

    Args:
        ttl_ms: how long it lives, at least 1.
    """

    mode: ExpiryMode
    ttl_ms: int

    def is_renewed_by_read(self, deadline_ms: int | None, now_ms: int) -> bool:
        """Whether a read at ``now_ms`` puts off the end (``deadline_ms``; ``None``: not set yet)."""
        return self.mode is ExpiryMode.AFTER_ACCESS and is_worth_moving(deadline_ms, self.ttl_ms, now_ms)


def is_worth_moving(deadline_ms: int | None, ttl_ms: int, now_ms: int) -> bool:
    """Whether a deadline would move by more than a sixteenth of the time to live: else every read would be a write."""
    return deadline_ms is None or (now_ms + ttl_ms - deadline_ms) * 16 > ttl_ms


@dataclass(frozen=True, slots=True)
class FailurePolicy:
    """What happens to a message whose function raises.

    Args:
        attempts: in all, at least 1. More than one begin again with what the first one saw.
        backoff_ms: pause before the second attempt, doubling up to ``backoff_max_ms``; 0: at once, in place. While an address
            waits its other messages wait too, and other addresses go on.
        then: after the last attempt, park the message as a dead letter, or let the shard fall back to the last checkpoint.
    """

    attempts: int = 1
    backoff_ms: int = 0
    backoff_max_ms: int = 0
    then: Literal["dead-letter", "restart"] = "dead-letter"

    def pause_ms(self, failed: int) -> int:
        """The pause after ``failed`` attempts (1 or more)."""
        return min(self.backoff_ms << min(failed - 1, 40), self.backoff_max_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionOptions:
    """What ``@app.function`` says besides name and signature.

    Args:
        style: ``plain`` runs to its end on the loop; ``async`` may await; ``blocking`` runs in a thread.
        asyncio: an ``async`` one that needs an asyncio event loop.
        timeout_ms: of one invocation, for ``async`` and ``blocking``.
        concurrency: invocations at once in one shard, for ``async`` and ``blocking``; ``None``: the limit of the shard.
        failure: ``None``: as configured for the node.
        expire_idle_ms: an instance is deleted after that long without a message.
    """

    style: Style = "plain"
    asyncio: bool = False
    timeout_ms: int | None = None
    concurrency: int | None = None
    failure: FailurePolicy | None = None
    expire_idle_ms: int | None = None


PLAIN_OPTIONS = FunctionOptions()
