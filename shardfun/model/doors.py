"""What passes through the doors of a shard: batches of ingress records in, positions of published egress records out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that could not be read: becomes a dead letter, the run goes on."""

    position: str
    reason: str
    raw: bytes


@dataclass(slots=True)
class IngressBatch:
    """Records in order. Either ``records`` (for a router, or a configured target), or ready columns ``ids`` and ``values``.

    Args:
        position: the reader's position *after* this batch; any CBOR value; stored in the checkpoint with the effects.
        scanned: how many records the reader looked at, its own and those of other partitions.
        place: where these records are in the source, for people who look for one that could not be routed.
    """

    position: Any
    records: list[Any] = field(default_factory=list)
    ids: list[str] | None = None
    values: list[Any] | None = None
    rejects: list[Reject] = field(default_factory=list)
    scanned: int = 0
    place: str = ""


@dataclass(frozen=True, slots=True)
class PublishedPosition:
    """How far an egress partition is known to be published: ``records`` in all and the sum of their ``bytes`` on the sink."""

    records: int
    bytes: int
