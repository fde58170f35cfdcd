"""A shard's side of a checkpoint: cut, align, encode, persist, prepare, apply.

The barrier protocol is that of Chandy and Lamport ("Distributed snapshots", 1985) in the words of asynchronous barrier snapshotting
(Carbone et al., 2015): on the first sign of checkpoint n, whether from the coordinator or as a barrier on any channel, the shard
cuts at once and goes on working. Waiting for the barriers of all inputs *before* sending one's own would never end on a mesh that
is all cycles. What arrives on a channel after the own cut and before that channel's barrier is logged as part of n.

The machine knows at most one undecided checkpoint. It gives up its frozen part only on an abort, or when a newer checkpoint
shows that the coordinator has given it up; never by a time-out of its own, and never once it is complete.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from shardfun.core.effects import ApplyDelta, DeleteDelta, Effect, SendControl, WriteDelta
from shardfun.core.link import Link
from shardfun.core.records import Piece, RecordTable
from shardfun.core.snapshot import Cut, encode_queues
from shardfun.errors import LocalProtocolError
from shardfun.model.control import Applied, Prepared, Refused
from shardfun.model.delta import DeltaHeader, DeltaSummary, RecordBlock, checkpoint_name
from shardfun.model.frames import Barrier, Data
from shardfun.model.keyspace import slot_range

BLOCK_RECORDS = 2000


class Phase(Enum):
    """Where the shard is with the checkpoint that it has cut and that is not decided and applied yet."""

    IDLE = auto()
    ALIGNING = auto()
    ENCODING = auto()
    PERSISTING = auto()
    PREPARED = auto()
    REFUSED = auto()
    APPLYING = auto()


class Event(Enum):
    """What moves it on."""

    CUT = auto()
    ALIGNED = auto()
    ENCODED = auto()
    PERSISTED = auto()
    PERSIST_FAILED = auto()
    ABORTED = auto()
    COMPLETED = auto()
    APPLIED = auto()


TRANSITIONS: dict[tuple[Phase, Event], Phase] = {
    (Phase.IDLE, Event.CUT): Phase.ALIGNING,
    (Phase.ALIGNING, Event.ALIGNED): Phase.ENCODING,
    (Phase.ALIGNING, Event.ABORTED): Phase.IDLE,
    (Phase.ENCODING, Event.ENCODED): Phase.PERSISTING,
    (Phase.ENCODING, Event.ABORTED): Phase.IDLE,
    (Phase.PERSISTING, Event.PERSISTED): Phase.PREPARED,
    (Phase.PERSISTING, Event.PERSIST_FAILED): Phase.REFUSED,
    (Phase.PERSISTING, Event.ABORTED): Phase.IDLE,
    (Phase.PREPARED, Event.ABORTED): Phase.IDLE,
    (Phase.PREPARED, Event.COMPLETED): Phase.APPLYING,
    (Phase.REFUSED, Event.ABORTED): Phase.IDLE,
    (Phase.APPLYING, Event.APPLIED): Phase.IDLE,
}


@dataclass(frozen=True, slots=True)
class ShardIdentity:
    """Which shard of which job; constant for the life of a data directory."""

    job: str
    shard: int
    shards: int


class Host(Protocol):
    """What the participant needs of the shard around it."""

    table: RecordTable
    links: list[Link]

    def take_cut(self, checkpoint: int) -> Cut:
        """Freeze queues, positions and egress numbers by reference."""

    def committed(self, cut: Cut) -> None:
        """The checkpoint of ``cut`` is complete: its egress records may go out."""


class Participant:
    """One shard's part in checkpoints, in one incarnation.

    Args:
        applied: the complete checkpoint that this incarnation started from; ``digest`` of this shard's delta of it.
        piece_records: changes encoded in one piece of work.
    """

    def __init__(
        self, identity: ShardIdentity, incarnation: int, applied: int, digest: bytes, host: Host, piece_records: int
    ) -> None:
        self.phase = Phase.IDLE
        self.cut = applied
        """The last checkpoint cut: stands in the header of every frame."""
        self.applied = applied
        self.effects: list[Effect] = []
        self.frames_logged = 0
        self._identity = identity
        self._incarnation = incarnation
        self._digest = digest
        self._host = host
        self._piece_records = piece_records
        self._aborted = 0
        self._current: Cut | None = None
        self._waiting: set[int] = set()  # peers whose barrier is missing; never iterated
        self._encoder: Iterator[bytes | None] | None = None
        self._keys: list[bytes] = []
        self._values: list[bytes | None] = []
        self._pieces: Iterator[Piece] = iter(())
        self._blocks: list[RecordBlock] = []
        self._summary: DeltaSummary | None = None
        self._end = False

    @property
    def undecided(self) -> int:
        """The checkpoint that is cut and neither aborted nor applied; 0 if there is none."""
        return self._current.checkpoint if self._current is not None else 0

    def _move(self, event: Event) -> None:
        try:
            self.phase = TRANSITIONS[self.phase, event]
        except KeyError:
            name = checkpoint_name(self.undecided)
            msg = f"checkpoint {name}: {event.name} is not possible while {self.phase.name}"
            raise LocalProtocolError(msg) from None

    def retire(self) -> None:
        """Let go of the shard around it (see ``ShardCore.retire``)."""
        del self._host

    # ---- events from the coordinator ------------------------------------------------------------------------------------
    def on_trigger(self, checkpoint: int) -> None:
        """The coordinator asks for a checkpoint. Late and repeated requests are ignored."""
        if checkpoint > self.cut and checkpoint > self._aborted:
            self._cut(checkpoint)

    def on_abort(self, checkpoint: int) -> None:
        """The checkpoint will never be complete. Remembered, since its trigger or a barrier may still come."""
        self._aborted = max(self._aborted, checkpoint)
        if self.undecided == checkpoint and checkpoint:
            self._give_up()

    def on_complete(self, checkpoint: int, *, end: bool) -> None:
        """The manifest is durable.

        Raises:
            LocalProtocolError: this shard has not prepared it: a bug, and going on would split the world.
        """
        if checkpoint <= self.applied:
            self.effects.append(SendControl(Applied(self._incarnation, checkpoint)))
            return
        if self.undecided == checkpoint and self.phase is Phase.APPLYING:
            return
        if self.undecided != checkpoint:
            msg = f"checkpoint {checkpoint_name(checkpoint)} is complete, but this shard has {checkpoint_name(self.undecided)}"
            raise LocalProtocolError(msg)
        self._move(Event.COMPLETED)
        assert self._current is not None
        self._end = end
        self._host.committed(self._current)
        self.effects.append(ApplyDelta(checkpoint, self._blocks, end))

    # ---- events from the channels ---------------------------------------------------------------------------------------
    def on_barrier(self, link: Link, barrier: Barrier) -> None:
        """A peer has cut: cut too, if not done yet; that channel's log is complete."""
        checkpoint = barrier.checkpoint
        if checkpoint < self.cut:
            link.barriers_ignored += 1
            return
        if checkpoint > self.cut:
            self._cut(checkpoint)
        if self.phase is Phase.ALIGNING and self.undecided == checkpoint:
            self._waiting.discard(link.peer)
            if not self._waiting:
                self._move(Event.ALIGNED)

    def on_data(self, link: Link, cut: int, data: Data) -> None:
        """A data frame has arrived (not: is executed): log it if it was sent before its sender's cut."""
        assert cut <= self.cut, "a frame from behind a cut that this shard has not made: the barrier must come first"
        if self.phase is Phase.ALIGNING and link.peer in self._waiting:
            assert self._current is not None
            assert cut < self._current.checkpoint, "a frame from behind the cut overtook its barrier"
            self._log(link.peer, data)

    def _log(self, peer: int, data: Data) -> None:
        assert self._current is not None
        self.frames_logged += 1
        self._current.logs.setdefault(peer, []).append(data.raw)

    # ---- the cut --------------------------------------------------------------------------------------------------------
    def _cut(self, checkpoint: int) -> None:
        if self._current is not None:
            self._give_up()  # a newer checkpoint exists only when the coordinator has given up the older one
        self.cut = checkpoint
        for link in self._host.links:
            link.barrier = checkpoint
        if checkpoint <= self._aborted:
            return  # an empty cut: peers wait for the barrier, but there is nothing to keep
        self._move(Event.CUT)
        self._host.table.freeze()
        self._current = self._host.take_cut(checkpoint)
        self._waiting = {link.peer for link in self._host.links if link.last_barrier < checkpoint}
        self._encoder = encode_queues(self._current)
        self._keys, self._values, self._blocks = [], [], []
        self._pieces = self._host.table.encode_frozen(self._piece_records)
        self._summary = None
        if not self._waiting:
            self._move(Event.ALIGNED)

    def _give_up(self) -> None:
        assert self._current is not None
        checkpoint = self._current.checkpoint
        self._move(Event.ABORTED)
        self._host.table.merge_frozen()
        self._forget()
        self.effects.append(DeleteDelta(checkpoint))

    def _forget(self) -> None:
        self._current = self._encoder = None
        self._pieces = iter(())
        self._keys, self._values, self._blocks = [], [], []
        self._waiting = set()

    # ---- work in pieces -------------------------------------------------------------------------------------------------
    def work(self) -> bool:
        """Do one bounded piece of encoding (some records, or some waiting messages); whether another may follow now."""
        if self.phase not in {Phase.ALIGNING, Phase.ENCODING}:
            return False
        frozen = self._host.table.frozen
        assert frozen is not None
        if not frozen.encoded:
            self._encode_changes()
            return True
        if self.phase is Phase.ALIGNING:
            return False
        assert self._encoder is not None
        queues = next(self._encoder)
        if queues is None:
            return True
        self._move(Event.ENCODED)
        assert self._current is not None
        header = DeltaHeader(
            job=self._identity.job,
            shard=self._identity.shard,
            shards=self._identity.shards,
            slots=slot_range(self._identity.shard, self._identity.shards),
            incarnation=self._incarnation,
            checkpoint=self._current.checkpoint,
            parent=self.applied,
            parent_digest=self._digest,
        )
        self.effects.append(WriteDelta(header, self._blocks, queues))
        return False

    def _encode_changes(self) -> None:
        piece = next(self._pieces, None)
        if piece is not None:
            self._keys += piece[0]
            self._values += piece[1]
        else:
            self._host.table.encoding_done()
        if self._keys and (piece is None or len(self._keys) >= BLOCK_RECORDS):
            self._blocks.append(_sorted_block(self._keys, self._values))
            self._keys, self._values = [], []

    # ---- what the storage did -------------------------------------------------------------------------------------------
    def on_delta_written(self, checkpoint: int, summary: DeltaSummary, loop_s: float) -> None:
        """The delta is durable. Too late if the checkpoint was given up meanwhile: its deletion is on the way."""
        if self.undecided != checkpoint or self.phase is not Phase.PERSISTING:
            return
        self._move(Event.PERSISTED)
        assert self._current is not None
        self._summary = summary
        prepared = Prepared(
            self._incarnation,
            checkpoint,
            summary.digest,
            summary.bytes,
            summary.records,
            self._current.at_end,
            self._current.quiet,
            self._current.ended,
            self._current.published,
            loop_s,
            self._current.positions,
            self._current.parked,
            self._current.suspects,
        )
        self.effects.append(SendControl(prepared))

    def on_delta_failed(self, checkpoint: int, reason: str) -> None:
        """The delta could not be written: ask for an abort. Nothing is lost; the changes go into the next one."""
        if self.undecided != checkpoint or self.phase is not Phase.PERSISTING:
            return
        self._move(Event.PERSIST_FAILED)
        self.effects.append(SendControl(Refused(self._incarnation, checkpoint, reason)))

    def on_delta_applied(self, checkpoint: int) -> bool:
        """The store has the checkpoint; whether ``on_end`` messages are due. The caller sends them before anything else."""
        assert self.undecided == checkpoint
        self._move(Event.APPLIED)
        assert self._summary is not None
        self._digest = self._summary.digest
        self.applied = checkpoint
        self._host.table.drop_frozen()
        end = self._end
        self._forget()
        self.effects.append(SendControl(Applied(self._incarnation, checkpoint)))
        return end


def _sorted_block(keys: list[bytes], values: list[bytes | None]) -> RecordBlock:
    """Sorting block by block keeps each step short; readers that want a key range look at every block's index entry."""
    by_key = dict(zip(keys, values, strict=True))  # no key is there twice; a quarter faster than sorting pairs by their first
    ordered = sorted(keys)
    return RecordBlock(ordered, [by_key[key] for key in ordered])
