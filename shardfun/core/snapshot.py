"""What a checkpoint holds besides changed state: everything that waits or is on its way, and where the ingresses are.

``Cut`` is taken at the cut by reference; ``encode_queues`` turns it into bytes later, in pieces; ``decode_queues`` is the way back.
A message that was sent before its sender's cut and not executed before its receiver's is in exactly one of: the sender's
outbox, the receiver's mailbox, inbox or channel log.

The encoding is one CBOR map. Mailbox and outboxes are blocks as on the wire, each a byte string of its own; inbox and logs are
the raw frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import cbor2
import msgspec

from shardfun.core.dispatch import Dispatcher
from shardfun.errors import CorruptionError, ProtocolError
from shardfun.model.cbor import load_cbor
from shardfun.model.columns import Batch, check_block, dump_blocks
from shardfun.model.payload import Payloads

QUEUES_FORMAT = 2
READABLE_FORMATS = (1, 2)  # the first one knew no operations and timers
ENCODE_MESSAGES = 2000

Waiting = list[tuple[str, Payloads, tuple[Batch, ...]]]


@dataclass(slots=True)
class Cut:
    """One shard's queues and positions at the cut of ``checkpoint``; ``logs`` grow until alignment ends.

    Args:
        inbox: raw frames that had arrived but were in no mailbox, by channel in order.
        emitted: by egress, records emitted before the cut.
        at_end: every ingress was used up.
        ended: the ``on_end`` messages were sent before the cut.
        suspects: careful mode has to go on.
        parked: the keys of the poison that was parked before the cut.
        timers_pending: by typename of the target, those that are stored, none of them before the key suffix ``timers_lowest``;
            ``timers_awaited``: that have to fire before the end.
        operations_pending: started, and their results are not in the mailbox yet; they will send messages.
        records_in, invocations, dead_letters, operations_created, timers_made: totals of the history that this checkpoint stands for.
    """

    checkpoint: int
    mailbox: Waiting
    outboxes: dict[int, Waiting]
    inbox: list[bytes]
    positions: dict[str, Any]
    egress: dict[str, list[Any]]
    emitted: dict[str, int]
    at_end: bool
    ended: bool
    dead_letters: int
    records_in: int
    invocations: int
    operations_created: int = 0
    operations_pending: int = 0
    timers_made: int = 0
    timers_pending: dict[str, int] = field(default_factory=dict)
    timers_lowest: bytes = b""
    timers_awaited: int = 0
    suspects: bool = False
    parked: list[bytes] = field(default_factory=list)
    logs: dict[int, list[bytes]] = field(default_factory=dict)

    @property
    def published(self) -> bool:
        """Whether every egress record before the cut was known to be published at the cut."""
        return not any(pending for _, _, pending in self.egress.values())

    @property
    def quiet(self) -> bool:
        """Whether no message is in this part of the checkpoint. Meaningful once the logs are complete."""
        return not (
            self.operations_pending
            or self.timers_awaited
            or self.mailbox
            or self.inbox
            or any(self.outboxes.values())
            or any(self.logs.values())
        )


def waiting_messages(dispatcher: Dispatcher, shard: int) -> Waiting:
    """What waits for ``shard``, by function type, by reference."""
    found: Waiting = []
    for target in dispatcher.order:
        batches = target.queues[shard].snapshot()
        if target.blocked and shard == dispatcher.shard:
            busy = dispatcher.calls.waiting_messages(target)  # older than what is in the mailbox for the same addresses
            batches = (busy, *batches)
        if batches:
            found.append((target.typename, target.payloads, batches))
    return found


def encode_queues(cut: Cut) -> Iterator[bytes | None]:
    """Encode a cut in pieces: yields ``None`` after each bounded piece of work, and at last the bytes.

    The logs are read at the very end, so the caller may ask for that piece only once alignment is over.
    """
    mailbox: list[bytes] = []
    for piece in _encode_waiting(cut.mailbox, mailbox):
        yield piece
    outboxes: dict[int, list[bytes]] = {}
    for peer, waiting in cut.outboxes.items():
        for piece in _encode_waiting(waiting, outboxes.setdefault(peer, [])):
            yield piece
    yield cbor2.dumps(
        {
            "format": QUEUES_FORMAT,
            "checkpoint": cut.checkpoint,
            "mailbox": mailbox,
            "inbox": cut.inbox,
            "logs": cut.logs,
            "outboxes": outboxes,
            "positions": cut.positions,
            "egress": cut.egress,
            "ended": cut.ended,
            "dead_letters": cut.dead_letters,
            "records_in": cut.records_in,
            "invocations": cut.invocations,
            "operations_created": cut.operations_created,
            "timers_made": cut.timers_made,
            "timers_pending": cut.timers_pending,
            "timers_lowest": cut.timers_lowest,
        }
    )


def _encode_waiting(waiting: Waiting, blocks: list[bytes]) -> Iterator[None]:
    for typename, payloads, batches in waiting:
        for batch in batches:
            for start in range(0, len(batch.ids), ENCODE_MESSAGES):
                stop = start + ENCODE_MESSAGES
                senders = None if batch.senders is None else batch.senders[start:stop]
                part = Batch(batch.ids[start:stop], senders, batch.sender_type, batch.values[start:stop])
                blocks += dump_blocks(typename, payloads, part)
                yield None


class Queues(msgspec.Struct, frozen=True):
    """A decoded queues section. ``egress``: ``[published records, published bytes, pending]`` by name."""

    format: int
    checkpoint: int
    mailbox: list[list[Any]]
    inbox: list[bytes]
    logs: dict[int, list[bytes]]
    outboxes: dict[int, list[list[Any]]]
    positions: dict[str, Any]
    egress: dict[str, tuple[int, int, list[bytes]]]
    ended: bool
    dead_letters: int
    records_in: int
    invocations: int
    operations_created: int = 0
    timers_made: int = 0
    timers_pending: dict[str, int] = {}
    timers_lowest: bytes = b""


EMPTY_QUEUES = Queues(QUEUES_FORMAT, 0, [], [], {}, {}, {}, {}, ended=False, dead_letters=0, records_in=0, invocations=0)


def decode_queues(data: bytes) -> Queues:
    """The queues section of a delta.

    Raises:
        CorruptionError: it is not one, or of another format.
    """
    try:
        plain = load_cbor(data)
        if type(plain) is dict and type(plain.get("outboxes")) is dict and "mailbox" in plain:
            plain["mailbox"] = _load_blocks(plain["mailbox"])
            plain["outboxes"] = {peer: _load_blocks(blocks) for peer, blocks in plain["outboxes"].items()}
        queues = msgspec.convert(plain, Queues)
    except (ProtocolError, ValueError, TypeError, RecursionError, OverflowError) as error:  # ``ValidationError``, too
        msg = f"queues section of a checkpoint: {error}"
        raise CorruptionError(msg) from error
    if queues.format not in READABLE_FORMATS:
        msg = f"queues section of a checkpoint: expected format {' or '.join(map(str, READABLE_FORMATS))}, got {queues.format}"
        raise CorruptionError(msg)
    return queues


def _load_blocks(raws: Any) -> Any:
    """Encoded blocks to blocks; what is something else is left for the check of the whole."""
    if type(raws) is not list or not all(type(raw) is bytes for raw in raws):
        return raws
    blocks = [load_cbor(raw) for raw in raws]
    for block in blocks:
        check_block(block)
    return blocks
