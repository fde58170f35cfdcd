"""Commit and abort: deliberate mistakes."""

from __future__ import annotations

from typing import Any

from shardfun.core.effects import ApplyDelta
from shardfun.core.participant import Participant, Phase
from shardfun.core.records import Frozen, RecordTable
from shardfun.model.delta import DeltaSummary
from shardfun.simulation.mutations.patching import Mutation, Patch


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


MUTATIONS: dict[str, Mutation] = {
    "apply-before-commit": Mutation(
        "a shard applies its part before the checkpoint is complete",
        (
            Patch(Participant, "on_delta_written", _apply_before_commit),
            Patch(Participant, "on_delta_applied", _ignore_early_apply),
        ),
        r"correctness: shard \d+ applies .* whose manifest is not durable",
    ),
    "abort-without-retag": Mutation(
        "an abort lists its records again without tagging them",
        (Patch(RecordTable, "merge_frozen", _abort_without_retag), Patch(RecordTable, "freeze", _freeze_each_once)),
    ),
    "retag-skips-preimaged": Mutation(
        "an abort forgets records that have a pre-image", (Patch(RecordTable, "merge_frozen", _retag_skips_preimaged),)
    ),
}
