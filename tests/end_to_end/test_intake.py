"""Messages from outside, in real nodes: what was acknowledged happens exactly once, what was asked is replied, whoever is killed."""

from __future__ import annotations

import random
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from asking import Count, Counted, app
from real_node import FILE_EGRESS, Node, file_ingress, wait_for

from shardfun.errors import UnavailableError
from shardfun.intake.desk import Intake
from shardfun.intake.entries import HTTP, LOCAL, MessageEntry, Reply, RequestEntry, encode_entry, slot_of_entry
from shardfun.intake.log import DURABLE, LogWriter
from shardfun.intake.log_files import load_mark, segments
from shardfun.intake.targets import Targets
from shardfun.state.directory import DataDirectory
from shardfun.supervisor import query_status

ENDLESS = 'endless = true\n[checkpoint]\ninterval = "50 ms"\n[supervision]\nspares = 1\n'
IDS = 20
TARGETS = Targets.of(app)


def message(n: int) -> MessageEntry:
    id = f"id{n % IDS}"
    return MessageEntry("ask/count", id, *TARGETS.encode("ask/count", id, Count(n)))


def request(n: int, target: str = "ask/count", *, anonymous: bool = False) -> RequestEntry:
    id = f"id{n % IDS}"
    type, payload = TARGETS.encode(target, id, Count(n))
    return RequestEntry(f"{'~' if anonymous else 'key'}{n}", anonymous, b"%d" % n, target, id, type, payload, HTTP)


def value_of(reply: Reply | None) -> Counted:
    assert reply is not None
    assert reply.status == "reply"
    value = TARGETS.decode(reply.type, reply.payload)
    return value if isinstance(value, Counted) else Counted(**value)


def runtime_dir(node: Node) -> Path:
    record = DataDirectory(node.data).read_node()
    return Path(record.runtime_dir if record is not None else "/nowhere")


@asynccontextmanager
async def door(node: Node, owner: str = HTTP, **settings: Any) -> AsyncIterator[Intake]:
    """What the process of a door does."""
    await trio.to_thread.run_sync(wait_for, node.running_shards, "the shards")
    made = Intake(
        owner, node.data / "intake" / owner, runtime_dir(node), 2, backlog_bytes=1 << 20, entry_bytes_max=1 << 16, **settings
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(made.run)
        yield made
        nursery.cancel_scope.cancel()


def numbers(node: Node) -> list[int]:
    return sorted(record["n"] for record in node.out())


def is_read(node: Node, owner: str = HTTP) -> bool:
    """Whether a complete checkpoint has everything of a log."""
    try:
        status = query_status(node.data, 1.0)
    except UnavailableError:
        return False
    mark = load_mark(node.data / "intake" / owner / DURABLE)
    return mark is not None and status.intake[owner] == mark.offset


async def until_read(node: Node, owner: str = HTTP) -> None:
    await trio.to_thread.run_sync(wait_for, lambda: is_read(node, owner), "checkpoints to have read the log")


async def test_what_was_acknowledged_happens_once_and_asks_are_replied_under_kills_of_shards(node: Node) -> None:
    node.configure(FILE_EGRESS, app="asking:app", shards=2, sections=ENDLESS)
    process = node.start()
    replies: dict[int, Counted] = {}
    chance = random.Random(1)
    messages, asks, through = range(600), range(1000, 1300), range(2000, 2200)
    async with door(node) as intake:

        async def tell(n: int) -> None:
            await trio.sleep(chance.uniform(0, 6))
            await intake.append([message(n)])

        async def ask(n: int, target: str = "ask/count") -> None:
            await trio.sleep(chance.uniform(0, 6))
            replies[n] = value_of(await intake.ask(request(n, target, anonymous=n % 2 == 0)))

        async def kill() -> None:
            for which in range(6):
                await trio.sleep(1)
                await trio.to_thread.run_sync(node.kill_shard, which)

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(kill)
                for n in messages:
                    nursery.start_soon(tell, n)
                for n in asks:
                    nursery.start_soon(ask, n)
                for n in through:
                    nursery.start_soon(ask, n, "ask/through")
            again = [value_of(await intake.ask(request(n))) for n in asks if n % 2 == 1][:50]
            await until_read(node)
    node.end(process, signal.SIGTERM)
    assert process.returncode == 0
    assert numbers(node) == sorted([*messages, *asks, *through])
    assert {n for n, reply in replies.items() if reply.n == n} == {*asks, *through}
    assert again == [replies[n] for n in asks if n % 2 == 1][:50]
    assert Counter(reply.count for n, reply in replies.items() if n in through) == {0: len(through)}
    of_one_id = [record["n"] for record in node.out() if record["id"] == "id3" and record["n"] in asks]
    counts = [replies[n].count for n in of_one_id]
    assert counts == sorted(set(counts)), "replies tell the count at their message"
    assert node.letters() == []


async def test_nothing_is_lost_or_done_twice_when_supervisor_and_door_are_killed(node: Node) -> None:
    node.configure(FILE_EGRESS, app="asking:app", shards=2, sections=ENDLESS)
    acknowledged: list[int] = []
    replies: dict[int, Counted] = {}
    n = 0
    for life in range(4):
        process = node.start()
        async with door(node) as intake:
            for _ in range(60):
                n += 1
                await intake.append([message(n)])
                acknowledged.append(n)
                assert await intake.ask(request(10_000 + n), wait_s=0) is None
            if life:
                for earlier in range(n - 110, n - 60, 10):
                    with trio.fail_after(60):
                        replies[earlier] = value_of(await intake.ask(request(10_000 + earlier)))
        if life < 3:
            node.kill(process)
    async with door(node) as intake:
        with trio.fail_after(60):
            assert {earlier: value_of(await intake.ask(request(10_000 + earlier))) for earlier in replies} == replies
        await until_read(node)
    node.end(process, signal.SIGTERM)
    assert numbers(node) == sorted([*acknowledged, *(10_000 + each for each in acknowledged)])


async def test_segments_go_when_no_checkpoint_needs_them(node: Node) -> None:
    node.configure(FILE_EGRESS, app="asking:app", shards=2, sections=ENDLESS)
    process = node.start()
    async with door(node, segment_bytes=1000) as intake:
        seen = 0
        for n in range(300):
            await intake.append([message(n)])
            seen = max(seen, len(segments(node.data / "intake" / HTTP)))
        await until_read(node)
        await intake.append([message(300)])
        await trio.to_thread.run_sync(wait_for, lambda: len(segments(node.data / "intake" / HTTP)) <= 2, "segments to go")
        assert seen > 2
        assert intake.backlog_bytes_now < 1000
    node.kill(process)
    again = node.start()
    await trio.to_thread.run_sync(wait_for, node.running_shards, "the shards")
    node.end(again, signal.SIGTERM)
    assert numbers(node) == list(range(301))


def test_a_bounded_run_ends_and_has_processed_what_was_in_the_log(node: Node) -> None:
    node.lines("in.jsonl", ({"n": n} for n in range(1000, 1100)))
    node.configure(FILE_EGRESS, app="asking:app", shards=2, sections=ENDLESS)
    process = node.start()
    wait_for(node.running_shards, "the shards")
    node.kill(process)
    writer = LogWriter(node.data / "intake" / LOCAL)
    writer.open()
    writer.append([(slot_of_entry(message(n)), encode_entry(message(n))) for n in range(50)])
    writer.close()
    node.configure(file_ingress() + FILE_EGRESS, app="asking:app", shards=2)
    node.finish()
    assert numbers(node) == [*range(50), *range(1000, 1100)]
    assert list(node.inspect()["positions"]) == ["events"]


def test_a_fresh_start_forgets_the_log(node: Node) -> None:
    node.configure(FILE_EGRESS, app="asking:app", shards=2, sections=ENDLESS)

    async def tell() -> None:
        async with door(node) as intake:
            await intake.append([message(1), message(2)])
            await until_read(node)

    process = node.start()
    trio.run(tell)
    node.end(process, signal.SIGTERM)
    assert numbers(node) == [1, 2]
    process = node.start("--fresh", "--yes")
    wait_for(node.running_shards, "the shards")
    assert not (node.data / "intake").exists()
    node.end(process, signal.SIGTERM)
    assert numbers(node) == []


def test_a_log_that_is_gone_stops_the_node(node: Node) -> None:
    node.configure(FILE_EGRESS, app="asking:app", shards=2, sections=ENDLESS)

    async def tell() -> None:
        async with door(node) as intake:
            await intake.append([message(1)])
            await until_read(node)

    process = node.start()
    trio.run(tell)
    node.end(process, signal.SIGTERM)
    shutil.rmtree(node.data / "intake")
    done = node.run()
    assert done.returncode == 4
    assert "has read this intake log up to byte" in done.stderr
