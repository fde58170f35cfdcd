"""Makes frames of what waits for a peer: as many messages as fit, and never one that cannot be sent."""

from __future__ import annotations

from typing import Any

from shardfun.core.dead_letters import describe_error
from shardfun.core.dispatch import Dispatcher, sender_of
from shardfun.core.function_type import FunctionType
from shardfun.core.limits import Limits
from shardfun.core.link import Link
from shardfun.model.address import Address
from shardfun.model.columns import ENCODE_ERRORS, Batch, encode_block, singles
from shardfun.model.frames import encode_frame

Taken = list[tuple[FunctionType, Batch]]


class FrameMaker:
    """Takes messages from the outboxes of a dispatcher.

    A message that has no encoding, or that alone is larger than the transport takes, is parked here, where it was sent.
    """

    def __init__(self, dispatcher: Dispatcher, limits: Limits) -> None:
        self._dispatcher = dispatcher
        self._limits = limits

    def next_frame(self, link: Link, cut: int, *, flush: bool) -> bytes | None:
        """The next frame for the link's peer, see ``ShardCore.next_frame``."""
        waiting = self._dispatcher.outgoing(link.peer)
        if waiting < link.frame_messages and not (flush and waiting):
            return link.next_frame(cut, None)
        taken: Taken = []
        while True:
            take = (lambda: self._take(link, taken)) if self._dispatcher.outgoing(link.peer) else None
            try:
                raw = link.next_frame(cut, take)
            except ENCODE_ERRORS:
                self._park_unencodable(link, taken)
                continue
            if raw is None or not taken:
                return raw
            if len(raw) <= self._limits.frame_bytes_max:
                link.adapt(len(raw), self._limits)
                return raw
            link.take_back()
            self._split_or_park(link, taken, len(raw))

    def _take(self, link: Link, taken: Taken) -> list[Any]:
        blocks: list[Any] = []
        room = link.frame_messages
        for target in self._dispatcher.order:
            queue = target.queues[link.peer]
            while room > 0 and len(queue):
                batch = queue.take(room)
                room -= len(batch.ids)
                taken.append((target, batch))
                blocks.append(encode_block(target.typename, target.payloads, batch))
        return blocks

    def _split_or_park(self, link: Link, taken: Taken, size: int) -> None:
        """A frame is larger than the transport takes: try half of the messages. One that is too large alone is parked."""
        messages = sum(len(batch.ids) for _, batch in taken)
        if messages == 1:
            ((target, batch),) = taken
            limit = self._limits.frame_bytes_max
            reason = f"the message takes {size} bytes, and a frame between shards has at most {limit}; send less, or in pieces"
            self._park(target, batch, reason)
        else:
            for target, batch in reversed(taken):
                target.queues[link.peer].put_back(batch)
            link.frame_messages = max(1, messages // 2)
        taken.clear()

    def _park_unencodable(self, link: Link, taken: Taken) -> None:
        """A message has a value that cannot be encoded, which its constructor let pass: find it, park it, keep the others."""
        for target, batch in reversed(taken):
            good: list[Batch] = []
            for single in singles(batch):
                try:
                    encode_frame(0, 0, 0, [encode_block(target.typename, target.payloads, single)])
                except ENCODE_ERRORS as error:
                    reason, _ = describe_error(error, 0)
                    self._park(target, single, f"the payload cannot be encoded: {reason}")
                else:
                    good.append(single)
            for single in reversed(good):
                target.queues[link.peer].put_back(single)
        taken.clear()

    def _park(self, target: FunctionType, single: Batch, reason: str) -> None:
        ((id, sender, value),) = zip(single.ids, single.senders or [None], single.values, strict=True)
        address = Address(target.typename, id)
        self._dispatcher.letters.park(address, sender_of(sender, single.sender_type), target.payloads, value, reason)
