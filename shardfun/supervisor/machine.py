"""What a supervisor needs of the machine it runs on: the real one unless a test hands in another."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import trio

from shardfun.mesh.channel import Channel
from shardfun.mesh.door import Answerer, answer_questions
from shardfun.ports import OpenChannel, RunInThread

T = TypeVar("T")


class ChildProcess(Protocol):
    """What is used of ``trio.Process``."""

    @property
    def pid(self) -> int:
        """The process id."""

    @property
    def returncode(self) -> int | None:
        """As in ``subprocess``; ``None``: it has not been reaped."""

    stdin: trio.abc.SendStream | None
    stderr: trio.abc.ReceiveStream | None

    def kill(self) -> None:
        """SIGKILL; no error if it is gone."""

    async def wait(self) -> int:
        """Reap it."""


async def start_shard_process() -> ChildProcess:
    """A process that waits for its bootstrap on standard input. Spawned, never forked: nng is not fork safe."""
    return await trio.lowlevel.open_process(
        [sys.executable, "-m", "shardfun.shard"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


async def run_in_thread(job: Callable[[], T]) -> T:
    """In Trio's pool. Who is cancelled waits for the end of the job."""
    return await trio.to_thread.run_sync(job)


@dataclass(frozen=True, slots=True)
class Machine:
    """See the module.

    Args:
        start_shard: makes a shard process.
        run_in_thread: for the disk; who is cancelled waits for the end of the job.
        answer: answers the questions of other processes at an address, until cancelled.
    """

    start_shard: Callable[[], Awaitable[ChildProcess]] = start_shard_process
    open_channel: OpenChannel = Channel
    run_in_thread: RunInThread = run_in_thread
    answer: Callable[[str, Answerer], Awaitable[None]] = answer_questions
