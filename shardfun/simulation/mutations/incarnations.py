"""Incarnations and losses: deliberate mistakes."""

from __future__ import annotations

from typing import Any

from shardfun.core.link import Link
from shardfun.core.shard import ShardCore
from shardfun.model.frames import Barrier, Frame, Hello
from shardfun.simulation.mutations.patching import Mutation, Patch


def _no_incarnation_check(_original: Any) -> Any:
    def accepts(_self: ShardCore, _incarnation: int) -> bool:
        return True

    return accepts


def _no_gap_check(original: Any) -> Any:
    """Neither the sequence of frames nor the count in a barrier is looked at."""

    def receive(self: Link, frame: Frame) -> Any:
        if not isinstance(frame.body, Hello):
            self.received_sequence = frame.sequence - 1
        if isinstance(frame.body, Barrier):
            self.data_received = frame.body.data_frames
        return original(self, frame)

    return receive


MUTATIONS: dict[str, Mutation] = {
    "no-incarnation-check": Mutation(
        "frames and messages of older incarnations count",
        (Patch(ShardCore, "accepts", _no_incarnation_check),),
        r"correctness: shard \d+: a frame of incarnation ",
    ),
    "no-gap-check": Mutation("a missing frame is not noticed", (Patch(Link, "receive", _no_gap_check),)),
}
