"""What one shard contributes to one checkpoint, as values: no files here (``shardfun.state`` writes and reads them)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

CHECKPOINT_SEQUENCE_BITS = 32


def checkpoint_id(incarnation: int, sequence: int) -> int:
    """``(incarnation << 32) | sequence``: never used twice, not even after an abort or a restart."""
    return (incarnation << CHECKPOINT_SEQUENCE_BITS) | sequence


def checkpoint_name(checkpoint: int) -> str:
    """For people and logs: ``incarnation.sequence``, such as ``3.17``; 0 (before the first checkpoint) is ``none``."""
    if checkpoint == 0:
        return "none"
    return f"{checkpoint >> CHECKPOINT_SEQUENCE_BITS}.{checkpoint & ((1 << CHECKPOINT_SEQUENCE_BITS) - 1)}"


class RecordBlock(NamedTuple):
    """Changed keys and their new values, of equal length, in the order of the keys; ``None`` deletes the key."""

    keys: list[bytes]
    values: list[bytes | None]


@dataclass(frozen=True, slots=True)
class DeltaHeader:
    """Identifies a delta file and chains it to the one it builds on.

    Args:
        job: the data directory's job id (32 hex digits).
        shard: 0-based; ``shards`` is their number, ``slots`` the half-open slot range.
        checkpoint: the id this delta belongs to; ``parent`` the complete checkpoint it builds on (0: none).
        parent_digest: digest of this shard's delta of ``parent`` (empty when ``parent`` is 0).
    """

    job: str
    shard: int
    shards: int
    slots: tuple[int, int]
    incarnation: int
    checkpoint: int
    parent: int
    parent_digest: bytes


@dataclass(frozen=True, slots=True)
class DeltaSummary:
    """What the coordinator's manifest says of one delta: enough to find damage and to show sizes."""

    digest: bytes
    bytes: int
    records: int


@dataclass(frozen=True, slots=True)
class StoredDelta:
    """A delta as read back; ``queues`` is the core's encoding of mailbox, outboxes, logs, positions and egress numbers."""

    header: DeltaHeader
    summary: DeltaSummary
    blocks: list[RecordBlock]
    queues: bytes
