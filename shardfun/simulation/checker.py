"""The invariants, checked while a run goes on; the thorough ones whenever a checkpoint becomes complete.

The checker keeps its own idea of the world: the states that all complete checkpoints add up to, every egress record in a complete
checkpoint, and what each shard was at each cut. The core never sees any of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import cbor2

from shardfun.core.function import DEAD_LETTER_KIND, STATE_KIND, CompiledFunction, parse_state_key
from shardfun.core.operations import OPERATIONS
from shardfun.core.shard import ShardCore
from shardfun.core.snapshot import Queues, decode_queues
from shardfun.model.address import Address
from shardfun.model.columns import block_size
from shardfun.model.delta import StoredDelta, checkpoint_name
from shardfun.model.frames import Data, decode_frame
from shardfun.model.operations import OperationResult, OperationStatus
from shardfun.model.payload import Encoded
from shardfun.simulation.disk import StoredManifest
from shardfun.simulation.file_store import AnyStore
from shardfun.simulation.letters import LetterBook
from shardfun.simulation.network import Network
from shardfun.simulation.queries import QueryTruth
from shardfun.simulation.truth import Truth, records_in_memory, truth_now
from shardfun.simulation.view import CheckpointView, waiting_messages
from shardfun.simulation.violation import wrong
from shardfun.simulation.workloads import Workload


class Checker:
    """See the module.

    Args:
        functions: of the workload, compiled.
    """

    def __init__(self, shards: int, functions: Sequence[CompiledFunction], workload: Workload, network: Network) -> None:
        self.complete = 0
        """The newest complete checkpoint."""
        self.completed = 0
        self.view: CheckpointView | None = None
        self.emitted: dict[str, list[list[bytes]]] = {name: [[] for _ in range(shards)] for name in workload.egresses}
        """By egress and shard: all records in complete checkpoints."""
        self._functions = {function.spec.typename: function for function in functions}
        self._workload = workload
        self._network = network
        self._states: list[dict[bytes, bytes]] = [{} for _ in range(shards)]
        self._fields: dict[Address, dict[str, Any]] = {}
        self.letters = LetterBook(workload.replayed)
        self.queries = QueryTruth(self._functions, shards)
        self._truths: dict[tuple[int, int], Truth] = {}
        self._triggered = 0
        self._undecided = 0

    # ---- on the way -----------------------------------------------------------------------------------------------------
    def triggered(self, checkpoint: int, stores: Sequence[AnyStore]) -> None:
        """The supervisor asks for a checkpoint: ids only grow, the one before it is decided, and if complete applied by everybody."""
        if self._undecided:
            wrong(f"checkpoint {checkpoint_name(checkpoint)} is triggered, {checkpoint_name(self._undecided)} is undecided")
        self._undecided = checkpoint
        if checkpoint <= self._triggered:
            wrong(f"checkpoint {checkpoint_name(checkpoint)} is triggered after {checkpoint_name(self._triggered)}")
        self._triggered = checkpoint
        behind = [shard for shard, store in enumerate(stores) if store.applied != self.complete]
        if behind:
            wrong(
                f"checkpoint {checkpoint_name(checkpoint)} is triggered, {checkpoint_name(self.complete)} not applied by {behind}"
            )

    def aborted(self, checkpoint: int) -> None:
        """The supervisor gives up a checkpoint."""
        if checkpoint == self._undecided:
            self._undecided = 0

    def incarnation_began(self) -> None:
        """Nothing of an earlier incarnation can become complete any more."""
        self._undecided = 0

    def cut(self, core: ShardCore) -> None:
        """A shard has just cut a checkpoint."""
        shard = core.identity.shard
        self._truths[core.undecided, shard] = truth_now(core, self._network, self._states[shard])

    def applies(self, shard: int, checkpoint: int, newest_durable: int) -> None:
        """A shard is about to apply a checkpoint to its store."""
        if checkpoint > newest_durable:
            wrong(f"shard {shard} applies {checkpoint_name(checkpoint)}, whose manifest is not durable")

    def lost(self, sender: int, receiver: int, incarnation: int, reason: str) -> None:
        """A shard reports the loss of a frame: was there one?"""
        if not self._network.was_broken((sender, receiver), incarnation):
            wrong(f"shard {receiver} reports a loss where nothing was lost: {reason}")

    # ---- after a recovery -----------------------------------------------------------------------------------------------
    def restored(self, core: ShardCore, store: AnyStore, queues: Queues) -> None:
        """A shard has restored: nothing newer is visible, nothing older is missing."""
        shard = core.identity.shard
        if core.participant.applied != self.complete:
            wrong(f"shard {shard} restored {core.participant.applied}, the newest complete checkpoint is {self.complete}")
        states = self._states[shard]
        if store.applied != self.complete or dict(store.scan()) != states:
            wrong(f"shard {shard}: the store is not as in checkpoint {checkpoint_name(self.complete)}")
        for key, encoded in records_in_memory(core).items():
            if encoded != self._stored(shard, key):
                wrong(f"shard {shard}: a record kept in memory is not as in the checkpoint: {key!r}")
        expected = _messages_in(queues.mailbox) + sum(map(_messages_in_frame, [*queues.inbox, *_flat(queues.logs)]))
        expected += sum(1 for key in states if key.startswith(OPERATIONS))  # each is told that its end is unknown
        if core.dispatcher.waiting != expected:
            wrong(f"shard {shard}: {expected} messages to restore into mailboxes, {core.dispatcher.waiting} are there")
        self._check_unknown(core, states)
        self._workload.restored(shard, [key for key in states if key.startswith(OPERATIONS)])
        for link in core.links:
            expected = _messages_in(queues.outboxes.get(link.peer, []))
            if core.dispatcher.outgoing(link.peer) != expected:
                wrong(
                    f"shard {shard}: {expected} messages to restore for {link.peer}, not {core.dispatcher.outgoing(link.peer)}"
                )

    @staticmethod
    def _check_unknown(core: ShardCore, states: dict[bytes, bytes]) -> None:
        """That the end of an operation is unknown is told before any other message."""
        pending = Counter(cbor2.loads(raw)[0][0] for key, raw in states.items() if key.startswith(OPERATIONS))
        for typename, count in pending.items():
            batches = core.dispatcher.types[typename].mailbox.snapshot()
            first = [value for batch in batches for value in batch.values][:count]
            results = [value.type.decode(value.data) if type(value) is Encoded else value for value in first]
            if any(type(result) is not OperationResult or result.status is not OperationStatus.UNKNOWN for result in results):
                wrong(
                    f"shard {core.identity.shard}: before all else {count} results are unknown for {typename}, found {results}"
                )

    def _stored(self, shard: int, key: bytes) -> bytes | None:
        """The state of an address in the newest complete checkpoint; ``None`` if all of it is at its default."""
        return self._states[shard].get(key)

    # ---- a complete checkpoint ------------------------------------------------------------------------------------------
    def committed(self, manifest: StoredManifest, stores: Sequence[AnyStore]) -> None:
        """The manifest of a checkpoint is durable; called again after a restart."""
        if manifest.checkpoint == self.complete:
            return
        if manifest.parent != self.complete or manifest.checkpoint < self.complete:
            wrong(f"checkpoint {manifest.checkpoint} follows {manifest.parent}, but {self.complete} was complete before")
        self.complete = manifest.checkpoint
        self._undecided = 0
        self.completed += 1
        parts: list[Queues] = []
        for shard, store in enumerate(stores):
            delta = store.read_delta(manifest.checkpoint)
            if delta.summary.digest != manifest.digests[shard] or delta.header.parent != manifest.parent:
                wrong(f"shard {shard}: the delta is not the one that the manifest of {manifest.checkpoint} means")
            queues = decode_queues(delta.queues)
            truth = self._truths.get((manifest.checkpoint, shard))
            if truth is None:
                wrong(f"shard {shard} has a delta of {manifest.checkpoint} without ever having cut it")
            self._check_state(shard, delta, truth)
            self._check_queues(shard, queues, truth)
            self._extend_egress(shard, queues, truth)
            parts.append(queues)
        self._check_channels(manifest.checkpoint, parts)
        self._truths = {key: truth for key, truth in self._truths.items() if key[0] > manifest.checkpoint}
        self.view = CheckpointView(
            checkpoint=manifest.checkpoint,
            states=self._fields,
            waiting=waiting_messages(parts, self._functions),
            positions=[queues.positions for queues in parts],
            letters=self.letters.accounted,
            cells=[{key: value for key, value in states.items() if key[2:3] != STATE_KIND} for states in self._states],
            emitted={name: sum(map(len, records)) for name, records in self.emitted.items()},
            ended=[queues.ended for queues in parts],
            records=self.emitted,
        )
        self.queries.completed(self.complete, self._fields, self.view.cells)
        self._workload.judge(self.view)

    def _check_state(self, shard: int, delta: StoredDelta, truth: Truth) -> None:
        """The delta leads from the state before to exactly the state at the cut."""
        states = self._states[shard]
        for block in delta.blocks:
            for key, value in zip(block.keys, block.values, strict=True):
                if value is None:
                    states.pop(key, None)
                    self.letters.gone(key)
                    address = parse_state_key(key)
                    if address is not None:
                        self._fields.pop(address, None)
                    continue
                states[key] = value
                address = parse_state_key(key)
                if address is None:
                    if key[2:3] == DEAD_LETTER_KIND:
                        self.letters.parked(key, value, cbor2.loads(value))
                    continue
                if key not in truth.records:
                    wrong(f"shard {shard}: the delta has {address}, which was not in memory at the cut")
                self._fields[address] = cbor2.loads(value)
        for key, encoded in truth.records.items():
            stored = states.get(key)
            if stored != encoded:
                wrong(f"{parse_state_key(key)}: {_readable(encoded)} at the cut, {_readable(stored)} in the checkpoint")
        self._check_cells(shard, states, truth)
        letters = sum(1 for key in states if key[2:3] == DEAD_LETTER_KIND)
        if letters != truth.dead_letters:
            wrong(f"shard {shard}: {truth.dead_letters} dead letters at the cut, {letters} in the checkpoint")

    @staticmethod
    def _check_cells(shard: int, states: dict[bytes, bytes], truth: Truth) -> None:
        """The cells in the checkpoint are those of the cut."""
        cells = {key: value for key, value in states.items() if key[2:3] != STATE_KIND}
        if cells != truth.cells:
            keys = [key for key in sorted(cells.keys() | truth.cells.keys()) if cells.get(key) != truth.cells.get(key)]
            differences = ", ".join(f"{key!r}: {truth.cells.get(key)!r:.80}, {cells.get(key)!r:.80}" for key in keys[:5])
            wrong(f"shard {shard}: {len(keys)} cells are not as at the cut: {differences}")

    @staticmethod
    def _check_queues(shard: int, queues: Queues, truth: Truth) -> None:
        figures = (queues.positions, queues.ended, queues.dead_letters, queues.invocations)
        expected = (truth.positions, truth.ended, truth.dead_letters, truth.invocations)
        if figures != expected:
            wrong(f"shard {shard}: positions and totals {figures} in the checkpoint, {expected} at the cut")

    def _extend_egress(self, shard: int, queues: Queues, truth: Truth) -> None:
        for name, (published, _, pending) in queues.egress.items():
            known = self.emitted[name][shard]
            if published + len(pending) != truth.emitted[name] or published > len(known):
                wrong(f"egress {name} of shard {shard}: {published} + {len(pending)} records, {truth.emitted[name]} at the cut")
            if known[published:] != pending[: len(known) - published]:
                wrong(f"egress {name} of shard {shard}: records of an earlier complete checkpoint have changed")
            known += pending[len(known) - published :]

    def _check_channels(self, checkpoint: int, parts: list[Queues]) -> None:
        """The log of a channel is what was sent before the sender's cut and received after the receiver's."""
        for shard, queues in enumerate(parts):
            receiver = self._truths[checkpoint, shard]
            for peer in range(len(parts)):
                if peer == shard:
                    continue
                sent, received = self._truths[checkpoint, peer].sent[shard], receiver.received[peer]
                if received > sent:
                    wrong(f"shard {shard} had received {received} frames of {peer} at the cut, sent were {sent}")
                under_way = self._network.frames_between((peer, shard), receiver.incarnation, received, sent)
                logged = queues.logs.get(peer, [])
                if logged != under_way:
                    wrong(
                        f"channel {peer} to {shard}: {len(under_way)} frames were under way at the cut, {len(logged)} are logged"
                    )

    def published_all(self, sinks: dict[tuple[str, int], list[bytes]]) -> bool:
        """Whether the sinks hold everything that complete checkpoints have emitted."""
        return all(sinks[name, shard] == known for name, parts in self.emitted.items() for shard, known in enumerate(parts))


def _messages_in(blocks: list[list[Any]]) -> int:
    return sum(map(block_size, blocks))


def _messages_in_frame(raw: bytes) -> int:
    body = decode_frame(raw).body
    assert isinstance(body, Data)
    return body.messages


def _flat(logs: dict[int, list[bytes]]) -> list[bytes]:
    return [raw for frames in logs.values() for raw in frames]


def _readable(encoded: bytes | None) -> Any:
    return "nothing" if encoded is None else cbor2.loads(encoded)
