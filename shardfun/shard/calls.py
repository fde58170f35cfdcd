"""Calls in a shard process: coroutines as Trio tasks, blocking code in threads, asyncio code under trio-asyncio.

Results come back on the loop through ``Completions``, like those of the workers, so the core is never touched from a task or a
thread. Calls belong to an incarnation: a reset cancels them, and what still comes of them is dropped. A thread cannot be
cancelled: it is given up, and when all threads are held by such, the process has to go (``stuck``).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

import trio

from shardfun.core.effects import StartCall
from shardfun.errors import ConfigurationError, FunctionTimeoutError
from shardfun.ports import RunInThread
from shardfun.shard.machine import run_abandonable
from shardfun.shard.worker import Completions

Done = Callable[[int, Any, BaseException | None], None]
"""Called on the loop with the number of a call, its result, and what it raised."""


class Calls:
    """The calls of a shard process, over incarnations.

    Args:
        threads: of blocking code at once.
        run_in_thread: runs it; who is cancelled leaves it behind.
    """

    def __init__(self, completions: Completions, threads: int, run_in_thread: RunInThread = run_abandonable) -> None:
        self._completions = completions
        self._limiter = trio.CapacityLimiter(threads)
        self._run_in_thread = run_in_thread
        self._given_up = 0
        self._scopes: dict[trio.CancelScope, None] = {}
        self._nursery: trio.Nursery | None = None
        self._asyncio_loop: Any = None

    @property
    def stuck(self) -> bool:
        """Whether all threads are held by blocking code that was given up."""
        return self._given_up >= self._limiter.total_tokens

    async def run(self, *, asyncio: bool, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The task above all calls, until cancelled.

        Args:
            asyncio: some function needs an asyncio event loop.

        Raises:
            ConfigurationError: that is not installed.
        """
        async with _open_asyncio_loop() if asyncio else nullcontext() as loop, trio.open_nursery() as nursery:
            self._asyncio_loop = loop
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    def reset(self) -> None:
        """The incarnation is over: end all calls. Nobody waits for them."""
        scopes, self._scopes = self._scopes, {}
        for scope in scopes:
            scope.cancel()

    def start(self, call: StartCall, done: Done) -> None:
        """Begin a call; ``done`` hears of its end, unless a reset comes first."""
        assert self._nursery is not None
        scope = trio.CancelScope()
        self._scopes[scope] = None
        self._nursery.start_soon(self._run, call, scope, done)

    async def _run(self, call: StartCall, scope: trio.CancelScope, done: Done) -> None:
        value: Any = None
        error: BaseException | None = None
        with scope:
            value, error = await self._outcome(call, scope)
        if scope not in self._scopes:
            return  # a reset has come
        del self._scopes[scope]
        if scope.cancelled_caught:
            assert call.timeout_ms is not None
            error = FunctionTimeoutError(f"{call.what} took longer than its timeout of {call.timeout_ms / 1000:g} s")
        self._completions.post(lambda: done(call.number, value, error))

    async def _outcome(self, call: StartCall, scope: trio.CancelScope) -> tuple[Any, BaseException | None]:
        """What a call returns or raises. By itself, so that no frame keeps an error whose traceback knows it."""
        try:
            return await (self._in_thread if call.style == "blocking" else self._await)(call, scope), None
        except BaseException as raised:  # user code may raise SystemExit too; it must not take the shard down
            if _is_cancelled(raised) and trio.current_effective_deadline() == -math.inf:  # else it is one of its own
                raise
            return None, raised

    async def _await(self, call: StartCall, scope: trio.CancelScope) -> Any:
        _begin_timeout(call, scope)
        found = call.run()
        if not hasattr(found, "__await__"):
            return found
        if not call.asyncio:
            return await found
        if self._asyncio_loop is None:
            msg = f"{call.what} needs asyncio, and no function declares asyncio=True, so there is no asyncio event loop"
            raise RuntimeError(msg)
        import trio_asyncio

        trio_asyncio.current_loop.set(self._asyncio_loop)  # a task has the variables of who started it, not of its nursery
        return await trio_asyncio.aio_as_trio(lambda: found)()

    async def _in_thread(self, call: StartCall, scope: trio.CancelScope) -> Any:
        held = _Held(self)
        await self._limiter.acquire_on_behalf_of(held)
        try:
            _begin_timeout(call, scope)  # what waits for a thread has not begun
            return await self._run_in_thread(lambda: held.run(call.run))
        finally:
            self._given_up += held.leave()

    def _ended(self, held: _Held, change: int) -> None:
        """On the loop: a thread is free again."""
        self._given_up += change
        self._limiter.release_on_behalf_of(held)

    def thread_ended(self, held: _Held, change: int) -> None:
        """From a thread: it is done, or was given up and has ended after all (``change`` is -1 then)."""
        self._completions.post(lambda: self._ended(held, change))


class _Held:
    """One blocking call and the thread it holds, which it may go on holding after it was given up."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._lock = threading.Lock()
        self._ended = False
        self._given_up = False
        self._started = False

    def run(self, code: Callable[[], Any]) -> Any:
        """In the thread."""
        with self._lock:
            if self._given_up:  # before the thread came to work: it has been counted as free already
                return None
            self._started = True
        try:
            return code()
        finally:
            with self._lock:
                self._ended = True
                given_up = self._given_up
            self._calls.thread_ended(self, -1 if given_up else 0)

    def leave(self) -> int:
        """On the loop, when nobody waits any more: 1 if the thread goes on, and so is given up."""
        with self._lock:
            self._given_up = not self._ended
            free = not self._started
        if self._given_up and free:  # cancelled before there was a thread, or before it came to work
            self._calls.thread_ended(self, -1)
        return int(self._given_up)


def _is_cancelled(error: BaseException) -> bool:
    """Whether that is all it says: a nursery of the function raises it as a group."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_cancelled, error.exceptions))
    return isinstance(error, trio.Cancelled)


def _begin_timeout(call: StartCall, scope: trio.CancelScope) -> None:
    if call.timeout_ms is not None:
        scope.deadline = trio.current_time() + call.timeout_ms / 1000


def _open_asyncio_loop() -> AbstractAsyncContextManager[Any]:
    try:
        import trio_asyncio
    except ImportError as error:
        msg = "a function declares asyncio=True: expected trio-asyncio to be installed; pip install 'shardfun[asyncio]'"
        raise ConfigurationError(msg) from error
    loop: AbstractAsyncContextManager[Any] = trio_asyncio.open_loop()
    return loop
