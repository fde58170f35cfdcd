"""What the core asks its driver to do. A closed union: the driver and the simulator match on all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from shardfun.model.control import ToSupervisor
from shardfun.model.delta import DeltaHeader, RecordBlock


@dataclass(frozen=True, slots=True)
class SendControl:
    """Send a message to the supervisor."""

    message: ToSupervisor


@dataclass(frozen=True, slots=True)
class WriteDelta:
    """Write a delta durably, then call ``delta_written`` or ``delta_failed``."""

    header: DeltaHeader
    blocks: list[RecordBlock]
    queues: bytes


@dataclass(frozen=True, slots=True)
class DeleteDelta:
    """Delete the delta of an aborted checkpoint, if it was written; in order with the writes."""

    checkpoint: int


@dataclass(frozen=True, slots=True)
class ApplyDelta:
    """Put a complete checkpoint into the store, then call ``delta_applied``.

    ``end``: also find the addresses that are stored then, for ``on_end``.
    """

    checkpoint: int
    blocks: list[RecordBlock]
    end: bool


Style = Literal["async", "blocking"]


@dataclass(frozen=True, slots=True)
class StartCall:
    """Run user code beside the loop, then call ``call_done`` with its number and result, or what it raised.

    Args:
        what: whose code, for people.
        style: ``async``: ``run`` gives a coroutine to await; ``blocking``: ``run`` is called in a thread.
        timeout_ms: after which it counts as failed with ``FunctionTimeoutError``.
        asyncio: the coroutine needs an asyncio event loop.
    """

    number: int
    what: str
    style: Style
    run: Callable[[], Any]
    timeout_ms: int | None
    asyncio: bool


Effect = SendControl | WriteDelta | DeleteDelta | ApplyDelta | StartCall
