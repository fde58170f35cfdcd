"""asyncio's side of an embedded node: how an asyncio task waits for the node's thread, and how the node's failure reaches its block."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

from shardfun.embedding.node_thread import Call, NodeThread, Result

T = TypeVar("T")


class AsyncioSide:
    """Made in the task of the block."""

    def __init__(self, thread: NodeThread) -> None:
        self._thread = thread
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None, "a coroutine of asyncio runs in a task"
        self._task = task
        self._cancelling = task.cancelling()
        self._inside = False
        self._interrupted = False
        self._late = False

    # ---- waiting --------------------------------------------------------------------------------------------------------
    async def wait(self, call: Call[T]) -> T:
        """The result of a call; a wait that is cancelled gives the call up."""
        try:
            await self.until(call.result)
        except BaseException:
            self._thread.abandon(call)
            raise
        return call.result.result()

    async def wait_through(self, ended: Result[Any], hurry: Callable[[], None], *, failing: bool) -> None:
        """Until ``ended``, come what may. The first cancellation calls ``hurry``, and is raised in the end.

        Args:
            failing: an error is on its way already, which no cancellation may take the place of.
        """
        cancelled: asyncio.CancelledError | None = None
        while not ended.done():
            try:
                await self.until(ended)
            except asyncio.CancelledError as error:
                if self._late:  # made here, for a block that was over by then
                    self._late = False
                    continue
                cancelled = cancelled or error
                hurry()
        if cancelled is not None and not failing:
            raise cancelled

    async def until(self, result: Result[Any]) -> None:
        """Until it is done, whatever came of it; a wait that is cancelled leaves it going on."""
        done = self._loop.create_future()

        def settle() -> None:
            if not done.done():
                done.set_result(None)

        def wake() -> None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(settle)

        result.watch(done, wake)
        try:
            await done
        finally:
            result.unwatch(done)

    # ---- the block ------------------------------------------------------------------------------------------------------
    def begin(self) -> None:
        """The block begins: its task is cancelled if the node fails."""
        self._inside = True
        self._thread.ended.add_done_callback(self._node_ended)

    def end(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> BaseException | None:
        """The block is over; what of its error remains: not the cancellation that was made here. As ``asyncio.timeout`` does it."""
        del kind, traceback
        self._inside = False
        if not self._interrupted:
            return error
        remaining = self._task.uncancel()
        if not isinstance(error, asyncio.CancelledError):
            self._late = error is None
            return error
        return None if remaining <= self._cancelling else error

    def _node_ended(self, ended: Future[Any]) -> None:
        if ended.exception() is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._inside and not self._interrupted:
            self._interrupted = True
            self._task.cancel()
