"""Calls in a shard process: coroutines as Trio tasks, blocking code in threads, asyncio code under trio-asyncio.

Results come back on the loop through ``Completions``, like those of the workers, so the core is never touched from a task or a
thread. Calls belong to an incarnation: a reset cancels them, and what still comes of them is dropped. A thread cannot be
cancelled: it is given up, and when all threads are taken by such, the process has to go.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

import structlog
import trio

from shardfun.core.effects import StartCall
from shardfun.errors import ConfigurationError, FunctionTimeoutError
from shardfun.shard.worker import Completions

Done = Callable[[int, Any, BaseException | None], None]
"""Called on the loop with the number of a call, its result, and what it raised."""

log = structlog.get_logger("shardfun.shard")


class Calls:
    """The calls of a shard process, over incarnations.

    Args:
        threads: of blocking code at once.
        stuck: called when all threads are held by blocking code that was given up.
    """

    def __init__(self, completions: Completions, threads: int, stuck: Callable[[], None]) -> None:
        self._completions = completions
        self._limiter = trio.CapacityLimiter(threads)
        self._stuck = stuck
        self._given_up = 0
        self._lock = threading.Lock()
        self._scopes: dict[trio.CancelScope, None] = {}
        self._nursery: trio.Nursery | None = None
        self._asyncio = False

    async def run(self, *, asyncio: bool, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The task above all calls, until cancelled.

        Args:
            asyncio: some function needs an asyncio event loop.

        Raises:
            ConfigurationError: that is not installed.
        """
        async with _asyncio_loop() if asyncio else nullcontext(), trio.open_nursery() as nursery:
            self._asyncio = asyncio
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
        if call.timeout_ms is not None:
            scope.deadline = trio.current_time() + call.timeout_ms / 1000
        self._scopes[scope] = None
        self._nursery.start_soon(self._run, call, scope, done)

    async def _run(self, call: StartCall, scope: trio.CancelScope, done: Done) -> None:
        value: Any = None
        error: BaseException | None = None
        with scope:
            try:
                value = await (self._in_thread(call) if call.style == "blocking" else self._await(call))
            except trio.Cancelled:
                raise
            except BaseException as raised:  # noqa: BLE001 - user code may raise SystemExit too; it must not take the shard down
                error = raised
        if scope not in self._scopes:
            return  # a reset has come
        del self._scopes[scope]
        if scope.cancelled_caught:
            assert call.timeout_ms is not None
            error = FunctionTimeoutError(f"{call.what} took longer than its timeout of {call.timeout_ms / 1000:g} s")
        self._completions.post(lambda: done(call.number, value, error))

    async def _await(self, call: StartCall) -> Any:
        if not call.asyncio:
            found = call.run()
            return await found if hasattr(found, "__await__") else found
        if not self._asyncio:
            msg = f"{call.what} needs asyncio, and no function declares asyncio=True, so there is no asyncio event loop"
            raise RuntimeError(msg)
        import trio_asyncio

        return await trio_asyncio.aio_as_trio(call.run)()

    async def _in_thread(self, call: StartCall) -> Any:
        held = _Held(self)
        try:
            return await trio.to_thread.run_sync(held.run, call.run, abandon_on_cancel=True, limiter=self._limiter)
        except trio.Cancelled:
            held.give_up()
            raise

    def note_given_up(self, change: int) -> None:
        """A thread was given up (1), or such a one has ended after all (-1). From any thread."""
        with self._lock:
            self._given_up += change
            stuck = self._given_up >= self._limiter.total_tokens
        if stuck:
            self._stuck()


class _Held:
    """One blocking call: knows whether its thread still works after it was given up."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._lock = threading.Lock()
        self._running = False
        self._given_up = False

    def run(self, code: Callable[[], Any]) -> Any:
        """In the thread."""
        self._running = True
        try:
            return code()
        finally:
            with self._lock:
                self._running = False
                given_up = self._given_up
            if given_up:
                self._calls.note_given_up(-1)

    def give_up(self) -> None:
        """On the loop."""
        with self._lock:
            self._given_up = self._running
        if self._given_up:
            self._calls.note_given_up(1)


def _asyncio_loop() -> AbstractAsyncContextManager[Any]:
    try:
        import trio_asyncio
    except ImportError as error:
        msg = "a function declares asyncio=True: expected trio-asyncio to be installed; pip install 'shardfun[asyncio]'"
        raise ConfigurationError(msg) from error
    loop: AbstractAsyncContextManager[Any] = trio_asyncio.open_loop()
    return loop
