"""What a shard process needs of the machine it runs on: the real one unless a test hands in another.

Only what would otherwise make a run unrepeatable or slow: time, threads, channels, randomness, and what concerns the process as a
whole. Files and descriptors are real everywhere.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import NoReturn, TypeVar

import trio

from shardfun.mesh.channel import Channel
from shardfun.ports import REAL_CLOCK, Clock, OpenChannel, RunInThread

SWITCH_INTERVAL_S = 0.00005
"""A loop that releases the GIL only for instants starves its own worker threads, which wait so long for it again and again: plyvel
lets go of it for each record of a batch. With 0.5 ms and a busy loop a checkpoint of 60,000 records took 3.5 s to apply, of them
0.3 s at work, and the next one was the larger for it. Threads that compute lose nothing (measured with two)."""
GC_THRESHOLDS = (50_000, 50, 1000)
"""User code may make cycles, so the collector stays on; but it must not visit all records often."""

T = TypeVar("T")


async def run_in_thread(job: Callable[[], T]) -> T:
    """In Trio's pool. Who is cancelled waits for the end of the job."""
    return await trio.to_thread.run_sync(job)


async def run_abandonable(job: Callable[[], T]) -> T:
    """The same, but who is cancelled leaves the job behind. Without a limit of its own: who calls has one."""
    return await trio.to_thread.run_sync(job, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1))


def settle_memory() -> None:
    """What is there now will stay: collections need not look at it."""
    gc.freeze()


def tune_process() -> None:
    """Settings of the interpreter for a process that is nothing but a shard."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def end_process(code: int) -> NoReturn:
    """End without waiting for threads: they may be stuck in a disk or in user code."""
    sys.stderr.flush()
    os._exit(code)


def _chance() -> Random:
    return Random()  # noqa: S311 - for functions; seeded by the operating system


@dataclass(frozen=True, slots=True)
class Machine:
    """See the module.

    Args:
        pid: of this process.
        run_in_thread: for disks and sinks; who is cancelled waits for the end of the job.
        run_abandonable: for blocking user code; who is cancelled does not wait.
        chance: new randomness for functions, in each incarnation.
        tune: called when the process begins; ``settle`` when much was loaded that will stay.
        end: end the process with a code, at once.
    """

    pid: int = field(default_factory=os.getpid)
    clock: Clock = REAL_CLOCK
    open_channel: OpenChannel = Channel
    run_in_thread: RunInThread = run_in_thread
    run_abandonable: RunInThread = run_abandonable
    chance: Callable[[], Random] = _chance
    tune: Callable[[], None] = tune_process
    settle: Callable[[], None] = settle_memory
    end: Callable[[int], NoReturn] = end_process
