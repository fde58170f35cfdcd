"""What is known about failpoints: whose step it is, what it is, when it comes. For plans, and for ``--failpoint list``."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from shardfun.failpoints import Point

Role = Literal["shard", "supervisor"]
When = Literal["checkpoint", "recovery", "publishing", "end"]


class Step(NamedTuple):
    """One failpoint.

    Args:
        role: the process that takes the step.
        when: in a checkpoint, in a recovery (or start), when there are records to publish, at the end of a bounded run.
        peers: whether it needs a second shard.
    """

    role: Role
    when: When
    what: str
    peers: bool = False


STEPS: Final = MappingProxyType(
    {
        Point.CUT_MADE: Step("shard", "checkpoint", "the cut is made, no barrier is sent"),
        Point.BARRIER_SENT: Step("shard", "checkpoint", "a barrier was handed to the transport", peers=True),
        Point.BARRIER_RECEIVED: Step("shard", "checkpoint", "a barrier has arrived and had its effect", peers=True),
        Point.DELTA_WRITTEN: Step("shard", "checkpoint", "the delta is written to its temporary file, not fsynced"),
        Point.DELTA_SYNCED: Step("shard", "checkpoint", "the delta is fsynced, not renamed"),
        Point.DELTA_RENAMED: Step("shard", "checkpoint", "the delta is renamed, its folder not fsynced"),
        Point.DELTA_DURABLE: Step("shard", "checkpoint", "the delta is durable, nobody knows"),
        Point.PREPARED_SENT: Step("shard", "checkpoint", "PREPARED was handed to the transport"),
        Point.APPLY_CHUNK: Step("shard", "checkpoint", "in front of or between two chunks that are applied to LevelDB"),
        Point.APPLIED: Step("shard", "checkpoint", "the checkpoint is applied, nobody knows"),
        Point.PUBLISHING: Step("shard", "publishing", "records are to be given to a sink"),
        Point.PUBLISHED: Step("shard", "publishing", "a sink has the records, the shard does not know"),
        Point.SINK_PROGRESS: Step("shard", "publishing", "the shard knows how far a sink is"),
        Point.RESET: Step("shard", "recovery", "RESET has arrived"),
        Point.RECOVERED: Step("shard", "recovery", "the store is at the complete checkpoint"),
        Point.READY_SENT: Step("shard", "recovery", "READY was handed to the transport"),
        Point.STARTED: Step("shard", "recovery", "the shard runs again"),
        Point.FINISH: Step("shard", "end", "FINISH has arrived"),
        Point.TRIGGER_SENT: Step("supervisor", "checkpoint", "a TRIGGER was handed to the transport"),
        Point.MANIFEST_WRITTEN: Step("supervisor", "checkpoint", "the manifest is written to its temporary file, not fsynced"),
        Point.MANIFEST_SYNCED: Step("supervisor", "checkpoint", "the manifest is fsynced, not renamed"),
        Point.MANIFEST_RENAMED: Step("supervisor", "checkpoint", "the manifest is renamed, its folder not fsynced"),
        Point.MANIFEST_DURABLE: Step("supervisor", "checkpoint", "the manifest is durable, no COMPLETE is sent"),
        Point.COMPLETE_SENT: Step("supervisor", "checkpoint", "a COMPLETE was handed to the transport"),
        Point.INCARNATION_RAISED: Step("supervisor", "recovery", "the new incarnation is durable, nobody knows"),
        Point.ASSIGN_SENT: Step("supervisor", "recovery", "a process was told which shard it is"),
        Point.RESET_SENT: Step("supervisor", "recovery", "a RESET was handed to the transport"),
        Point.START_SENT: Step("supervisor", "recovery", "a START was handed to the transport"),
    }
)

ONE_FOR_EACH_SHARD: Final = frozenset({Point.TRIGGER_SENT, Point.COMPLETE_SENT, Point.RESET_SENT, Point.START_SENT})
"""Taken once for each shard: which of them it is makes a difference."""
