"""What a program asks of its node, as calls to the node's thread: the same for the async handle and the blocking one.

A message is checked and encoded in the caller's thread, so that a mistake is raised where it was made.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Literal, TypeVar

import trio

from shardfun.egress.tail import EgressTail
from shardfun.embedding.node_thread import Call, NodeThread, Result
from shardfun.errors import ConfigurationError, PayloadTypeError, UnavailableError, nearest
from shardfun.intake.entries import Entry, MessageEntry, Reply
from shardfun.intake.targets import Targets
from shardfun.model.address import Address
from shardfun.model.payload import payload_type
from shardfun.model.questions import (
    CheckpointAnswer,
    CheckpointQuestion,
    ListAnswer,
    ListQuestion,
    Query,
    StateAnswer,
    StateQuestion,
)
from shardfun.model.status import NodeStatus
from shardfun.sdk.app import Message
from shardfun.supervisor.entrance import Entrance, request_entry

A = TypeVar("A")

READABLE = ("stream", "http")
"""Kinds of egress whose records stay in the data directory for readers."""
BATCH_RECORDS = 200
"""Records of an egress that a reader gets with one change of threads."""

Batch = list[tuple[str, Any]]


class Calls:
    """See the module.

    Args:
        targets: the application's functions.
    """

    def __init__(self, thread: NodeThread, targets: Targets) -> None:
        self.thread = thread
        self.targets = targets
        self._node = thread.node

    # ---- messages -------------------------------------------------------------------------------------------------------
    def send(self, messages: Iterable[Message]) -> Call[None]:
        """Take messages in, all or none of them."""
        entries: list[Entry] = []
        for typename, id, value in messages:
            entries.append(MessageEntry(typename, id, *self.targets.encode(typename, id, value)))
        return self.thread.submit(lambda: self._entrance.send(entries))

    def ask(self, message: Message, key: str | None, timeout_s: float | None) -> Call[Reply]:
        """Take a request in, and wait for its reply."""
        typename, id, value = message
        entry = request_entry(typename, id, *self.targets.encode(typename, id, value), key)
        return self.thread.submit(lambda: self._entrance.ask(entry, timeout_s))

    @property
    def _entrance(self) -> Entrance:
        if self._node.entrance is None:
            raise UnavailableError("the node has not started yet")
        return self._node.entrance

    # ---- looking --------------------------------------------------------------------------------------------------------
    def query(
        self, address: Address, at: Literal["live", "checkpoint"], part: str | None, after: str | None, limit: int
    ) -> Call[StateAnswer]:
        """The state of an address."""
        question = StateQuestion(target=address.typename, id=address.id, at=at, part=part, after=after, limit=limit)
        return self.thread.submit(lambda: self._answer(question, StateAnswer))

    def ids(self, typename: str, after: str | None, limit: int) -> Call[ListAnswer]:
        """Some ids of a function type."""
        question = ListQuestion(typename=typename, after=after, limit=limit)
        return self.thread.submit(lambda: self._answer(question, ListAnswer))

    def checkpoint(self) -> Call[CheckpointAnswer]:
        """A checkpoint that is cut after this call."""
        return self.thread.submit(lambda: self._answer(CheckpointQuestion(), CheckpointAnswer))

    async def _answer(self, question: Query, expected: type[A]) -> A:
        answer = await self._node.answer(question)
        assert isinstance(answer, expected)
        return answer

    def statistics(self) -> Result[NodeStatus]:
        """How the node is; of one that has ended, how it was."""
        if self.thread.final is not None:
            return self.thread.ended

        async def status() -> NodeStatus:
            await trio.lowlevel.checkpoint()
            return self._node.status()

        return self.thread.submit(status).result

    # ---- processes ------------------------------------------------------------------------------------------------------
    def kill_shard(self, shard: int) -> Call[int]:
        """SIGKILL the process of a shard; its process id, 0 if it had none."""

        async def kill() -> int:
            await trio.lowlevel.checkpoint()
            shards = self._node.status().shards
            if not 0 <= shard < len(shards):
                raise ConfigurationError(f"shard: expected 0 to {len(shards) - 1}, got {shard!r}")
            pid = shards[shard].pid
            if pid:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return pid

        return self.thread.submit(kill)

    # ---- results --------------------------------------------------------------------------------------------------------
    def read(self, name: str, after: str | None, start: Literal["oldest", "newest"]) -> Reader:
        """A reader of the records of an egress.

        Raises:
            ConfigurationError: there is no such egress, or its records go elsewhere.
        """
        config = self._node.config
        egress = config.egress.get(name)
        if egress is None:
            raise ConfigurationError(f"egress {name!r}: the node has no such egress{nearest(name, config.egress)}")
        if egress.kind not in READABLE:
            kinds = " or ".join(repr(kind) for kind in READABLE)
            raise ConfigurationError(
                f"egress {name!r} is of kind {egress.kind!r}: expected {kinds}, whose records stay with the node to be read"
            )
        return Reader(self.thread, lambda: EgressTail(config.data_dir, name, config.shards, after=after, start=start))


class Reader:
    """Reads records of an egress, some at a time, with their event ids.

    No record is lost when somebody stops waiting: what a call has found is kept for the next one.

    Args:
        open_tail: blocks on the disk.
    """

    def __init__(self, thread: NodeThread, open_tail: Callable[[], EgressTail]) -> None:
        self._thread = thread
        self._open = open_tail
        self._tail: EgressTail | None = None
        self._pending: Call[Batch] | None = None
        self._found: deque[tuple[str, Any]] = deque()
        self._closed = False

    def take(self) -> tuple[str, Any] | None:
        """The next record that is here already."""
        return self._found.popleft() if self._found else None

    def more(self) -> Call[Batch]:
        """Look for more; there is always one at least. Then call ``received``."""
        if self._pending is None:
            self._pending = self._thread.submit(self._next)
            if self._closed:
                self._thread.abandon(self._pending)
        return self._pending

    def received(self, call: Call[Batch]) -> bool:
        """Take over what ``more`` has found; whether the stream goes on.

        Raises:
            ShardfunError: the node has failed, or the records cannot be read.
        """
        if call is not self._pending:
            return not self._closed  # another task has taken it over
        self._pending = None
        if self._closed:
            return False
        try:
            self._found.extend(call.result.result())
        except UnavailableError:
            if self._thread.final is None:
                raise
            # The node has ended, and everything is published: whoever reads slowly gets the rest.
            if self._tail is None:
                self._tail = self._open()
            self._found.extend(self._tail.take(BATCH_RECORDS))
        return bool(self._found)

    def close(self) -> None:
        """Nobody reads any more; who waits, and who asks again, is told that this is the end. From any thread."""
        self._closed = True
        pending = self._pending
        if pending is not None:
            self._thread.abandon(pending)

    async def _next(self) -> Batch:
        if self._tail is None:
            self._tail = await trio.to_thread.run_sync(self._open)
        batch = [await anext(self._tail)]
        return batch + (self._tail.take(BATCH_RECORDS) if self._tail.ready else [])


def message_of(target: Address | str, rest: tuple[Any, ...]) -> Message:
    """The arguments of ``send`` and ``ask``: an address or its two parts, and a message.

    Raises:
        TypeError: these are other arguments.
    """
    if isinstance(target, tuple) and len(target) == 2 and len(rest) == 1:
        return Message(str(target[0]), target[1], rest[0])
    if isinstance(target, str) and len(rest) == 2:
        return Message(target, rest[0], rest[1])
    got = ", ".join(type(argument).__name__ for argument in (target, *rest))
    msg = f"expected (address, message) or ('namespace/name', id, message), got ({got})"
    raise TypeError(msg)


def address_of(target: Address | str, rest: tuple[Any, ...]) -> Address:
    """The arguments of ``query``: an address, or its two parts.

    Raises:
        TypeError: these are other arguments.
    """
    if isinstance(target, tuple) and len(target) == 2 and not rest:
        return Address(*target)
    if isinstance(target, str) and len(rest) == 1 and isinstance(rest[0], str):
        return Address(target, rest[0])
    got = ", ".join(type(argument).__name__ for argument in (target, *rest))
    msg = f"expected (address) or ('namespace/name', id), got ({got})"
    raise TypeError(msg)


def reply_of(targets: Targets, reply: Reply, reply_type: Any) -> Any:
    """The value of a reply.

    Args:
        reply_type: its class; ``None``: the one that the application knows by the name of its type, else plain values.

    Raises:
        PayloadTypeError: it is not of that type.
    """
    try:
        if reply_type is None:
            return targets.decode(reply.type, reply.payload)
        return payload_type(reply_type, "reply_type").decode(reply.payload)
    except PayloadTypeError as error:
        raise PayloadTypeError(f"the reply to key {reply.key!r}, a {reply.type}, cannot be read: {error}") from error
