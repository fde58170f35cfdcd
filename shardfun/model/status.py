"""What a running node says of itself: the value behind ``shardfun status`` and the live progress display."""

from __future__ import annotations

from typing import Any

import msgspec


class ShardStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One shard's figures. Counters are totals of the surviving history: they move back with a recovery."""

    shard: int
    pid: int
    state: str
    """``starting``, ``restoring``, ``ready``, ``running``, ``finished`` or ``dead``."""
    incarnation: int = 0
    applied: int = 0
    restarts: int = 0
    records_in: int = 0
    invocations: int = 0
    emitted: int = 0
    published: int = 0
    backlog: int = 0
    dead_letters: int = 0
    cached_bytes: int = 0
    resident_bytes: int = 0
    heartbeat_age_s: float = 0.0
    running: str = ""
    """The function type that runs now, and since when, if it has run for longer than a heartbeat."""
    resumed_at: float = 0.0
    """Unix time of the first invocation in this incarnation, 0 before."""
    calls: int = 0
    """Async and blocking functions and operations under way."""
    blocked: int = 0
    """Addresses that are busy with one of these, or wait for another attempt."""
    timers: int = 0
    """Messages that are to be sent later."""
    metrics: list[list[Any]] = []
    """What functions count themselves: ``[typename, name, kind, value]``; the value of a histogram is ``[sum, counts]``."""


class CheckpointStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The last complete checkpoint, and how many there were."""

    checkpoint: int = 0
    name: str = "none"
    age_s: float = 0.0
    duration_ms: float = 0.0
    bytes: int = 0
    completed: int = 0
    aborted: int = 0


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The whole node."""

    name: str
    app: str
    data_dir: str
    pid: int
    state: str
    """``starting``, ``recovering``, ``running``, ``finishing``, ``stopping``, ``finished`` or ``stopped``."""
    incarnation: int
    uptime_s: float
    recoveries: int
    shards: list[ShardStatus]
    checkpoint: CheckpointStatus
    records_in: int = 0
    """Records read from all ingresses, as of now (last reports of the shards)."""
    records_total: int | None = None
    invocations: int = 0
    emitted: int = 0
    published: int = 0
    dead_letters: int = 0
    spares: int = 0
    """Processes that wait with the application imported, to replace a dead shard."""
    last_recovery_ms: float | None = None
    last_fault: str = ""
    notes: list[str] = []
    """What could not be restored when the shards last started."""
