"""``NodeHandle``: a running node in the hands of an async program, on Trio or asyncio."""

# ruff: noqa: ASYNC109 - a request's time is also known to the node, and a key can be asked again
from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any, Literal, Protocol, Self, TypeVar, overload

from shardfun.embedding.calls import Calls, Reader, address_of, message_of, reply_of
from shardfun.embedding.node_thread import Call, Result
from shardfun.model.address import Address
from shardfun.model.questions import PAGE_DEFAULT, PAGE_MAX, ListAnswer, StateAnswer
from shardfun.model.status import NodeStatus
from shardfun.sdk.app import Message

T = TypeVar("T")


class Loop(Protocol):
    """How an async library waits for another thread."""

    async def wait(self, call: Call[T]) -> T:
        """The result of a call; a wait that is cancelled gives the call up."""

    async def until(self, result: Result[Any]) -> None:
        """Until it is done, whatever came of it; a wait that is cancelled leaves it going on."""


class NodeHandle:
    """What ``async with Supervisor(...)`` gives.

    All methods may be called by many tasks at once, and be cancelled. If the node has failed, they raise the reason; if it has
    ended, ``UnavailableError``.
    """

    def __init__(self, calls: Calls, loop: Loop) -> None:
        self._calls = calls
        self._wait = loop.wait
        self._loop = loop

    # ---- messages -------------------------------------------------------------------------------------------------------
    @overload
    async def send(self, address: Address, message: Any, /) -> None: ...
    @overload
    async def send(self, typename: str, id: str, message: Any, /) -> None: ...
    async def send(self, target: Address | str, /, *rest: Any) -> None:
        """Send a message. When this returns it is durable, and will be processed exactly once, whatever fails.

        If it is cancelled, the message may have been taken in or not.

        Raises:
            UnknownTargetError: there is no such function.
            PayloadTypeError: the function does not take such a message, or the id is none.
            BacklogFullError: too many messages wait for their checkpoint; ``retry_after_s`` tells when to try again.
            StorageError: it could not be written.
        """
        await self._wait(self._calls.send([message_of(target, rest)]))

    async def send_all(self, messages: Iterable[Message]) -> None:
        """Send many messages at once, which costs about as much as one: they become durable together, or none does.

        Raises as ``send``.
        """
        await self._wait(self._calls.send(messages))

    @overload
    async def ask(
        self, address: Address, message: Any, /, *, key: str | None = None, timeout: float | None = None, reply_type: Any = None
    ) -> Any: ...
    @overload
    async def ask(
        self,
        typename: str,
        id: str,
        message: Any,
        /,
        *,
        key: str | None = None,
        timeout: float | None = None,
        reply_type: Any = None,
    ) -> Any: ...
    async def ask(
        self, target: Address | str, /, *rest: Any, key: str | None = None, timeout: float | None = None, reply_type: Any = None
    ) -> Any:
        """Send a message and wait for what the function replies (``ctx.reply``). The reply is final: a checkpoint contains all
        that led to it.

        Args:
            key: names the request: asked again with it, also after a crash, it is not processed twice but gives the same reply.
            timeout: seconds to wait.
            reply_type: the class of the reply. Without it, a reply of a type that some function takes as a message is of that
                class, and any other is plain: a dict, a list, a scalar.

        Raises:
            ReplyTimeoutError: there is no reply in time. The request goes on.
            RequestConflictError: the key belongs to another request.
            UnknownTargetError, PayloadTypeError, BacklogFullError, StorageError: as ``send``.
        """
        reply = await self._wait(self._calls.ask(message_of(target, rest), key, timeout))
        return reply_of(self._calls.targets, reply, reply_type)

    # ---- results and state ----------------------------------------------------------------------------------------------
    def egress(self, name: str, *, after: str | None = None, start: Literal["oldest", "newest"] = "oldest") -> EgressRecords:
        """The published records of an egress of kind ``stream`` or ``http``: ``async for record in node.egress("late")``.

        Args:
            after: ``position`` of an iterator that has come so far, perhaps in an earlier run.
            start: without ``after``, where to begin: at the oldest record that is kept, or at what is published from now on.

        Raises:
            ConfigurationError: there is no such egress, or it is of another kind.
        """
        return EgressRecords(self._calls.read(name, after, start), self._loop)

    @overload
    async def query(
        self,
        address: Address,
        /,
        *,
        part: str | None = None,
        at: Literal["live", "checkpoint"] = "live",
        after: str | None = None,
        limit: int = PAGE_DEFAULT,
    ) -> StateAnswer: ...
    @overload
    async def query(
        self,
        typename: str,
        id: str,
        /,
        *,
        part: str | None = None,
        at: Literal["live", "checkpoint"] = "live",
        after: str | None = None,
        limit: int = PAGE_DEFAULT,
    ) -> StateAnswer: ...
    async def query(
        self,
        target: Address | str,
        /,
        *rest: Any,
        part: str | None = None,
        at: Literal["live", "checkpoint"] = "live",
        after: str | None = None,
        limit: int = PAGE_DEFAULT,
    ) -> StateAnswer:
        """The state of an address: ``exists``, ``fields``, and the beginning of its maps, buffers and registries as ``parts``.

        Args:
            part: only this map, buffer or registry.
            at: ``live``: as the next message would see it; ``checkpoint``: as of the last checkpoint.
            after: ``next`` of an answer, to go on with a part.
            limit: items of each part, at most.

        Raises:
            UnknownTargetError: there is no such function or part.
            UnavailableError: the shard does not answer in time.
        """
        return await self._wait(self._calls.query(address_of(target, rest), at, part, after, limit))

    async def list(self, typename: str, *, after: str | None = None, limit: int = PAGE_DEFAULT) -> ListAnswer:
        """One page of the ids of a function type that have something stored, as of the last checkpoint.

        Args:
            after: ``next`` of the page before.
        """
        return await self._wait(self._calls.ids(typename, after, limit))

    async def scan(self, typename: str) -> AsyncIterator[str]:
        """All ids of a function type that have something stored: ``async for id in node.scan("shop/cart")``."""
        after: str | None = None
        while True:
            page = await self._wait(self._calls.ids(typename, after, PAGE_MAX))
            for id in page.ids:
                yield id
            if page.next is None:
                return
            after = page.next

    # ---- the node -------------------------------------------------------------------------------------------------------
    async def checkpoint(self) -> str:
        """Take a checkpoint of all that has happened so far, now; its name.

        Raises:
            UnavailableError: it is not complete in time.
        """
        return (await self._wait(self._calls.checkpoint())).checkpoint

    async def statistics(self) -> NodeStatus:
        """The node's figures; also after it has ended."""
        result = self._calls.statistics()
        await self._loop.until(result)
        return result.result()

    async def kill_shard(self, shard: int) -> int:
        """SIGKILL the process of a shard, for tests: the node recovers. Returns its process id, 0 if it had none at the moment."""
        return await self._wait(self._calls.kill_shard(shard))

    async def stop(self) -> NodeStatus:
        """Stop the node at a checkpoint before the block ends; its last figures."""
        self._calls.thread.request_stop()
        return await self.wait()

    async def wait(self) -> NodeStatus:
        """Until the node has ended by itself (with ``endless=False``: when its input is used up) or was stopped; its last figures."""
        ended = self._calls.thread.ended
        await self._loop.until(ended)
        return ended.result()


class EgressRecords:
    """Iterates over the records of an egress: ``async for``. Ends when the node has ended and everything was read.

    ``position``: the event id of the last record; ``after=position`` goes on behind it.
    """

    def __init__(self, reader: Reader, loop: Loop) -> None:
        self.position: str | None = None
        self._reader = reader
        self._loop = loop

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        """The next record, as JSON has it. A wait that is cancelled loses none.

        Raises:
            EventIdError: ``after`` is no position in this stream, or the records behind it were deleted.
        """
        while (found := self._reader.take()) is None:
            more = self._reader.more()
            await self._loop.until(more.result)
            if not self._reader.received(more):
                raise StopAsyncIteration
        self.position, record = found
        return record

    async def aclose(self) -> None:
        """Stop reading. An iterator that nobody holds any more does it by itself."""
        self._reader.close()

    def __del__(self) -> None:
        self._reader.close()
