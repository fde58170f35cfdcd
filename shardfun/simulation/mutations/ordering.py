"""The order of frames, messages and barriers: deliberate mistakes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from shardfun.core.link import Link
from shardfun.core.shard import ShardCore
from shardfun.core.snapshot import Queues
from shardfun.model.frames import Data, decode_frame
from shardfun.simulation.mutations.patching import Mutation, Patch


def _barrier_behind_data(original: Any) -> Any:
    """What waits in the outbox goes out before the barrier, with the new cut in its header."""

    def next_frame(self: Link, cut: int, blocks: Callable[[], list[Any]] | None) -> bytes | None:
        barrier = self.barrier
        if barrier is not None and blocks is not None and self.may_send:
            self.barrier = None
            frame: bytes | None = original(self, cut, blocks)
            self.barrier = barrier
            return frame
        result: bytes | None = original(self, cut, blocks)
        return result

    return next_frame


def _logs_before_mailbox(original: Any) -> Any:
    def restore(self: ShardCore, queues: Queues) -> None:
        blocks: list[Any] = []
        for raw in [*queues.inbox, *(raw for peer in sorted(queues.logs) for raw in queues.logs[peer])]:
            body = decode_frame(raw).body
            assert isinstance(body, Data)
            blocks += body.blocks
        original(self, msgspec.structs.replace(queues, mailbox=[*blocks, *queues.mailbox], inbox=[], logs={}))

    return restore


def _full_mailbox_shuts_out_peers(original: Any) -> Any:
    """Frames are taken only while fewer messages wait than allowed, so local messages without end keep the peers out."""

    def fill_mailboxes(self: ShardCore) -> bool:
        return self.dispatcher.waiting < self.limits.mailbox_refill and bool(original(self))

    return fill_mailboxes


MUTATIONS: dict[str, Mutation] = {
    "barrier-behind-data": Mutation(
        "a barrier goes out behind messages that wait",
        (Patch(Link, "next_frame", _barrier_behind_data),),
        "crash: AssertionError: a frame from behind",
    ),
    "logs-before-mailbox": Mutation(
        "what was on the way is restored before what had arrived", (Patch(ShardCore, "_restore", _logs_before_mailbox),)
    ),
    "full-mailbox-shuts-out-peers": Mutation(
        "endless local messages keep frames of peers from being executed",
        (Patch(ShardCore, "fill_mailboxes", _full_mailbox_shuts_out_peers),),
        "liveness: not finished",
    ),
}
