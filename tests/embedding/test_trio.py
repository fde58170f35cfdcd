"""A node inside a Trio program."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
import trio
from embedding_apps import COUNTER, FAST, Add, Fail, Total, app, made_in_a_function
from leftovers import Leftovers

from shardfun import Address, Message, Supervisor
from shardfun.embedding.handle import NodeHandle
from shardfun.errors import (
    BacklogLimitError,
    ConfigurationError,
    DefinitionError,
    DirectoryInUseError,
    PayloadTypeError,
    ReplyTimeoutError,
    RequestConflictError,
    UnavailableError,
    UnknownTargetError,
)

START_S = 60.0


async def totals(node, count: int, **options) -> list[dict]:
    """The first records of the egress."""
    found = []
    async for record in node.egress("totals", **options):
        found.append(record)
        if len(found) == count:
            break
    return found


async def test_everything_that_a_node_can_be_asked(leftovers: Leftovers) -> None:
    leftovers.mark()
    async with Supervisor(app, shards=2, **FAST) as node:
        await node.send(COUNTER, "a", Add(1))
        await node.send(Address(COUNTER, "a"), Add(2))
        await node.send_all([Message(COUNTER, "b", Add(10)), Message(COUNTER, "c", Add(20))])
        assert await node.ask(COUNTER, "d", Add(5), reply_type=Total) == Total(5)
        assert await node.ask(Address(COUNTER, "d"), Add(5), key="k1", timeout=30, reply_type=Total) == Total(10)
        assert await node.ask(COUNTER, "d", Add(5), key="k1", reply_type=Total) == Total(10), "the same request, the same reply"
        with pytest.raises(RequestConflictError, match="k1"):
            await node.ask(COUNTER, "d", Add(6), key="k1")
        with pytest.raises(ReplyTimeoutError, match=r"no reply within 0\.2 s"):
            await node.ask("demo/silent", "s", Add(1), timeout=0.2)
        records = await totals(node, 6)
        assert sorted((record["id"], record["n"]) for record in records) == [
            ("a", 1), ("a", 2), ("b", 10), ("c", 20), ("d", 5), ("d", 5),
        ]  # fmt: skip
        name = await node.checkpoint()
        state = await node.query(COUNTER, "a", at="checkpoint")
        assert (state.exists, state.fields["total"]) == (True, 3)
        assert (await node.query(Address(COUNTER, "nobody"))).exists is False
        assert sorted([id async for id in node.scan(COUNTER)]) == ["a", "b", "c", "d"]
        page = await node.list(COUNTER, limit=1)
        assert len(page.ids) == 1
        assert page.next is not None
        status = await node.statistics()
        assert (status.state, len(status.shards)) == ("running", 2)
        assert name != "none"
    leftovers.check()


async def test_mistakes_are_raised_where_they_are_made(leftovers: Leftovers) -> None:
    leftovers.mark()
    async with Supervisor(app, shards=1, **FAST) as node:
        with pytest.raises(UnknownTargetError, match="demo/counter"):
            await node.send("demo/countre", "a", Add(1))
        with pytest.raises(PayloadTypeError, match="accepts"):
            await node.send(COUNTER, "a", 1)
        with pytest.raises(PayloadTypeError, match="id"):
            await node.ask(COUNTER, "", Add(1))
        with pytest.raises(TypeError, match="expected"):
            await node.send(COUNTER, Add(1))
        with pytest.raises(ConfigurationError, match="totals"):
            node.egress("total")
        with pytest.raises(ConfigurationError, match="key"):
            await node.ask(COUNTER, "a", Add(1), key="~x")
        with pytest.raises(ConfigurationError, match="expected 0 to 0"):
            await node.kill_shard(1)


async def test_the_next_start_goes_on_where_the_block_ended(leftovers: Leftovers, tmp_path: Path) -> None:
    leftovers.mark()
    async with Supervisor(app, data_dir=tmp_path / "data", shards=1, **FAST) as node:
        await node.send(COUNTER, "a", Add(1))
        stream = node.egress("totals")
        assert (await anext(stream))["total"] == 1
        position = stream.position
        final = await node.stop()
        assert final.state == "stopped"
        with pytest.raises(UnavailableError, match="stopped"):
            await node.send(COUNTER, "a", Add(1))
        assert (await node.statistics()).state == "stopped"
    leftovers.check()
    async with Supervisor(app, data_dir=tmp_path / "data", shards=1, **FAST) as node:
        assert await node.ask(COUNTER, "a", Add(2), reply_type=Total) == Total(3)
        assert [record["total"] for record in await totals(node, 1, after=position)] == [3]


async def test_an_error_of_the_block_comes_out_as_it_is_and_what_was_sent_is_not_lost(
    leftovers: Leftovers, tmp_path: Path
) -> None:
    leftovers.mark()
    with pytest.raises(ValueError, match=r"^mine$"):
        async with Supervisor(app, data_dir=tmp_path / "data", shards=1, **FAST) as node:
            await node.send(COUNTER, "a", Add(1))
            raise ValueError("mine")
    leftovers.check()
    async with Supervisor(app, data_dir=tmp_path / "data", shards=1, **FAST) as node:
        assert (await totals(node, 1))[0]["total"] == 1


MOMENTS = [0.0, 0.3, 1.5]
_MORE = (0.02, 0.8, 2.2, *(random.Random(seed).uniform(0, 5) for seed in range(20)))
MORE_MOMENTS = [pytest.param(moment, marks=pytest.mark.long) for moment in _MORE]


@pytest.mark.parametrize("delay_s", [*MOMENTS, *MORE_MOMENTS])
async def test_cancelled_at_any_moment_nothing_is_left(leftovers: Leftovers, tmp_path: Path, delay_s: float) -> None:
    """While it starts, while it runs, while calls are under way; the same data directory can be used at once again."""
    leftovers.mark()
    sent = 0
    with trio.move_on_after(delay_s):
        async with (
            Supervisor(app, data_dir=tmp_path / "data", shards=2, **FAST) as node,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(node.ask, "demo/silent", "s", Add(1))
            nursery.start_soon(totals, node, 10**9)
            while True:
                await node.send(COUNTER, "a", Add(1))
                sent += 1
    leftovers.check()
    async with Supervisor(app, data_dir=tmp_path / "data", shards=2, **FAST) as node:
        total = (await node.ask(COUNTER, "a", Add(0), reply_type=Total)).total
        while total < sent:  # a request and messages of the log have no order between them
            total = (await node.ask(COUNTER, "a", Add(0), reply_type=Total)).total
        assert total in {sent, sent + 1}, "one may have been under way"


async def test_cancelled_while_it_stops(leftovers: Leftovers) -> None:
    """A clean stop that takes too long for its caller becomes a fast one."""
    leftovers.mark()
    with trio.CancelScope() as scope:
        async with Supervisor(app, shards=1, **FAST) as node:
            await node.send(COUNTER, "a", Add(1))
            scope.deadline = trio.current_time()
            # the cancellation is noticed at the first checkpoint of leaving the block
    assert scope.cancelled_caught
    leftovers.check()


async def test_a_failed_node_ends_the_block_with_its_error_once(leftovers: Leftovers, tmp_path: Path) -> None:
    leftovers.mark()
    limits = {"backlog_low": 10, "backlog_high": 20, "backlog_limit": 1000}
    with pytest.raises(BacklogLimitError) as caught:
        async with Supervisor(app, shards=1, data_dir=tmp_path / "data", flow=limits, **FAST) as node:
            await node.send("demo/flood", "f", Fail("x"))
            await trio.sleep_forever()
    assert not isinstance(caught.value, BaseExceptionGroup)
    leftovers.check()
    with pytest.raises(BacklogLimitError) as caught:
        async with (
            Supervisor(app, shards=1, data_dir=tmp_path / "data", flow=limits, **FAST) as node,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(node.ask, "demo/silent", "s", Add(1))
            nursery.start_soon(totals, node, 10**9)
            await node.wait()
    assert not isinstance(caught.value, BaseExceptionGroup), "every task got it, the block ends with it"


async def test_whoever_calls_while_the_node_fails_gets_the_reason(leftovers: Leftovers, tmp_path: Path) -> None:
    """The intake ends some time before the processes do; nobody is told of that."""
    leftovers.mark()
    limits = {"backlog_low": 10, "backlog_high": 20, "backlog_limit": 1000}

    async def send(node: NodeHandle, sent: list[int]) -> None:
        while True:
            await node.send("demo/silent", "s", Add(1))
            sent.append(1)

    sent: list[int] = []
    with pytest.raises(BacklogLimitError) as caught:
        async with (
            Supervisor(app, shards=1, data_dir=tmp_path / "data", flow=limits, **FAST) as node,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(send, node, sent)
            await node.send("demo/flood", "f", Fail("x"))
            await trio.sleep_forever()
    assert sent
    assert not isinstance(caught.value, BaseExceptionGroup)
    leftovers.check()


async def test_errors_at_the_start_come_as_they_are(leftovers: Leftovers, tmp_path: Path) -> None:
    leftovers.mark()
    with pytest.raises(ConfigurationError, match=r"checkpoint\.intervall: no such setting"):
        async with Supervisor(app, checkpoint={"intervall": "1 s"}):
            pytest.fail("must not start")
    with pytest.raises(DefinitionError, match="made inside a function"):
        async with Supervisor(made_in_a_function()):
            pytest.fail("must not start")
    async with Supervisor(app, data_dir=tmp_path / "data", shards=1, **FAST):
        with pytest.raises(DirectoryInUseError):
            async with Supervisor(app, data_dir=tmp_path / "data", shards=1, **FAST):
                pytest.fail("must not start")
    with pytest.raises(RuntimeError, match="has a node already"):
        supervisor = Supervisor(app, shards=1, **FAST)
        async with supervisor, supervisor:
            pytest.fail("must not start")


async def test_the_node_goes_on_while_the_program_computes(leftovers: Leftovers) -> None:
    """The loop of the program is held for longer than a shard may be silent: no shard is replaced, and results are published."""
    leftovers.mark()
    patience = {"heartbeat_interval": "100 ms", "heartbeat_timeout": "1 s", "spares": 0}
    async with Supervisor(app, shards=1, checkpoint={"interval": "40 ms"}, supervision=patience) as node:
        await node.send(COUNTER, "a", Add(1))
        before = await node.statistics()
        until = time.monotonic() + 3
        while time.monotonic() < until:
            sum(range(1000))
        after = await node.statistics()
        assert after.shards[0].pid == before.shards[0].pid
        assert after.recoveries == 0
        assert after.published == 1


async def test_a_bounded_input_is_read_to_its_end(leftovers: Leftovers, tmp_path: Path) -> None:
    """With ``endless=False`` the node ends by itself; whoever reads its results gets all of them and then the end."""
    leftovers.mark()
    (tmp_path / "in.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(500)))
    source = {"numbers": {"kind": "file", "path": tmp_path / "in.jsonl", "target": COUNTER, "id": "n"}}
    async with Supervisor(app, shards=2, endless=False, ingress=source, **FAST) as node:
        found = [record async for record in node.egress("totals")]
        assert (await node.wait()).state == "finished"
        assert [record async for record in node.egress("totals")] == found, "also later, as long as the data is there"
    assert found == [], "records are dicts and the function takes Add: dead letters"


async def test_a_wait_for_a_record_that_is_cancelled_loses_none(leftovers: Leftovers) -> None:
    leftovers.mark()
    async with Supervisor(app, shards=1, **FAST) as node:
        stream = node.egress("totals")
        seen = []
        for n in range(100):
            await node.send(COUNTER, "a", Add(n))
            with trio.move_on_after(0.001 * (n % 10)):
                seen.append((await anext(stream))["n"])
        with trio.fail_after(START_S):
            while len(seen) < 100:
                seen.append((await anext(stream))["n"])
        assert seen == list(range(100))


async def test_exactly_once_while_shards_are_killed(leftovers: Leftovers) -> None:
    """Messages and requests go on while shards die again and again: each counts once, each reply comes, the egress has each once."""
    leftovers.mark()
    senders, each = 4, 20
    done = trio.Event()
    replies: list[int] = []

    async def sender(node, number: int) -> None:
        for n in range(each):
            await node.send(COUNTER, f"s{number}", Add(1))
            replies.append((await node.ask(COUNTER, "asked", Add(1), key=f"{number}-{n}"))["total"])

    async def killer(node) -> None:
        kills = 0
        while not done.is_set():
            before = len(replies)
            while len(replies) < before + 16 and not done.is_set():  # noqa: ASYNC110 - it has to get somewhere, however slowly
                await trio.sleep(0.05)
            kills += await node.kill_shard(kills % 2) > 0

    spares = {"checkpoint": {"interval": "40 ms"}, "supervision": {"spares": 1, "restarts_without_checkpoint": 1000}}
    async with Supervisor(app, shards=2, **spares) as node:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(killer, node)
            async with trio.open_nursery() as sending:
                for number in range(senders):
                    sending.start_soon(sender, node, number)
            done.set()
        assert (await node.statistics()).recoveries > 0
        assert sorted(replies) == list(range(1, senders * each + 1)), "no request was counted twice or not at all"
        records = await totals(node, 2 * senders * each)
        by_id: dict[str, list[int]] = {}
        for record in records:
            by_id.setdefault(record["id"], []).append(record["message"])
        expected = {f"s{number}": list(range(1, each + 1)) for number in range(senders)}
        assert by_id == expected | {"asked": list(range(1, senders * each + 1))}
