"""When a process counts as dead although it has not exited: silent, stuck in user code, or never done with its start."""

from __future__ import annotations

from typing import NamedTuple

from shardfun.config.schema import SupervisionConfig
from shardfun.core.poison import Cause
from shardfun.supervisor.pool import ShardHandle


class Overdue(NamedTuple):
    """Why a process has to be killed, and what that says of the messages that were under way."""

    reason: str
    cause: Cause


def overdue(handle: ShardHandle, limits: SupervisionConfig, now: float, *, restoring: bool) -> Overdue | None:
    """Why a process has to be killed; ``None`` if it need not.

    A function that runs for long is neither dead nor silent: the heartbeat comes from a thread and names it. Spares send
    heartbeats, too, and so does a shard that restores.

    Args:
        now: seconds on the clock of ``handle.heard_at``.
        restoring: it was told to restore and has not answered.
    """
    silent, beat = now - handle.heard_at, handle.beat
    if handle.warmed.is_set() and silent > limits.heartbeat_timeout_s:
        return Overdue(f"no heartbeat for {silent:.1f} s", Cause.OUTSIDE)
    if beat is not None and beat.running and beat.loop_age_s > limits.invocation_timeout_s:
        ran = f"{beat.running} has run for {beat.loop_age_s:.0f} s (supervision.invocation_timeout)"
        return Overdue(ran, Cause.INSIDE)
    if restoring and now - handle.reset_at > limits.start_timeout_s:
        return Overdue(f"not restored after {limits.start_timeout_s:g} s (supervision.start_timeout)", Cause.EXPLAINED)
    return None
