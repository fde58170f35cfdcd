"""What a test gets to see: effects of one invocation, dead letters, errors of the test kit itself."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from shardfun.model.address import Address


class NotQuietError(AssertionError):
    """A local node does not come to rest, or waits for something that will never come. The message says what for."""


class Sent(NamedTuple):
    """A message that was sent with ``send`` or ``reply``."""

    target: Address
    value: Any


class Delayed(NamedTuple):
    """A message that was sent with ``send_after``. ``delay``: from the end of the invocation; ``token``: empty for none."""

    delay: dt.timedelta
    target: Address
    value: Any
    token: str


class Emitted(NamedTuple):
    """A record that was emitted."""

    egress: str
    value: Any


class StartedOperation(NamedTuple):
    """An operation that was started. It does not run: give the function its result with ``receive``."""

    function: Any
    arguments: tuple[Any, ...]
    metadata: Any


@dataclass(frozen=True, slots=True)
class Result:
    """What one invocation did, in order within each list. All lists are empty if it failed: then nothing of it happens.

    Args:
        cancelled: tokens of ``cancel``.
        logs: what was logged with ``ctx.log``, as dicts with ``event`` and ``log_level``; also if it failed.
        error: what the function raised.
    """

    sent: list[Sent] = field(default_factory=list)
    delayed: list[Delayed] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    emitted: list[Emitted] = field(default_factory=list)
    operations: list[StartedOperation] = field(default_factory=list)
    logs: list[dict[str, Any]] = field(default_factory=list)
    error: BaseException | None = None
