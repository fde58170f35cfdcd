"""A node inside an asyncio program: the same class, and asyncio's own ways to cancel."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from embedding_apps import COUNTER, FAST, Add, Fail, Total, app
from leftovers import Leftovers

from shardfun import Supervisor
from shardfun.errors import BacklogLimitError, ReplyTimeoutError


def test_everything_works_as_on_trio(leftovers: Leftovers, tmp_path: Path) -> None:
    async def first() -> str | None:
        leftovers.mark()
        async with Supervisor(app, data_dir=tmp_path / "data", shards=2, **FAST) as node:
            async with asyncio.TaskGroup() as group:
                for n in range(50):
                    group.create_task(node.send(COUNTER, f"id-{n % 5}", Add(1)))
            assert await node.ask(COUNTER, "asked", Add(5), reply_type=Total) == Total(5)
            with pytest.raises(ReplyTimeoutError):
                await node.ask("demo/silent", "s", Add(1), timeout=0.1)
            stream = node.egress("totals")
            records = [await anext(stream) for _ in range(51)]
            assert sum(record["n"] for record in records) == 55
            assert (await node.query(COUNTER, "id-1")).fields["total"] == 10
            assert len([id async for id in node.scan(COUNTER)]) == 6
            assert await node.kill_shard(0)
            assert await node.ask(COUNTER, "asked", Add(5), reply_type=Total) == Total(10)
            assert (await node.statistics()).state in {"running", "recovering"}
            await node.checkpoint()
        leftovers.check()
        return stream.position

    async def second(position: str | None) -> None:
        async with Supervisor(app, data_dir=tmp_path / "data", shards=2, **FAST) as node:
            assert (await anext(node.egress("totals", after=position)))["total"] == 10

    asyncio.run(second(asyncio.run(first())))


MOMENTS = [0.0, 0.9, *(pytest.param(moment, marks=pytest.mark.long) for moment in (0.1, 1.8))]


@pytest.mark.parametrize("delay_s", MOMENTS)
def test_cancelled_at_any_moment_nothing_is_left(leftovers: Leftovers, tmp_path: Path, delay_s: float) -> None:
    sent = 0

    async def work() -> None:
        nonlocal sent
        async with Supervisor(app, data_dir=tmp_path / "data", shards=1, **FAST) as node:
            while True:
                await node.send(COUNTER, "a", Add(1))
                sent += 1

    async def cancelled() -> None:
        leftovers.mark()
        task = asyncio.create_task(work())
        await asyncio.sleep(delay_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        leftovers.check()

    async def again() -> None:
        async with Supervisor(app, data_dir=tmp_path / "data", shards=1, **FAST) as node:
            stream = node.egress("totals")
            for n in range(sent):
                assert (await anext(stream))["message"] == n + 1

    asyncio.run(cancelled())
    asyncio.run(again())


def test_the_time_limit_of_asyncio_is_not_mixed_up_with_a_node_that_fails(leftovers: Leftovers) -> None:
    async def limited() -> None:
        async with asyncio.timeout(1.5), Supervisor(app, shards=1, **FAST) as node:
            await node.wait()

    with pytest.raises(TimeoutError):
        asyncio.run(limited())


def test_a_failed_node_ends_the_block_with_its_error_once(leftovers: Leftovers) -> None:
    limits = {"backlog_low": 10, "backlog_high": 20, "backlog_limit": 1000}

    async def work() -> None:
        async with Supervisor(app, shards=1, flow=limits, **FAST) as node:
            await node.send("demo/flood", "f", Fail("x"))
            await asyncio.sleep(60)

    async def checked() -> None:
        with pytest.raises(BacklogLimitError):
            await work()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0, "the task is as before: what comes next is not cancelled"
        await asyncio.sleep(0)

    asyncio.run(checked())


def test_an_error_of_the_block_comes_out_as_it_is(leftovers: Leftovers) -> None:
    async def work() -> None:
        async with Supervisor(app, shards=1, **FAST) as node:
            await node.send(COUNTER, "a", Add(1))
            raise ValueError("mine")

    with pytest.raises(ValueError, match=r"^mine$"):
        asyncio.run(work())


def test_the_node_goes_on_while_the_program_blocks_its_loop(leftovers: Leftovers) -> None:
    patience = {"heartbeat_interval": "100 ms", "heartbeat_timeout": "1 s", "spares": 0}

    async def work() -> None:
        async with Supervisor(app, shards=1, checkpoint={"interval": "40 ms"}, supervision=patience) as node:
            await node.send(COUNTER, "a", Add(1))
            time.sleep(3)  # noqa: ASYNC251 - that is the point
            status = await node.statistics()
            assert status.recoveries == 0
            assert status.published == 1

    asyncio.run(work())
