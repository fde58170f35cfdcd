"""What blocks on a disk or a sink, done in threads: one job at a time per worker, in order.

Only work that frees the GIL belongs here (write, fsync, LevelDB's batch write). Results come back on the loop through
``Completions``, never in the thread, so the core is only ever touched from the loop.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import trio

from shardfun.ports import RunInThread
from shardfun.shard.machine import run_in_thread

QUEUED_JOBS_MAX = 1000


class Completions:
    """Results waiting for the loop, and the eventfd that wakes it. ``wake`` may be called from any thread."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._results: deque[Callable[[], None]] = deque()
        self._rung = False

    def wake(self) -> None:
        """Make the loop look."""
        os.eventfd_write(self.fd, 1)
        self._rung = True  # after the write: the other way round, the loop might take back a ring that is still to come

    def post(self, result: Callable[[], None]) -> None:
        """Hand over something to call on the loop."""
        self._results.append(result)
        self.wake()

    def drain(self) -> bool:
        """Call what was posted; whether there was anything."""
        if not self._results:
            return False
        while self._results:
            self._results.popleft()()
        return True

    def clear(self) -> None:
        """Take the wake-up back before looking at what it was for. Mostly there is none, and a read in vain takes 24 us cold."""
        if self._rung:
            self._rung = False
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self.fd)


@dataclass(frozen=True, slots=True)
class Failed:
    """The job raised."""

    error: Exception


class TryAgain(Exception):  # noqa: N818 - it is no error
    """A job raises it to be run again, before any other.

    Args:
        pause_s: how long to wait before.
    """

    def __init__(self, pause_s: float) -> None:
        super().__init__(pause_s)
        self.pause_s = pause_s


class Worker:
    """Runs jobs one after the other in a thread.

    Args:
        completions: where results go.
    """

    def __init__(self, completions: Completions, run_in_thread: RunInThread = run_in_thread) -> None:
        self._completions = completions
        self._run_in_thread = run_in_thread
        self._send, self._receive = trio.open_memory_channel[tuple[Callable[[], Any], Callable[[Any], None]]](QUEUED_JOBS_MAX)

    def submit(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Queue a job; ``done`` gets its result, or ``Failed``, on the loop.

        Raises:
            trio.WouldBlock: too many jobs wait (a bug: the core has at most a handful under way).
        """
        self._send.send_nowait((job, done))

    async def run(self) -> None:
        """The task that runs the jobs, until cancelled."""
        async for job, done in self._receive:
            result = await self._result(job)
            self._completions.post(lambda done=done, result=result: done(result))  # type: ignore[misc]

    async def _result(self, job: Callable[[], Any]) -> Any:
        while True:
            result = await self._run_in_thread(lambda: _outcome(job))
            if not isinstance(result, TryAgain):
                return result
            await trio.sleep(result.pause_s)


def _outcome(job: Callable[[], Any]) -> Any:
    try:
        return job()
    except TryAgain as again:
        return again
    except Exception as error:  # noqa: BLE001 - carried to the loop, which decides
        return Failed(error)
