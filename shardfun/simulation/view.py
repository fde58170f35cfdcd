"""One complete checkpoint as a whole, decoded: what a workload judges.

Made from durable bytes only: the states that all deltas so far add up to, and the queues of the newest one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from shardfun.core.function import CompiledFunction
from shardfun.core.snapshot import Queues
from shardfun.model.address import EVERY_NAME, Address
from shardfun.model.columns import decode_block
from shardfun.model.frames import Data, decode_frame
from shardfun.model.payload import Encoded


class Waiting(NamedTuple):
    """A message that waits somewhere: ``mailbox``, ``inbox``, ``log`` or ``outbox``, and of which shard."""

    place: str
    shard: int
    target: Address
    sender: Address | None
    value: Any


@dataclass(frozen=True, slots=True)
class CheckpointView:
    """See the module.

    Args:
        states: fields of every address that has stored state.
        waiting: so ordered that messages from one sender to one target stand in the order sent.
        positions: by shard, the position of each ingress.
        letters: dead letters.
        cells: by shard, everything stored that is no record: key to value.
        emitted: by egress, records in complete checkpoints; ``records``: these, by egress and shard. They grow later.
        ended: ``on_end`` messages were sent before this checkpoint, by shard.
    """

    checkpoint: int
    states: dict[Address, dict[str, Any]]
    waiting: list[Waiting]
    positions: list[dict[str, Any]]
    letters: list[dict[str, Any]]
    cells: list[dict[bytes, bytes]]
    emitted: dict[str, int]
    ended: list[bool]
    records: dict[str, list[list[bytes]]] = field(default_factory=dict)

    def position(self, ingress: str, partition: int) -> int:
        """How many records of a partition were taken in."""
        return int(self.positions[partition].get(ingress, 0))

    def of_type(self, typename: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Ids and fields of the addresses of one type."""
        return ((address.id, fields) for address, fields in self.states.items() if address.typename == typename)


def waiting_messages(parts: Sequence[Queues], functions: dict[str, CompiledFunction]) -> list[Waiting]:
    """All messages in the queues of a checkpoint. Those on one way (mailbox, inbox, log, outbox) come in this order."""
    found: list[Waiting] = []
    for shard, queues in enumerate(parts):
        for block in queues.mailbox:
            found += _messages("mailbox", shard, block, functions)
    for shard, queues in enumerate(parts):
        for raw in queues.inbox:
            found += _frame("inbox", shard, raw, functions)
    for shard, queues in enumerate(parts):
        for peer in sorted(queues.logs):
            for raw in queues.logs[peer]:
                found += _frame("log", shard, raw, functions)
    for shard, queues in enumerate(parts):
        for peer in sorted(queues.outboxes):
            for block in queues.outboxes[peer]:
                found += _messages("outbox", shard, block, functions)
    return found


def _frame(place: str, shard: int, raw: bytes, functions: dict[str, CompiledFunction]) -> Iterator[Waiting]:
    body = decode_frame(raw).body
    assert isinstance(body, Data)
    for block in body.blocks:
        yield from _messages(place, shard, block, functions)


def _messages(place: str, shard: int, block: list[Any], functions: dict[str, CompiledFunction]) -> Iterator[Waiting]:
    typename = block[0]
    function = functions.get(typename) or functions[typename.partition("/")[0] + EVERY_NAME]
    batch, undecodable = decode_block(function.payloads, block)
    assert not undecodable
    senders = [None] * len(batch.ids) if batch.senders is None else batch.senders
    for id, sender, value in zip(batch.ids, senders, batch.values, strict=True):
        if batch.sender_type is not None and sender is not None:
            sender = Address(batch.sender_type, sender)
        decoded = value.type.decode(value.data) if type(value) is Encoded else value
        yield Waiting(place, shard, Address(typename, id), sender, decoded)
