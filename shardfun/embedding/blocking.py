"""``BlockingSupervisor``: a node inside a program without an event loop. As ``Supervisor``, but its methods block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

from shardfun.config.schema import Config
from shardfun.embedding.calls import Calls, Reader, address_of, message_of, reply_of
from shardfun.embedding.node_thread import Call
from shardfun.embedding.supervisor import Started, combined
from shardfun.model.address import Address
from shardfun.model.questions import PAGE_DEFAULT, PAGE_MAX, ListAnswer, StateAnswer
from shardfun.model.status import NodeStatus
from shardfun.sdk.app import App, Message

T = TypeVar("T")


class BlockingNode:
    """What ``with BlockingSupervisor(...)`` gives: the methods of ``NodeHandle``, which block. Any thread may call them."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def _wait(self, call: Call[T]) -> T:
        try:
            return call.result.result()
        except BaseException:  # a Ctrl-C, mostly
            self._calls.thread.abandon(call)
            raise

    # ---- messages -------------------------------------------------------------------------------------------------------
    @overload
    def send(self, address: Address, message: Any, /) -> None: ...
    @overload
    def send(self, typename: str, id: str, message: Any, /) -> None: ...
    def send(self, target: Address | str, /, *rest: Any) -> None:
        """Send a message; durable when this returns. See ``NodeHandle.send``."""
        self._wait(self._calls.send([message_of(target, rest)]))

    def send_all(self, messages: Iterable[Message]) -> None:
        """Send many messages at once, all or none of them."""
        self._wait(self._calls.send(messages))

    @overload
    def ask(
        self, address: Address, message: Any, /, *, key: str | None = None, timeout: float | None = None, reply_type: Any = None
    ) -> Any: ...
    @overload
    def ask(
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
    def ask(
        self, target: Address | str, /, *rest: Any, key: str | None = None, timeout: float | None = None, reply_type: Any = None
    ) -> Any:
        """Send a message and wait for its reply. See ``NodeHandle.ask``."""
        reply = self._wait(self._calls.ask(message_of(target, rest), key, timeout))
        return reply_of(self._calls.targets, reply, reply_type)

    # ---- results and state ----------------------------------------------------------------------------------------------
    def egress(self, name: str, *, after: str | None = None, start: Literal["oldest", "newest"] = "oldest") -> BlockingRecords:
        """The published records of an egress: ``for record in node.egress("late")``. See ``NodeHandle.egress``."""
        return BlockingRecords(self._calls.read(name, after, start))

    @overload
    def query(
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
    def query(
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
    def query(
        self,
        target: Address | str,
        /,
        *rest: Any,
        part: str | None = None,
        at: Literal["live", "checkpoint"] = "live",
        after: str | None = None,
        limit: int = PAGE_DEFAULT,
    ) -> StateAnswer:
        """The state of an address. See ``NodeHandle.query``."""
        return self._wait(self._calls.query(address_of(target, rest), at, part, after, limit))

    def list(self, typename: str, *, after: str | None = None, limit: int = PAGE_DEFAULT) -> ListAnswer:
        """One page of the ids of a function type. See ``NodeHandle.list``."""
        return self._wait(self._calls.ids(typename, after, limit))

    def scan(self, typename: str) -> Iterator[str]:
        """All ids of a function type that have something stored."""
        after: str | None = None
        while True:
            page = self._wait(self._calls.ids(typename, after, PAGE_MAX))
            yield from page.ids
            if page.next is None:
                return
            after = page.next

    # ---- the node -------------------------------------------------------------------------------------------------------
    def checkpoint(self) -> str:
        """Take a checkpoint of all that has happened so far, now; its name."""
        return self._wait(self._calls.checkpoint()).checkpoint

    def statistics(self) -> NodeStatus:
        """The node's figures; also after it has ended."""
        return self._calls.statistics().result()

    def kill_shard(self, shard: int) -> int:
        """SIGKILL the process of a shard, for tests. Returns its process id, 0 if it had none at the moment."""
        return self._wait(self._calls.kill_shard(shard))

    def stop(self) -> NodeStatus:
        """Stop the node at a checkpoint before the block ends; its last figures."""
        self._calls.thread.request_stop()
        return self.wait()

    def wait(self, timeout: float | None = None) -> NodeStatus:
        """Until the node has ended by itself (with ``endless=False``: when its input is used up) or was stopped; its last figures.

        Raises:
            TimeoutError: it still runs after ``timeout`` seconds.
        """
        return self._calls.thread.ended.result(timeout)


class BlockingRecords:
    """Iterates over the records of an egress, and waits for more. Ends when the node has ended and everything was read.

    ``position``: the event id of the last record; ``after=position`` goes on behind it.
    """

    def __init__(self, reader: Reader) -> None:
        self.position: str | None = None
        self._reader = reader

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        """The next record, as JSON has it."""
        while (found := self._reader.take()) is None:
            more = self._reader.more()
            more.result.exception()  # waits
            if not self._reader.received(more):
                raise StopIteration
        self.position, record = found
        return record

    def close(self) -> None:
        """Stop reading. An iterator that nobody holds any more does it by itself."""
        self._reader.close()

    def __del__(self) -> None:
        self._reader.close()


class BlockingSupervisor:
    """A node inside a program without an event loop::

        with BlockingSupervisor(app, data_dir="data/shop") as node:
            node.send("shop/cart", "c1", Add("book"))

    Arguments, errors, and what leaving the block does: as ``Supervisor``. A block cannot be cancelled, so a node that has failed is
    noticed with the next call or at the end of the block.
    """

    def __init__(
        self,
        app: App | str | None = None,
        config: Path | str | Config | Mapping[str, Any] | None = None,
        *,
        data_dir: Path | str | None = None,
        shards: int | None = None,
        fresh: bool = False,
        **settings: Any,
    ) -> None:
        self._app = app
        self._config = config
        self._settings = combined(settings, data_dir, shards)
        self._fresh = fresh
        self._started: Started | None = None

    def __enter__(self) -> BlockingNode:
        """Start the node, and wait until it runs."""
        if self._started is not None:
            raise RuntimeError("this BlockingSupervisor has a node already; make another one, on another data directory")
        started = self._started = Started(self._app, self._config, self._settings, fresh=self._fresh)
        try:
            started.thread.start()
            started.thread.started.result()
            return BlockingNode(started.calls)
        except BaseException as error:
            self._leave(error)
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Stop the node: at a checkpoint, or at once if there is an error."""
        outcome = self._leave(error)
        if outcome is not None and outcome is not error:
            raise outcome from outcome.__cause__

    def _leave(self, error: BaseException | None) -> BaseException | None:
        started = self._started
        assert started is not None
        thread = started.thread
        interrupt: KeyboardInterrupt | None = None
        try:
            hurry = error is not None
            while not thread.ended.done():
                try:
                    if hurry:
                        thread.give_up()
                    else:
                        thread.request_stop()
                    _until(thread.ended)
                except KeyboardInterrupt as pressed:
                    interrupt, hurry = pressed, True
            thread.join()
            outcome = started.outcome(error)
        finally:
            if thread.ended.done():  # else another Ctrl-C has come in between, and the node still uses its folder
                started.clean_up()
            self._started = None
        if interrupt is not None:
            raise interrupt
        return outcome


def _until(ended: Future[Any]) -> None:
    ended.exception()  # waits
