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

QUEUED_JOBS_MAX = 1000


class Completions:
    """Results waiting for the loop, and the eventfd that wakes it. ``wake`` may be called from any thread."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._results: deque[Callable[[], None]] = deque()

    def wake(self) -> None:
        """Make the loop look."""
        os.eventfd_write(self.fd, 1)

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
        """Take the wake-up back before looking at what it was for."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)


@dataclass(frozen=True, slots=True)
class Failed:
    """The job raised."""

    error: Exception


class Worker:
    """Runs jobs one after the other in a thread of Trio's pool.

    Args:
        completions: where results go.
    """

    def __init__(self, completions: Completions) -> None:
        self._completions = completions
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
            result = await trio.to_thread.run_sync(_outcome, job)
            self._completions.post(lambda done=done, result=result: done(result))  # type: ignore[misc]


def _outcome(job: Callable[[], Any]) -> Any:
    try:
        return job()
    except Exception as error:  # noqa: BLE001 - carried to the loop, which decides
        return Failed(error)
