"""Whatever user code does beside the loop, the loop hears of its end once, and nothing else of the process notices."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from shardfun.core.effects import StartCall
from shardfun.errors import FunctionTimeoutError
from shardfun.shard.calls import Calls, _Held
from shardfun.shard.worker import Completions

Heard = list[tuple[int, Any, BaseException | None]]


class Driver:
    """The calls of a process without its loop."""

    def __init__(self, threads: int = 2) -> None:
        self.completions = Completions()
        self.calls = Calls(self.completions, threads)
        self.heard: Heard = []
        self.count = 0

    def start(
        self, run: Callable[[], Any], *, style: Any = "async", timeout_ms: int | None = None, asyncio: bool = False
    ) -> None:
        self.count += 1
        call = StartCall(self.count, "t/f:a", style, run, timeout_ms, asyncio)
        self.calls.start(call, lambda *heard: self.heard.append(heard))

    async def wait(self, count: int) -> None:
        with trio.fail_after(60):
            while len(self.heard) < count:
                await trio.lowlevel.wait_readable(self.completions.fd)
                self.completions.clear()
                self.completions.drain()


@asynccontextmanager
async def driving(*, asyncio: bool = False, threads: int = 2) -> AsyncIterator[Driver]:
    driver = Driver(threads)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: driver.calls.run(asyncio=asyncio, task_status=task_status))
        yield driver
        nursery.cancel_scope.cancel()


async def cancelled_of_its_own() -> None:
    """Keeps what its own scope has raised, and raises it when that is over."""
    kept: BaseException | None = None
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.sleep(1)
        except trio.Cancelled as error:
            kept = error
            raise
    assert kept is not None
    raise kept


def raising(error: BaseException) -> Callable[[], Any]:
    async def run() -> None:
        await trio.lowlevel.checkpoint()
        raise error

    return run


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        SystemExit(3),
        GeneratorExit(),
        StopAsyncIteration(),
        BaseExceptionGroup("many", [KeyboardInterrupt(), ValueError()]),
    ],
    ids=repr,
)
@pytest.mark.parametrize("style", ["async", "blocking"])
async def test_whatever_it_raises_comes_back(error: BaseException, style: str) -> None:
    def run_blocking() -> None:
        raise error

    async with driving() as driver:
        driver.start(run_blocking if style == "blocking" else raising(error), style=style)
        await driver.wait(1)
        driver.start(raising(ValueError()))
        await driver.wait(2)
    assert driver.heard[0][2] is error


async def test_a_cancellation_that_it_raises_by_itself_is_an_error_like_any_other() -> None:
    async with driving() as driver:
        driver.start(cancelled_of_its_own)
        await driver.wait(1)
        driver.start(trio.lowlevel.checkpoint)
        await driver.wait(2)
    (_, _, error), (_, _, none) = driver.heard
    assert isinstance(error, trio.Cancelled)
    assert none is None


@pytest.mark.parametrize("style", ["async", "blocking"])
async def test_a_timeout_of_nothing(style: str) -> None:
    async with driving() as driver:
        for _ in range(20):
            driver.start((lambda: time.sleep(0.001)) if style == "blocking" else trio.sleep_forever, style=style, timeout_ms=0)
        await driver.wait(20)
        driver.start(lambda: 5, style="blocking")
        await driver.wait(21)
    assert {type(error) for _, _, error in driver.heard[:20]} <= {FunctionTimeoutError, type(None)}
    assert driver.heard[-1][1] == 5


def test_a_thread_that_comes_to_work_after_its_call_was_given_up_does_not_and_is_counted_once() -> None:
    driver = Driver()
    ended: list[int] = []
    driver.calls.thread_ended = lambda held, change: ended.append(change)  # type: ignore[method-assign]
    held = _Held(driver.calls)
    ran: list[int] = []
    assert held.leave() == 1
    held.run(lambda: ran.append(1))
    assert (ended, ran) == ([-1], [])


async def test_a_plain_end_of_an_asyncio_function() -> None:
    pytest.importorskip("trio_asyncio")
    async with driving(asyncio=True) as driver:
        driver.start(lambda: None, asyncio=True)
        await driver.wait(1)
    assert driver.heard == [(1, None, None)]


async def test_nothing_keeps_a_failed_call_in_memory() -> None:
    class Thing:
        pass

    thing = Thing()
    reference = weakref.ref(thing)

    async def failing(thing: Thing = thing) -> Any:
        raise ValueError

    del thing
    async with driving() as driver:
        gc.disable()
        try:
            driver.start(failing)
            del failing
            await driver.wait(1)
            driver.heard.clear()
            await trio.lowlevel.checkpoint()
            assert reference() is None
        finally:
            gc.enable()


async def test_calls_of_an_incarnation_that_is_over_are_not_heard_of() -> None:
    begun, release = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        release.wait()

    async with driving(threads=1) as driver:
        driver.start(trio.sleep_forever)
        driver.start(block, style="blocking")
        await trio.to_thread.run_sync(begun.wait)
        driver.start(lambda: None, style="blocking")
        await trio.testing.wait_all_tasks_blocked()
        driver.calls.reset()
        await trio.testing.wait_all_tasks_blocked()
        assert driver.calls.stuck
        release.set()
        driver.start(lambda: 7, style="blocking")
        await driver.wait(1)
        assert not driver.calls.stuck
    assert driver.heard == [(4, 7, None)]
