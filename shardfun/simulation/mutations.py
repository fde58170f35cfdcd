"""Deliberate mistakes in the core, to show that the checks would find them.

Each replaces one method of a core class for as long as a run lasts. The core knows nothing of it. A mistake that no seed finds means
that the simulator is blind there, not that the mistake is harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec

from shardfun.core.cells import Cells
from shardfun.core.effects import ApplyDelta
from shardfun.core.link import Link
from shardfun.core.operations import OPERATIONS, Operations
from shardfun.core.participant import Participant, Phase
from shardfun.core.records import Frozen, RecordTable
from shardfun.core.shard import ShardCore
from shardfun.core.snapshot import Cut, Queues
from shardfun.core.timer_cells import TOKEN_KIND
from shardfun.core.timer_index import TIMER_PREFIX, TimerIndex
from shardfun.core.timers import Timers
from shardfun.core.working import Copies
from shardfun.errors import ConfigurationError
from shardfun.model.delta import DeltaSummary
from shardfun.model.frames import Barrier, Data, Frame, Hello, decode_frame


class Patch(NamedTuple):
    """Replace ``owner.name`` by what ``make`` makes of it."""

    owner: type
    name: str
    make: Callable[[Any], Any]


class Mutation(NamedTuple):
    """``mistake``: one line for people."""

    mistake: str
    patches: tuple[Patch, ...]


@contextmanager
def mutated(name: str | None) -> Iterator[None]:
    """Run with a mistake in the core; ``None``: with none.

    Raises:
        ConfigurationError: there is no such mutation.
    """
    if name is None:
        yield
        return
    if name not in MUTATIONS:
        raise ConfigurationError(f"mutation {name!r}: expected one of {', '.join(MUTATIONS)}")
    patches = MUTATIONS[name].patches
    originals = [getattr(patch.owner, patch.name) for patch in patches]
    try:
        for patch, original in zip(patches, originals, strict=True):
            setattr(patch.owner, patch.name, patch.make(original))
        yield
    finally:
        for patch, original in zip(patches, originals, strict=True):
            setattr(patch.owner, patch.name, original)


# ---- what is in a checkpoint ---------------------------------------------------------------------------------------------
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


# ---- order ---------------------------------------------------------------------------------------------------------------
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


# ---- incarnations and losses ---------------------------------------------------------------------------------------------
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


# ---- commit and abort ----------------------------------------------------------------------------------------------------
def _apply_before_commit(original: Any) -> Any:
    """The store gets a checkpoint as soon as the shard has prepared it, before the manifest decides."""

    def on_delta_written(self: Participant, checkpoint: int, summary: DeltaSummary, loop_s: float) -> None:
        original(self, checkpoint, summary, loop_s)
        if self.phase is Phase.PREPARED and self.undecided == checkpoint:
            self.effects.append(ApplyDelta(checkpoint, self._blocks, end=False))

    return on_delta_written


def _ignore_early_apply(original: Any) -> Any:
    def on_delta_applied(self: Participant, checkpoint: int) -> bool:
        if self.undecided == checkpoint and self.phase is Phase.APPLYING:
            return bool(original(self, checkpoint))
        return False

    return on_delta_applied


def _abort_without_retag(_original: Any) -> Any:
    """The records of an aborted checkpoint are listed for the next one, but keep the tag of the old epoch."""

    def merge_frozen(self: RecordTable) -> None:
        frozen, self.frozen = self.frozen, None
        assert frozen is not None
        self.dirty += [record for record in frozen.records if record._dirty is not self.epoch]  # noqa: SLF001
        self.cells.merge_frozen()

    return merge_frozen


def _freeze_each_once(original: Any) -> Any:
    """A record that is listed twice would be noticed at once, by the store; here only its value is wrong."""

    def freeze(self: RecordTable) -> Frozen:
        self.dirty = list({id(record): record for record in self.dirty}.values())
        frozen: Frozen = original(self)
        return frozen

    return freeze


def _retag_skips_preimaged(original: Any) -> Any:
    """Records that have a pre-image are taken for changed again, although some were only read."""

    def merge_frozen(self: RecordTable) -> None:
        assert self.frozen is not None
        skipped = self.frozen.pre_images
        self.frozen.records = [record for record in self.frozen.records if record._key not in skipped]  # noqa: SLF001
        original(self)

    return merge_frozen


# ---- timers, cells, calls ------------------------------------------------------------------------------------------------
def _timer_stays(original: Any) -> Any:
    """A timer that has fired or was cancelled is forgotten in memory, and stays stored."""

    def remove(self: TimerIndex, suffix: bytes) -> None:
        value = self.value_of(suffix)
        original(self, suffix)
        self._cells.put(TIMER_PREFIX, suffix, value)

    return remove


def _timer_goes_too_early(original: Any) -> Any:
    """A timer that is removed after a cut is removed from the checkpoint of that cut, too."""

    def remove(self: TimerIndex, suffix: bytes) -> None:
        original(self, suffix)
        frozen = self._cells._frozen  # noqa: SLF001
        if TIMER_PREFIX in frozen:
            frozen[TIMER_PREFIX] = {**frozen[TIMER_PREFIX], suffix: None}

    return remove


def _forget_tokens(original: Any) -> Any:
    """After a recovery nobody knows which timer a token belongs to."""

    def restore(self: Timers, *arguments: Any) -> None:
        original(self, *arguments)
        cells = self._cells
        for key, _ in list(cells.scan(b"")):
            if key[2:3] == TOKEN_KIND:
                length = 5 + int.from_bytes(key[3:5], "big")
                cells.put(key[:length], key[length:], None)

    return restore


def _abort_forgets_cells(_original: Any) -> Any:
    def merge_frozen(self: Cells) -> None:
        self.drop_frozen()

    return merge_frozen


def _commit_without_touch(original: Any) -> Any:
    """A working copy is written back as if its record had been touched since the cut: no pre-image is taken."""

    def commit(self: Copies, copy: Any, table: RecordTable) -> None:
        copy._record._epoch = table.epoch  # noqa: SLF001
        original(self, copy, table)

    return commit


def _busy_behind_mailbox(original: Any) -> Any:
    """In a checkpoint the messages of busy addresses stand behind those in the mailbox, which are younger."""

    def take_cut(self: ShardCore, checkpoint: int) -> Cut:
        cut: Cut = original(self, checkpoint)
        types = self.dispatcher.types
        cut.mailbox = [
            (typename, payloads, (*batches[1:], batches[0]) if types[typename].blocked else batches)
            for typename, payloads, batches in cut.mailbox
        ]
        return cut

    return take_cut


def _unknown_again(original: Any) -> Any:
    """That the end of an operation is unknown is told after each recovery."""

    def restore(self: Operations) -> None:
        cells = self._dispatcher.table.cells
        stored = list(cells.scan(OPERATIONS))
        original(self)
        for suffix, raw in stored:
            cells.put(OPERATIONS, suffix, raw)

    return restore


MUTATIONS: dict[str, Mutation] = {
    "no-channel-log": Mutation(
        "what arrives on a channel before its barrier is not logged", (Patch(Participant, "_log", _no_channel_log),)
    ),
    "no-outbox": Mutation("a checkpoint lacks the outboxes", (Patch(ShardCore, "take_cut", _no_outbox),)),
    "log-at-execution": Mutation(
        "frames are logged when they are executed instead of when they arrive",
        (Patch(Participant, "_log", _no_channel_log), Patch(ShardCore, "fill_mailboxes", _log_at_execution)),
    ),
    "barrier-behind-data": Mutation(
        "a barrier goes out behind messages that wait", (Patch(Link, "next_frame", _barrier_behind_data),)
    ),
    "logs-before-mailbox": Mutation(
        "what was on the way is restored before what had arrived", (Patch(ShardCore, "_restore", _logs_before_mailbox),)
    ),
    "full-mailbox-shuts-out-peers": Mutation(
        "endless local messages keep frames of peers from being executed",
        (Patch(ShardCore, "fill_mailboxes", _full_mailbox_shuts_out_peers),),
    ),
    "no-incarnation-check": Mutation(
        "frames and messages of older incarnations count", (Patch(ShardCore, "accepts", _no_incarnation_check),)
    ),
    "no-gap-check": Mutation("a missing frame is not noticed", (Patch(Link, "receive", _no_gap_check),)),
    "apply-before-commit": Mutation(
        "a shard applies its part before the checkpoint is complete",
        (
            Patch(Participant, "on_delta_written", _apply_before_commit),
            Patch(Participant, "on_delta_applied", _ignore_early_apply),
        ),
    ),
    "abort-without-retag": Mutation(
        "an abort lists its records again without tagging them",
        (Patch(RecordTable, "merge_frozen", _abort_without_retag), Patch(RecordTable, "freeze", _freeze_each_once)),
    ),
    "retag-skips-preimaged": Mutation(
        "an abort forgets records that have a pre-image", (Patch(RecordTable, "merge_frozen", _retag_skips_preimaged),)
    ),
    "timer-stays": Mutation("a timer that has fired is not deleted", (Patch(TimerIndex, "remove", _timer_stays),)),
    "timer-goes-too-early": Mutation(
        "a timer is deleted on the wrong side of the cut", (Patch(TimerIndex, "remove", _timer_goes_too_early),)
    ),
    "forget-tokens": Mutation("tokens of timers are not restored", (Patch(Timers, "restore", _forget_tokens),)),
    "abort-forgets-cells": Mutation(
        "an abort loses changed map entries, timers and other cells", (Patch(Cells, "merge_frozen", _abort_forgets_cells),)
    ),
    "commit-without-touch": Mutation(
        "a working copy is written back without touching its record", (Patch(Copies, "commit", _commit_without_touch),)
    ),
    "busy-behind-mailbox": Mutation(
        "messages of busy addresses are stored behind younger ones", (Patch(ShardCore, "take_cut", _busy_behind_mailbox),)
    ),
    "unknown-again": Mutation(
        "the unknown end of an operation is told after each recovery", (Patch(Operations, "restore", _unknown_again),)
    ),
}
