"""What a running node says of itself: the value behind ``shardfun status`` and the live progress display."""

from __future__ import annotations

from typing import Any

import msgspec


class FunctionStatus(msgspec.Struct, frozen=True):
    """One function type, in one shard or in all. ``others``: those behind the first 250 together.

    Counters are totals of the shard processes that live now: what is done again after a recovery counts again.

    Args:
        messages_in: messages taken up for processing, each once, however often it is tried.
        out_local: messages sent to addresses in the same shard; ``out_remote``: in other shards. A delayed one counts when due.
        out_egress: records emitted.
        invocations: runs of its code; ``failures``: those that raised; ``retries``: those that were not the first of a message.
        dead_letters: messages for it that were parked.
        backlog: messages that wait for it: in mailboxes, at busy addresses, in outboxes.
        blocked: addresses that are busy with a call, or wait for another attempt.
        calls: async and blocking invocations under way; ``operations``: under way, or waiting for room.
    """

    function: str
    messages_in: int = 0
    out_local: int = 0
    out_remote: int = 0
    out_egress: int = 0
    invocations: int = 0
    failures: int = 0
    retries: int = 0
    dead_letters: int = 0
    backlog: int = 0
    blocked: int = 0
    calls: int = 0
    operations: int = 0


class IngressStatus(msgspec.Struct, frozen=True):
    """One ingress in one shard: records read in the life of its process, and how many of these became dead letters."""

    ingress: str
    records: int = 0
    rejected: int = 0


class EgressStatus(msgspec.Struct, frozen=True):
    """One egress in one shard: records published in the life of its process, and those that wait for that now."""

    egress: str
    published: int = 0
    pending: int = 0
    pending_bytes: int = 0


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
    dirty_bytes: int = 0
    """Changed state that is not in a complete checkpoint yet."""
    cpu_s: float = 0.0
    """Processor time of the process."""
    running_s: float = 0.0
    """Time in which functions ran that do not await."""
    functions: list[FunctionStatus] = []
    ingress: list[IngressStatus] = []
    egress: list[EgressStatus] = []
    troubles: list[str] = []
    """What ingresses and egresses are failing with now, and try again."""


class CheckpointStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The last complete checkpoint, and how many there were."""

    checkpoint: int = 0
    name: str = "none"
    age_s: float = 0.0
    duration_ms: float = 0.0
    bytes: int = 0
    completed: int = 0
    aborted: int = 0
    duration_total_s: float = 0.0
    """Of all that this node has completed; so is ``bytes_total``."""
    bytes_total: int = 0


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
    functions: list[FunctionStatus] = []
    """Sums over all shards."""
    intake: dict[str, int] = {}
    """By owner of an intake log (``local``, ``http``): the offset up to which the last complete checkpoint has read it."""
    http: str = ""
    """Where the HTTP door answers, such as ``http://127.0.0.1:8484``; empty: there is none."""
