"""What the core asks its driver to do. A closed union: the driver and the simulator match on all of it."""

from __future__ import annotations

from dataclasses import dataclass

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


Effect = SendControl | WriteDelta | DeleteDelta | ApplyDelta
