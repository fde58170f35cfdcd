"""What may be said of a function or a value beside its type: how it fails, how long it lives.

@app.function("shop/pay", on_failure=retry(attempts=5, backoff=0.1), expire_idle=timedelta(days=30))

class Cart(State):
    items: Value[int] = value(0, expire=after_write(days=7))
"""

from __future__ import annotations

import datetime as dt
from typing import Literal

from shardfun.core.options import ATTEMPTS_MAX, Expiry, ExpiryMode, FailurePolicy, milliseconds
from shardfun.errors import DefinitionError


def retry(
    *,
    attempts: int,
    backoff: dt.timedelta | float = 0.0,
    backoff_max: dt.timedelta | float = 60.0,
    then: Literal["dead-letter", "restart"] = "dead-letter",
) -> FailurePolicy:
    """Try a message that raised again, then give up.

    Args:
        attempts: in all, the first one included.
        backoff: pause before the second attempt (timedelta or seconds); it doubles each time, up to ``backoff_max``. 0: at
            once. While an address waits, its other messages wait behind it; other addresses go on.
        then: when all attempts have failed, park the message (``"dead-letter"``), or fall back to the last checkpoint and
            run everything since then again (``"restart"``).

    Raises:
        DefinitionError: an argument is out of range.
    """
    if type(attempts) is not int or not 1 <= attempts <= ATTEMPTS_MAX:
        msg = f"retry(attempts=...): expected a number from 1 to {ATTEMPTS_MAX}, got {attempts!r}"
        raise DefinitionError(msg)
    if then not in {"dead-letter", "restart"}:
        msg = f"retry(then=...): expected 'dead-letter' or 'restart', got {then!r}"
        raise DefinitionError(msg)
    first = milliseconds(backoff, "retry(backoff=...)")
    return FailurePolicy(attempts, first, max(first, milliseconds(backoff_max, "retry(backoff_max=...)")), then)


def dead_letter() -> FailurePolicy:
    """Park a message that raised, at once."""
    return FailurePolicy()


def restart() -> FailurePolicy:
    """Fall back to the last checkpoint when a message raises, as Stateful Functions does: for failures that pass by themselves.

    One that does not pass stops the node in the end (``supervision.restarts_without_checkpoint``).
    """
    return FailurePolicy(then="restart")


def after_write(
    duration: dt.timedelta | None = None, /, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
) -> Expiry:
    """Go back to the default that long after the last write.

    Raises:
        DefinitionError: the duration is not positive.
    """
    return _expiry(ExpiryMode.AFTER_WRITE, duration, dt.timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds))


def after_access(
    duration: dt.timedelta | None = None, /, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
) -> Expiry:
    """Go back to the default that long after the last read or write.

    A read moves the end only when that is worth a write: by more than a sixteenth of the duration.

    Raises:
        DefinitionError: the duration is not positive.
    """
    return _expiry(ExpiryMode.AFTER_ACCESS, duration, dt.timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds))


def _expiry(mode: ExpiryMode, duration: dt.timedelta | None, parts: dt.timedelta) -> Expiry:
    what = f"{mode.value}(...)"
    ttl_ms = milliseconds(parts if duration is None else duration, what)
    if ttl_ms < 1 or (duration is not None and parts):
        msg = f"{what}: expected one positive duration: a timedelta, or days=, hours=, minutes=, seconds="
        raise DefinitionError(msg)
    return Expiry(mode, ttl_ms)
