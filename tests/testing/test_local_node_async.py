"""Functions beside the loop in a local node: virtual time for coroutines, blocking code inline, and all of it under the seed."""

from __future__ import annotations

import asyncio
import datetime as dt
import time

import pytest
import trio
from kit_shop import PAYMENT, REPORT, Pay, build

from shardfun import App, Context, State, Value, value
from shardfun.model.operations import OperationResult
from shardfun.testing import LocalNode, NotQuietError


def run_payments(seed: int) -> list[object]:
    with LocalNode(build(), shards=3, seed=seed) as node:
        for number in range(30):
            node.send(PAYMENT, f"p{number % 7}", Pay(number, takes_s=number % 3))
            node.send(REPORT, f"r{number % 4}", Pay(number))
        node.step(40)
        node.crash(1)
        node.advance(2)
        node.crash()
        node.settle()
        return [node.trace.digest, node.emitted("paid"), node.emitted("reports")]


def test_coroutines_sleep_in_virtual_time() -> None:
    started = time.monotonic()
    with LocalNode(build()) as node:
        node.send(PAYMENT, "p", Pay(5, takes_s=50))
        node.send(PAYMENT, "q", Pay(6, takes_s=20))
        node.run()
        assert node.emitted("paid") == []
        node.advance(20)
        assert node.emitted("paid") == [6]
        node.advance(29.5)
        assert node.emitted("paid") == [6]
        node.advance(0.5)
        assert node.emitted("paid") == [6, 5]
        assert node.state(PAYMENT, "p").at == 50
    assert time.monotonic() - started < 20


def test_one_seed_is_one_order_also_of_coroutines() -> None:
    first, again, other = run_payments(3), run_payments(3), run_payments(4)
    assert first == again
    assert first != other
    assert sorted(map(int, first[1])) == sorted(range(30))  # type: ignore[call-overload]


def test_a_time_out_comes_in_virtual_time() -> None:
    with LocalNode(build(), retries=0) as node:
        node.send(PAYMENT, "p", Pay(5, takes_s=100))
        node.advance(59)
        assert node.dead_letters() == []
        node.advance(2)
        (letter,) = node.dead_letters()
        assert "FunctionTimeoutError" in letter.reason


def test_an_address_processes_one_message_at_a_time_and_others_go_on() -> None:
    with LocalNode(build()) as node:
        for number in range(3):
            node.send(PAYMENT, "p", Pay(number, takes_s=10))
        node.send(PAYMENT, "q", Pay(9, takes_s=10))
        node.settle()
        assert node.emitted("paid")[-2:] == [1, 2]
        assert sorted(node.emitted("paid")[:2]) == [0, 9]


def test_operations_run_and_their_results_come_back() -> None:
    with LocalNode(build()) as node:
        node.send(REPORT, "r", Pay(4))
        node.run()
        assert node.state(REPORT, "r").cents == 8
        assert node.emitted("reports") == [["doubled", "success"]]


@pytest.mark.parametrize("kept", [False, True])
def test_an_operation_that_a_crash_interrupts(kept: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    """Its end is unknown, unless that it was begun is forgotten, too: then it runs again."""
    with LocalNode(build_operations(), checkpoint_interval=None) as node:
        node.send("o/start", "s", 1)
        node.run()
        if kept:
            node.checkpoint()
        node.crash()
        node.settle()
        assert node.emitted("ended") == [["asked", "unknown", None] if kept else ["asked", "success", 60]]


def build_operations() -> App:
    app = App("operations")

    @app.function("o/start")
    def start(ctx: Context, message: int | OperationResult[str, int]) -> None:
        if isinstance(message, int):
            ctx.start_operation(_ask, 60, metadata="asked")
        else:
            ctx.emit("ended", [message.metadata, message.status.value, message.value])

    return app


async def _ask(seconds: int) -> int:
    await trio.sleep(seconds)
    return seconds


class Seen(State):
    values: Value[list[int]] = value(default_factory=list)


def build_channels() -> App:
    app = App("channels")

    @app.function("c/worker")
    async def worker(ctx: Context[Seen], message: int) -> None:
        send, receive = trio.open_memory_channel[int](0)
        async with trio.open_nursery() as nursery:
            for number in range(message):
                nursery.start_soon(_send, send.clone(), number)
            send.close()
            async for found in receive:
                ctx.state.values.append(found)

    @app.function("c/thread")
    async def thread(ctx: Context[Seen], message: int) -> None:
        ctx.state.values.append(await trio.to_thread.run_sync(lambda: message + 1))

    @app.function("c/never")
    async def never(_ctx: Context, _message: int) -> None:
        await trio.Event().wait()

    return app


async def _send(channel: trio.MemorySendChannel[int], number: int) -> None:
    async with channel:
        await trio.sleep(1)
        await channel.send(number)


def test_tasks_and_channels_of_a_function_run_in_an_order_of_the_seed() -> None:
    found = []
    for seed in (1, 1, 2, 3):
        with LocalNode(build_channels(), seed=seed) as node:
            node.send("c/worker", "w", 8)
            node.settle()
            found.append(node.state("c/worker", "w").values)
    assert found[0] == found[1]
    assert all(sorted(values) == list(range(8)) for values in found)
    assert len({tuple(values) for values in found}) > 1


def test_threads_of_a_function_are_waited_for() -> None:
    with LocalNode(build_channels()) as node:
        node.send("c/thread", "t", 1)
        node.run()
        assert node.state("c/thread", "t").values == [2]


def test_code_that_waits_for_what_does_not_come_is_named() -> None:
    with LocalNode(build_channels()) as node:
        node.send("c/never", "n", 1)
        node.run()
        with pytest.raises(NotQuietError, match=r"(?s)waits for something that does not come.*c/never:n"):
            node.settle()
        with pytest.raises(NotQuietError, match=r"(?s)does not come to its end.*c/never:n"):
            node.end()


class Gathered(State):
    sum: Value[int] = value(0)


def build_gathering() -> App:
    app = App("gathering")

    @app.function("g/gather", asyncio=True)
    async def gather(ctx: Context[Gathered], message: int) -> None:
        await asyncio.gather(asyncio.sleep(message), asyncio.sleep(2 * message))
        ctx.state.sum += message
        ctx.emit("gathered", message)

    return app


def test_asyncio_code_sleeps_in_virtual_time_too() -> None:
    pytest.importorskip("trio_asyncio")
    with LocalNode(build_gathering()) as node:
        for number in range(5):
            node.send("g/gather", f"g{number}", number)
        node.advance(4)
        assert node.emitted("gathered") == [0, 1, 2]
        node.crash()
        started = node.now
        node.settle()
        assert node.emitted("gathered") == [0, 1, 2, 3, 4]
        assert node.now - started == dt.timedelta(seconds=8), "what was interrupted has begun anew"


async def test_a_node_works_inside_of_an_async_test() -> None:
    """It has a Trio of its own, in a thread of its own."""
    with LocalNode(build()) as node:
        node.send(PAYMENT, "p", Pay(5, takes_s=50))
        await trio.lowlevel.checkpoint()
        node.advance(dt.timedelta(minutes=1))
        assert node.emitted("paid") == [5]


def test_a_test_may_run_trio_beside() -> None:
    with LocalNode(build()) as node:
        node.send(PAYMENT, "p", Pay(5, takes_s=50))
        node.run()
        trio.run(trio.lowlevel.checkpoint)
        node.settle()
        assert node.emitted("paid") == [5]
