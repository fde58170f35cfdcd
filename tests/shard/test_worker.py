"""Blocking work happens in threads, one job at a time, in order; what comes of it happens on the loop."""

from __future__ import annotations

import itertools
import select
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import trio
from trio.testing import MockClock

from shardfun.shard.worker import QUEUED_JOBS_MAX, Completions, Failed, TryAgain, Worker

T = TypeVar("T")


async def drained(completions: Completions, results: list[Any], count: int) -> None:
    with trio.fail_after(60):
        while len(results) < count:
            await trio.lowlevel.wait_readable(completions.fd)
            completions.clear()
            completions.drain()


async def test_jobs_run_in_order_one_at_a_time_and_results_come_on_the_loop() -> None:
    completions = Completions()
    worker = Worker(completions)
    running: list[int] = []
    results: list[tuple[int, int]] = []
    threads: set[int] = set()

    def job(number: int) -> int:
        threads.add(threading.get_ident())
        running.append(number)
        assert running == [number]
        time.sleep(0.001 if number % 2 else 0.003)
        running.clear()
        return number

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        for number in range(10):
            worker.submit(lambda number=number: job(number), lambda result: results.append((result, threading.get_ident())))
        assert results == []
        await drained(completions, results, 10)
        nursery.cancel_scope.cancel()
    assert results == [(number, threading.get_ident()) for number in range(10)]
    assert threading.get_ident() not in threads


async def test_a_job_that_raises_does_not_stop_the_next() -> None:
    completions = Completions()
    worker = Worker(completions)
    results: list[Any] = []
    error = OSError("disk")

    def fails() -> None:
        raise error

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        worker.submit(fails, results.append)
        worker.submit(lambda: 5, results.append)
        await drained(completions, results, 2)
        nursery.cancel_scope.cancel()
    assert results == [Failed(error), 5]


async def test_a_result_may_submit_more_work() -> None:
    completions = Completions()
    worker = Worker(completions)
    results: list[Any] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        worker.submit(lambda: 1, lambda _: worker.submit(lambda: 2, results.append))
        await drained(completions, results, 1)
        nursery.cancel_scope.cancel()
    assert results == [2]


def test_the_descriptor_wakes_until_it_is_cleared() -> None:
    completions = Completions()
    assert not select.select([completions.fd], [], [], 0)[0]
    completions.clear()
    completions.wake()
    completions.post(lambda: None)
    assert select.select([completions.fd], [], [], 0)[0]
    completions.clear()
    assert not select.select([completions.fd], [], [], 0)[0]
    assert completions.drain() is True
    assert completions.drain() is False


async def test_the_queue_of_jobs_is_bounded() -> None:
    worker = Worker(Completions())
    for _ in range(QUEUED_JOBS_MAX):
        worker.submit(int, int)
    try:
        worker.submit(int, int)
    except trio.WouldBlock:
        return
    raise AssertionError


async def test_a_job_that_wants_to_try_again_goes_before_the_next(autojump_clock: MockClock) -> None:
    completions = Completions()
    worker = Worker(completions, inline)
    results: list[Any] = []
    attempts: list[float] = []

    def refused() -> str:
        attempts.append(trio.current_time())
        if len(attempts) < 3:
            raise TryAgain(10.0)
        return "done"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        worker.submit(refused, results.append)
        worker.submit(lambda: "next", results.append)
        await trio.sleep(25)
        completions.drain()
        nursery.cancel_scope.cancel()
    assert results == ["done", "next"]
    assert [later - earlier for earlier, later in itertools.pairwise(attempts)] == pytest.approx([10.0, 10.0])


async def inline(job: Callable[[], T]) -> T:
    await trio.lowlevel.checkpoint()
    return job()
