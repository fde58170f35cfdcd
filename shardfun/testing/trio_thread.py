"""Runs coroutines in virtual time: a Trio of its own, in a thread that works only while it is told to.

Whenever every task waits, the thread stops and says so; the test's thread goes on, decides what happens next, and later lets the
Trio go on, perhaps at another time of day. So only one of the two ever runs, nothing waits for real, and a seed decides in which
order tasks run. (Trio's guest mode would do without the thread, but then a test could not use Trio itself.)

Threads that user code starts with ``trio.to_thread`` are waited for. Sockets are not: use fakes.
"""

from __future__ import annotations

import contextvars
import math
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import trio
import trio.testing

from shardfun.core.effects import StartCall
from shardfun.shard.calls import Calls, Done
from shardfun.shard.worker import Completions

NEVER_S = 1e9
CLOSING_PUMPS_MAX = 1000  # user code that cleans up may sleep, for so many times
UNUSED_THREADS = 1  # blocking code does not come here


class _Clock(trio.abc.Clock):
    """A clock that stands still. ``now_s``: seconds since the start of the node."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def start_clock(self) -> None:
        """Nothing to start."""

    def current_time(self) -> float:
        """The time that the test has set."""
        return self.now_s

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Time does not pass while anybody sleeps."""
        return 0.0 if deadline <= self.now_s else NEVER_S


class _Results(Completions):
    """Results of calls, until the shard hears of them."""

    def __init__(self, results: deque[Callable[[], None]]) -> None:
        self._results = results

    def wake(self) -> None:
        """Nobody sleeps."""


class _Gate(trio.abc.Instrument):
    """Stops the thread when there is nothing to do."""

    def __init__(self, pause: Callable[[], None]) -> None:
        self._pause = pause

    def before_io_wait(self, timeout: float) -> None:
        """Trio is about to wait for up to ``timeout`` seconds."""
        if timeout > 0 and trio.testing.active_thread_count() == 0:
            self._pause()


class TrioThread:
    """See the module.

    Args:
        results: of each shard, where the ends of its calls go.
        asyncio: some function needs an asyncio event loop.

    Raises:
        ConfigurationError: trio-asyncio would be needed, and is not installed.
    """

    def __init__(self, results: list[deque[Callable[[], None]]], *, asyncio: bool, seed: int) -> None:
        self.next_deadline_s = math.inf
        """When a task wants to go on: seconds since the start of the node."""
        self.waits_for_io = False
        """Whether a task waits for a file descriptor: then what happens is not decided by the seed alone."""
        self._waiting_always: int | None = None  # that is what asyncio's event loop does
        self._calls = [Calls(_Results(queue), UNUSED_THREADS) for queue in results]
        self._asyncio = asyncio
        self._random = random.Random(seed)  # noqa: S311 - a seed is the point
        self._clock = _Clock()
        self._commands: deque[Callable[[], None]] = deque()
        self._go, self._idle = threading.Semaphore(0), threading.Semaphore(0)
        self._stopped = False
        self._error: BaseException | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope = trio.CancelScope()
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="shardfun local node", daemon=True)
        with _deterministic(self._random):
            self._thread.start()
            self._idle.acquire()
        self._raise_error()

    # ---- in the thread --------------------------------------------------------------------------------------------------
    def _run(self) -> None:
        try:
            trio.run(self._main, clock=self._clock, instruments=[_Gate(self._pause)])
        except BaseException as error:  # noqa: BLE001 - carried to the test's thread
            self._error = error
        self._stopped = True
        self._idle.release()

    async def _main(self) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                for calls in self._calls:
                    await nursery.start(_start, calls, self._asyncio)
                self._token = trio.lowlevel.current_trio_token()
                await trio.sleep_forever()

    def _pause(self) -> None:
        statistics = trio.lowlevel.current_statistics()
        self.next_deadline_s = self._clock.now_s + statistics.seconds_to_next_deadline
        waiting = _waiting_for_io(statistics.io_statistics)
        if self._waiting_always is None:
            self._waiting_always = waiting
        self.waits_for_io = waiting > self._waiting_always
        self._idle.release()
        self._go.acquire()

    def _command(self) -> None:
        while self._commands:
            self._commands.popleft()()

    # ---- in the test's thread -------------------------------------------------------------------------------------------
    def start(self, shard: int, call: StartCall, done: Done) -> None:
        """Begin a call, at the next ``pump``."""
        self._commands.append(lambda: self._calls[shard].start(call, done))

    def reset(self, shard: int) -> None:
        """End the calls of a shard, at the next ``pump``."""
        self._commands.append(self._calls[shard].reset)

    def pump(self, now_s: float) -> None:
        """Let all tasks run until each of them waits.

        Args:
            now_s: the time of day for them, in seconds since the start of the node.
        """
        self._clock.now_s = max(self._clock.now_s, now_s)
        if self._stopped:
            return
        assert self._token is not None
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._command)
        with _deterministic(self._random):
            self._go.release()
            self._idle.acquire()
        self._raise_error()

    def _raise_error(self) -> None:
        error = self._error
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if error is not None:
            self._error = None
            raise error

    def close(self) -> None:
        """End all tasks and the thread."""
        self._commands.append(self._scope.cancel)
        for _ in range(CLOSING_PUMPS_MAX):
            self.pump(min(self.next_deadline_s, NEVER_S))
            if self._stopped:
                self._thread.join()
                return


def _waiting_for_io(statistics: Any) -> int:
    """Tasks that wait for a file descriptor; 0 where Trio does not say."""
    return int(getattr(statistics, "tasks_waiting_read", 0)) + int(getattr(statistics, "tasks_waiting_write", 0))


async def _start(calls: Calls, asyncio: bool, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:  # noqa: FBT001 - Trio passes arguments by position
    await calls.run(asyncio=asyncio, task_status=task_status)


@contextmanager
def _deterministic(chance: random.Random) -> Iterator[None]:
    """Draw Trio's order of tasks from ``chance``, as Hypothesis does; if a Trio has no such setting, it stays as it is."""
    module: Any = trio._core._run  # noqa: SLF001 - there is no public name for it
    names = ("_ALLOW_DETERMINISTIC_SCHEDULING", "_r")
    before = {name: getattr(module, name) for name in names if hasattr(module, name)}
    if len(before) == len(names):
        module._ALLOW_DETERMINISTIC_SCHEDULING, module._r = True, chance  # noqa: SLF001
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)
