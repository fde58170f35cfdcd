"""Trio's side of an embedded node: how a Trio task waits for the node's thread, and how the node's failure reaches its block."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

import trio

from shardfun.embedding.node_thread import Call, NodeThread, Result

T = TypeVar("T")


class TrioSide:
    """Made in the task of the block."""

    def __init__(self, thread: NodeThread) -> None:
        self._thread = thread
        self._token = trio.lowlevel.current_trio_token()
        self._scope = trio.CancelScope()
        self._inside = False

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
        """Until ``ended``, come what may. The first cancellation or Ctrl-C calls ``hurry``, and is raised in the end.

        Args:
            failing: an error is on its way already, which no cancellation may take the place of.
        """
        interrupt: KeyboardInterrupt | None = None
        try:
            if not failing:
                await self.until(ended)
                return
        except trio.Cancelled:
            hurry()
            await self._until_shielded(ended)
            raise
        except KeyboardInterrupt as error:
            hurry()
            interrupt = error
        interrupt = await self._until_shielded(ended) or interrupt
        if interrupt is not None:
            raise interrupt

    async def _until_shielded(self, ended: Result[Any]) -> KeyboardInterrupt | None:
        """Until ``ended``; a Ctrl-C that came meanwhile."""
        interrupt = None
        with trio.CancelScope(shield=True):
            while not ended.done():
                try:
                    await self.until(ended)
                except KeyboardInterrupt as error:
                    interrupt = error
        return interrupt

    async def until(self, result: Result[Any]) -> None:
        """Until it is done, whatever came of it; a wait that is cancelled leaves it going on."""
        done = trio.Event()

        def wake() -> None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(done.set)

        result.watch(done, wake)
        try:
            await done.wait()
        finally:
            result.unwatch(done)

    # ---- the block ------------------------------------------------------------------------------------------------------
    def begin(self) -> None:
        """The block begins: it is cancelled if the node fails."""
        self._scope.__enter__()
        self._inside = True
        self._thread.ended.add_done_callback(self._node_ended)

    def end(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> BaseException | None:
        """The block is over; what of its error remains: not the cancellation that was made here."""
        self._inside = False
        try:
            swallowed = self._scope.__exit__(kind, error, traceback)
        except BaseException as rest:  # noqa: BLE001 - a group without what was cancelled here
            return rest
        return None if swallowed else error

    def _node_ended(self, ended: Future[Any]) -> None:
        if ended.exception() is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._cancel)

    def _cancel(self) -> None:
        if self._inside:
            self._scope.cancel()
