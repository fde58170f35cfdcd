"""What a node says of itself, and how another process asks."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec.structs import astuple

from shardfun.config.schema import Config
from shardfun.core.coordinator import Coordinator, State
from shardfun.core.membership import Member
from shardfun.errors import UnavailableError
from shardfun.mesh.door import ask
from shardfun.model.delta import checkpoint_name
from shardfun.model.questions import STATUS
from shardfun.model.status import CheckpointStatus, EgressStatus, FunctionStatus, IngressStatus, NodeStatus, ShardStatus
from shardfun.supervisor.ask import door_of
from shardfun.supervisor.pool import ShardHandle

LONG_RUN_S = 1.0  # a function that runs for longer is named

_SHARD_STATES = {
    Member.VACANT: "starting",
    Member.ASSIGNED: "starting",
    Member.RESTORING: "restoring",
    Member.READY: "ready",
    Member.RUNNING: "running",
}


def shard_status(shard: int, handle: ShardHandle | None, coordinator: Coordinator, now: float) -> ShardStatus:
    """One shard, from its last heartbeat."""
    membership = coordinator.membership
    state = _SHARD_STATES[membership.members[shard]]
    restarts = membership.deaths[shard]
    if handle is None:
        return ShardStatus(shard=shard, pid=0, state="dead" if restarts else state, restarts=restarts)
    beat = handle.beat
    if beat is None:
        return ShardStatus(shard=shard, pid=handle.pid, state=state, restarts=restarts)
    long_run = f"{beat.running} for {beat.loop_age_s:.1f} s" if beat.running and beat.loop_age_s > LONG_RUN_S else ""
    return ShardStatus(
        shard=shard,
        pid=handle.pid,
        state=state,
        incarnation=beat.incarnation,
        applied=coordinator.complete,
        restarts=restarts,
        records_in=beat.records_in,
        invocations=beat.invocations,
        emitted=beat.emitted,
        published=beat.published,
        backlog=beat.backlog,
        dead_letters=beat.dead_letters,
        cached_bytes=beat.cached_bytes,
        resident_bytes=beat.resident_bytes,
        heartbeat_age_s=now - handle.heard_at,
        running=long_run,
        resumed_at=beat.resumed_at,
        calls=beat.calls,
        blocked=beat.blocked,
        timers=beat.timers,
        metrics=beat.metrics,
        dirty_bytes=beat.dirty_bytes,
        cpu_s=beat.cpu_s,
        running_s=beat.running_s,
        functions=[FunctionStatus(*row) for row in beat.functions],
        ingress=[IngressStatus(*row) for row in beat.ingress],
        egress=[EgressStatus(*row) for row in beat.egress],
        troubles=beat.troubles,
    )


def finished_status(shard: int, handle: ShardHandle, coordinator: Coordinator, now: float) -> ShardStatus:
    """A shard that has published everything and ended: the last figures it sent."""
    return msgspec.structs.replace(shard_status(shard, handle, coordinator, now), state="finished", pid=0, resident_bytes=0)


def _checkpoint_status(coordinator: Coordinator, now: float) -> CheckpointStatus:
    """The last complete checkpoint."""
    statistics = coordinator.statistics
    return CheckpointStatus(
        checkpoint=coordinator.complete,
        name=checkpoint_name(coordinator.complete),
        age_s=0.0 if statistics.last_completed_at is None else now - statistics.last_completed_at,
        duration_ms=statistics.last_duration * 1000,
        bytes=statistics.last_bytes,
        completed=statistics.completed,
        aborted=statistics.aborted,
        duration_total_s=statistics.total_duration,
        bytes_total=statistics.total_bytes,
    )


def functions_of_all(shards: Iterable[ShardStatus]) -> list[FunctionStatus]:
    """The sums over all shards, in the order met."""
    rows: dict[str, list[int]] = {}
    for shard in shards:
        for found in shard.functions:
            name, *figures = astuple(found)
            rows[name] = [one + more for one, more in zip(rows.get(name, [0] * len(figures)), figures, strict=True)]
    return [FunctionStatus(name, *figures) for name, figures in rows.items()]


def _node_state(coordinator: Coordinator) -> str:
    """The node's state in one word."""
    if coordinator.state is State.RECOVERING:
        return "recovering" if coordinator.statistics.recoveries else "starting"
    if coordinator.state is State.FINISHING:
        return "finishing"
    return "stopping" if coordinator.stopping else "running"


def node_status(
    config: Config, coordinator: Coordinator, shards: list[ShardStatus], spares: int, outcome: str, uptime_s: float, now: float
) -> NodeStatus:
    """The whole node.

    Args:
        outcome: how the node has ended; empty while it runs.
        now: seconds on the coordinator's clock.
    """
    statistics = coordinator.statistics
    last_recovery = statistics.last_recovery if statistics.recoveries else None
    return NodeStatus(
        name=config.name,
        app=config.app,
        data_dir=str(config.data_dir),
        pid=os.getpid(),
        state=outcome or _node_state(coordinator),
        incarnation=coordinator.incarnation,
        uptime_s=uptime_s,
        recoveries=statistics.recoveries,
        shards=shards,
        checkpoint=_checkpoint_status(coordinator, now),
        records_in=sum(shard.records_in for shard in shards),
        invocations=sum(shard.invocations for shard in shards),
        emitted=sum(shard.emitted for shard in shards),
        published=sum(shard.published for shard in shards),
        dead_letters=sum(shard.dead_letters for shard in shards),
        spares=spares,
        last_recovery_ms=None if last_recovery is None else last_recovery * 1000,
        last_fault=statistics.last_fault,
        functions=functions_of_all(shards),
    )


def query_status(data_dir: Path, timeout_s: float = 2.0) -> NodeStatus:
    """The status of the node that runs on a data directory, from another process.

    Raises:
        UnavailableError: no node runs there, or it does not answer in time.
    """
    url = door_of(data_dir)
    deadline = time.monotonic() + timeout_s
    raw = ask(url, STATUS, max(0.01, deadline - time.monotonic()))
    try:
        return msgspec.json.decode(raw, type=NodeStatus)
    except msgspec.DecodeError as error:
        msg = f"the node on {data_dir} answers something else than a status: {error}; is it of another version?"
        raise UnavailableError(msg) from error
