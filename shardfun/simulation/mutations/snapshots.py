"""What is in a checkpoint: deliberate mistakes."""

from __future__ import annotations

from typing import Any

from shardfun.core.participant import Participant, Phase
from shardfun.core.shard import ShardCore
from shardfun.core.snapshot import Cut
from shardfun.model.frames import Data
from shardfun.simulation.mutations.patching import Mutation, Patch


def _no_channel_log(_original: Any) -> Any:
    def log(self: Participant, peer: int, data: Data) -> None:
        """Forget what arrives between the own cut and the barrier."""

    return log


def _no_outbox(original: Any) -> Any:
    def take_cut(self: ShardCore, checkpoint: int) -> Cut:
        cut: Cut = original(self, checkpoint)
        cut.outboxes = {}
        return cut

    return take_cut


def _log_at_execution(original: Any) -> Any:
    """Frames are logged when they leave the inbox: what is still in it when the alignment ends is lost."""

    def fill_mailboxes(self: ShardCore) -> bool:
        inboxes = [(link, list(link.inbox)) for link in self.links]
        moved: bool = original(self)
        participant = self.participant
        current = participant._current  # noqa: SLF001
        if participant.phase is Phase.ALIGNING and current is not None:
            for link, before in inboxes:
                for cut, data in before[: len(before) - len(link.inbox)]:
                    if cut < current.checkpoint and data.raw not in current.inbox:
                        current.logs.setdefault(link.peer, []).append(data.raw)
        return moved

    return fill_mailboxes


MUTATIONS: dict[str, Mutation] = {
    "no-channel-log": Mutation(
        "what arrives on a channel before its barrier is not logged",
        (Patch(Participant, "_log", _no_channel_log),),
        r"correctness: channel \d+ to \d+: \d+ frames were under way at the cut",
    ),
    "no-outbox": Mutation("a checkpoint lacks the outboxes", (Patch(ShardCore, "take_cut", _no_outbox),)),
    "log-at-execution": Mutation(
        "frames are logged when they are executed instead of when they arrive",
        (Patch(Participant, "_log", _no_channel_log), Patch(ShardCore, "fill_mailboxes", _log_at_execution)),
        r"correctness: channel \d+ to \d+: \d+ frames were under way at the cut",
    ),
}
