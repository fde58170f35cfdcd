"""A node in a thread of its own, with a Trio of its own: the one way in which all three fronts run it.

Why not on the caller's Trio: a program may compute for seconds without a checkpoint, and a node that cannot answer, publish or
replace a dead shard meanwhile is none. A Ctrl-C would hit whatever code runs in the main thread, in the middle of a step. And one
way is tested three times as much as three ways. What it costs is two changes of threads per call, some 100 microseconds.

The thread is a daemon, so that a program that never leaves its block can still end; then ``atexit`` ends the node.
"""

from __future__ import annotations

import atexit
import contextvars
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Generic, TypeVar

import trio

from shardfun.errors import ShardfunError, UnavailableError
from shardfun.model.status import NodeStatus
from shardfun.supervisor.node import Node
from shardfun.telemetry.node_log import Destination, log_to

T = TypeVar("T")


AT_EXIT_S = 15.0
"""How long the end of a program waits for a node whose block was never left."""


class Result(Future[T]):
    """A future that can be watched for a while: a plain one keeps each callback until it is done."""

    def __init__(self) -> None:
        super().__init__()
        self._watchers: dict[object, Callable[[], None]] = {}
        self._watching = threading.Lock()
        self.add_done_callback(self._wake)

    def watch(self, watcher: object, wake: Callable[[], None]) -> None:
        """Have ``wake`` called, in any thread, when this is done; at once if it is."""
        with self._watching:
            if not self.done():
                self._watchers[watcher] = wake
                return
        wake()

    def unwatch(self, watcher: object) -> None:
        """Not any more."""
        with self._watching:
            self._watchers.pop(watcher, None)

    def _wake(self, _: Future[T]) -> None:
        with self._watching:
            watchers, self._watchers = self._watchers, {}
        for wake in watchers.values():
            wake()


class Call(Generic[T]):
    """Work on the node's Trio that another thread waits for."""

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self.result: Result[T] = Result()
        self._work = work
        self._scope = trio.CancelScope()

    async def run(self, refusal: Callable[[], BaseException], ending: Callable[[], bool]) -> None:
        """Do it. What comes of it, an error too, is in ``result``.

        Args:
            refusal: what is raised at the caller if the node ends meanwhile.
            ending: whether the node is about to end.
        """
        try:
            with self._scope:
                try:
                    self._settle(await self._work())
                except UnavailableError:
                    if not ending():
                        raise
                    # A part of the node ended before the rest; the caller gets the reason for all of it, when that is known.
                    await trio.sleep_forever()
            if self._scope.cancelled_caught:  # somebody may still wait: another task, another thread
                self.fail(UnavailableError("this call was given up"))
        except trio.Cancelled:
            self.fail(refusal())
            raise
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """There will be no result."""
        with suppress(InvalidStateError):
            self.result.set_exception(error)

    def cancel(self) -> None:
        """Nobody waits any more. On the node's Trio."""
        self._scope.cancel()

    def _settle(self, value: T) -> None:
        with suppress(InvalidStateError):
            self.result.set_result(value)


class NodeThread:
    """See the module. Every method may be called from every thread.

    Args:
        log: where its log goes.
    """

    def __init__(self, node: Node, log: Destination) -> None:
        self.node = node
        self.started: Result[None] = Result()
        """Done when all shards run, or the node has ended before that."""
        self.ended: Result[NodeStatus] = Result()
        """Done when nothing of the node is left. Its exception is why the node failed."""
        self._log = log
        self._gate = threading.Lock()
        self._begun = False
        self._ready = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._closed = False
        self._error: BaseException | None = None
        self._final: NodeStatus | None = None
        self._pid = os.getpid()
        context = contextvars.Context()  # not the caller's: what is set there, as a log context, is not about the node
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="shardfun node", daemon=True)

    def start(self) -> None:
        """Start the node. Wait for ``started``; whatever happens, later for ``ended``."""
        atexit.register(self._at_exit)
        try:
            self._thread.start()
        except RuntimeError as error:  # there is no thread to be had
            self._error = UnavailableError(f"no thread for the node: {error}")
            self._run_nothing()

    def give_up(self) -> None:
        """Stop at once, also if ``start`` was never called or was interrupted: after that ``ended`` will be done."""
        with self._gate:
            if not self._begun and not self.ended.done():
                self._run_nothing()
                return
        self.stop_now()

    def _run_nothing(self) -> None:
        self._ready.set()
        atexit.unregister(self._at_exit)
        error = self._error or UnavailableError("the node was not started")
        for result in (self.started, self.ended):
            if not result.done():
                result.set_exception(error)

    # ---- from outside ---------------------------------------------------------------------------------------------------
    def submit(self, work: Callable[[], Awaitable[T]]) -> Call[T]:
        """Have ``work`` done on the node's Trio."""
        call = Call(work)
        if not self._soon(lambda: self._begin(call)):
            call.fail(self.refusal())
        return call

    def abandon(self, call: Call[T]) -> None:
        """Nobody waits for this call any more."""
        if not call.result.done():
            self._soon(call.cancel)

    def request_stop(self) -> None:
        """Stop at a checkpoint; after ``supervision.stop_timeout`` at once."""
        self._soon(self.node.request_stop)

    def stop_now(self) -> None:
        """Stop at once, at the last complete checkpoint."""
        self._soon(self.node.stop_now)

    def join(self) -> None:
        """After ``ended``: until the thread is gone, too."""
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def failure(self) -> BaseException | None:
        """Why the node has failed; ``None`` if it has not, or has not ended."""
        return self.ended.exception() if self.ended.done() else None

    def refusal(self) -> BaseException:
        """What whoever asks an ended node for something gets."""
        if self._error is not None:
            return self._error
        state = "ended" if self._final is None else self._final.state
        return UnavailableError(f"the node has {state}: nothing can be sent to it or asked any more")

    @property
    def final(self) -> NodeStatus | None:
        """The last status, when the node has ended without an error."""
        return self._final

    def _soon(self, action: Callable[[], object]) -> bool:
        """Have ``action`` run on the node's Trio; ``False``: that is over."""
        self._ready.wait()
        token = self._token
        if token is None:
            return False
        try:
            token.run_sync_soon(action)
        except trio.RunFinishedError:
            return False
        return True

    # ---- in the thread --------------------------------------------------------------------------------------------------
    def _run(self) -> None:
        with self._gate:
            if self.ended.done():
                return  # given up before it began
            self._begun = True
        log_to(self._log)
        try:
            trio.run(self._main)
        except BaseException as error:  # noqa: BLE001 - raised where the node is waited for
            self._error = self._error or _only(error)
        self._ready.set()
        atexit.unregister(self._at_exit)
        if not self.started.done():
            self.started.set_exception(self.refusal())
        if self._error is not None:
            self.ended.set_exception(self._error)
        else:
            assert self._final is not None
            self.ended.set_result(self._final)

    async def _main(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._token = trio.lowlevel.current_trio_token()
            self._ready.set()
            nursery.start_soon(self._watch_start)
            try:
                self._final = await self.node.run()
            except ShardfunError as error:
                self._error = error
            finally:
                self._closed = True
            nursery.cancel_scope.cancel()

    async def _watch_start(self) -> None:
        await self.node.running.wait()
        self.started.set_result(None)

    def _begin(self, call: Call[T]) -> None:
        if self._closed or self._nursery is None:
            call.fail(self.refusal())
        else:
            self._nursery.start_soon(call.run, self.refusal, lambda: self.node.ending)

    def _at_exit(self) -> None:
        if os.getpid() == self._pid:
            self.stop_now()
            self._thread.join(AT_EXIT_S)


def _only(error: BaseException) -> BaseException:
    """The error in a group that holds a single one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
