"""``shardfun query`` and ``shardfun checkpoint`` against real nodes: what runs is looked at, and is not disturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import Any

import pynng
import pytest
import trio
from real_node import SECTIONS, Node, error_lines, file_ingress, wait_for

from shardfun.door.node import NodeLink
from shardfun.errors import ConfigurationError, ProtocolError, ShardfunError, UnavailableError, UnknownTargetError
from shardfun.mesh.door import open_asker
from shardfun.model.keyspace import owner_of
from shardfun.model.questions import ListQuestion, StateAnswer, StateQuestion, decode_answer
from shardfun.supervisor.ask import ask_list, ask_state, door_of, take_checkpoint
from shardfun.supervisor.status import query_status

SHARDS = 2
RARELY = SECTIONS.replace('"50 ms"', '"1 h"')


def started(node: Node, sections: str = SECTIONS) -> subprocess.Popen[str]:
    node.configure(
        file_ingress(more='follow = true\npartition_by = "id"'),
        app="accounts:app",
        shards=SHARDS,
        sections=sections.replace("spares = 0", "spares = 1"),
    )
    node.lines("in.jsonl", [])
    process = node.start()
    wait_for(lambda: running(node), "the node to run")
    return process


def running(node: Node) -> bool:
    try:
        return query_status(node.data, 1.0).state == "running"
    except UnavailableError:
        return False


def give(node: Node, *records: dict[str, Any]) -> None:
    with (node.folder / "in.jsonl").open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def total(node: Node, id: str, *, at: Any = "live", target: str = "bank/account") -> int:
    return ask_state(node.data, StateQuestion(target=target, id=id, at=at)).fields["total"]


def query(node: Node, *arguments: str, code: int = 0) -> dict[str, Any]:
    done = node.command("query", str(node.config), *arguments, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_the_state_of_an_address_live_and_as_of_a_checkpoint(node: Node) -> None:
    started(node, RARELY)
    take_checkpoint(node.data)
    give(node, *({"id": "a", "n": n} for n in range(5)), {"id": "b", "n": -1})
    wait_for(lambda: (total(node, "a"), total(node, "b")) == (10, -1), "the messages to be handled")
    found = query(node, "bank/account", "a", "--limit", "2")
    assert (found["address"], found["exists"]) == ("bank/account:a", True)
    assert found["fields"]["last"] == {"n": 4, "raw": {"base64": "/w=="}}
    assert [item["key"] for item in found["parts"]["days"]["items"]] == ["2024-01-01", "2024-01-02"]
    assert found["parts"]["recent"]["items"] == [{"key": 0, "value": 0}, {"key": 1, "value": 1}]
    assert found["parts"]["extra"]["items"][0]["value"] == {"kind": "map", "type": "str, int"}
    rest = query(node, "bank/account", "a", "--part", "days", "--after", found["parts"]["days"]["next"])
    assert [item["value"] for item in rest["parts"]["days"]["items"]] == [2, 3, 4]
    assert rest["next"] is None
    assert query(node, "bank/account", "a", "--part", "extra.by.sign")["parts"]["extra.by.sign"]["items"] == [
        {"key": "+", "value": 4}
    ]

    assert total(node, "a", at="checkpoint") == 0
    query(node, "bank/account", "a", "--at", "checkpoint", code=1)
    done = node.command("checkpoint", str(node.config), "--json")
    assert done.returncode == 0, done.stderr
    assert total(node, "a", at="checkpoint") == 10
    assert query(node, "bank/account", "a", "--at", "checkpoint")["checkpoint"] == json.loads(done.stdout)["checkpoint"]
    wait_for(lambda: query(node, "bank/account:a")["fields"]["fading"] == 0, "a value to expire")

    text = node.command("query", str(node.config), "bank/account", "a", "--part", "recent", "--limit", "2", "--all").stdout
    assert [line.strip() for line in text.splitlines()[1:]] == ["recent: buffer", "0: 0", "1: 1", "2: 2", "3: 3", "4: 4"]
    assert "total: 10" in node.command("query", str(node.data), "bank/account", "a").stdout


def test_ids_are_listed_over_all_shards_each_once_in_the_same_order(node: Node) -> None:
    started(node)
    ids = [f"id-{n}" for n in range(300)]
    give(node, *({"id": id, "n": 1} for id in ids), *({"id": id, "n": 1, "to": f"tally/{id[-1]}"} for id in ids))
    wait_for(lambda: all(total(node, id) for id in ids[-3:]), "the messages to be handled")
    take_checkpoint(node.data)
    done = node.command("query", str(node.config), "bank/account", "--list", "--all", "--limit", "7")
    listed = done.stdout.splitlines()
    assert sorted(listed) == sorted(ids)
    assert len({owner_of(id, SHARDS) for id in listed}) == SHARDS
    whole = ask_list(node.data, ListQuestion(typename="bank/account", limit=1000))
    assert (whole.ids, whole.next) == (listed, None)
    assert len(ask_list(node.data, ListQuestion(typename="tally/3")).ids) == 30
    assert ask_list(node.data, ListQuestion(typename="tally/never")).ids == []


def test_a_busy_address_is_not_waited_for(node: Node) -> None:
    started(node)
    give(node, {"id": "a", "n": 0, "to": "slow/thread"}, {"id": "a", "n": 60, "to": "slow/thread"})
    wait_for(lambda: sum(shard.calls for shard in query_status(node.data).shards) == 1, "the call to be under way")
    began = time.monotonic()
    assert total(node, "a", target="slow/thread") == 0, "what is committed"
    assert time.monotonic() - began < 5


def test_what_cannot_be_asked_is_told(node: Node) -> None:
    process = started(node)
    for target, id in (
        ("bank/acount", "a"),
        ("bank", "a"),
        ("bank/*", "a"),
        ("bank/account", ""),
        ("bank/account", "x" * 5000),
    ):
        with pytest.raises(UnknownTargetError):
            ask_state(node.data, StateQuestion(target=target, id=id))
    with pytest.raises(UnknownTargetError, match="did you mean 'bank/account'"):
        ask_list(node.data, ListQuestion(typename="bank/acount"))
    with pytest.raises(UnknownTargetError, match="has no part 'total'"):
        ask_state(node.data, StateQuestion(target="bank/account", id="a", part="total"))
    for after in ("", "?", "aaaa", "bWE"):
        with pytest.raises(ConfigurationError, match="expected 'next'"):
            ask_list(node.data, ListQuestion(typename="bank/account", after=after))
        with pytest.raises(ConfigurationError, match="expected 'next'"):
            ask_state(node.data, StateQuestion(target="bank/account", id="a", part="recent", after=after))
    with pytest.raises(ProtocolError, match="expected a limit from 1 to 1000"):
        ask_list(node.data, ListQuestion(typename="bank/account", limit=0))
    done = node.command("query", str(node.config), "bank/acount", "a")
    assert (done.returncode, done.stdout) == (1, "")
    assert "did you mean 'bank/account'" in error_lines(done.stderr)[0]
    node.end(process, signal.SIGTERM)
    for command in (("query", str(node.config), "bank/account", "a"), ("checkpoint", str(node.config))):
        done = node.command(*command)
        assert done.returncode == 8
        assert "no node runs" in error_lines(done.stderr)[0]


def test_nothing_that_is_sent_to_the_door_breaks_the_node(node: Node) -> None:
    process = started(node)
    url = door_of(node.data)
    questions = [os.urandom(n) for n in range(0, 200, 7)]
    questions += [b"[" * 60_000, b'{"type":"state"}', b'{"type":"list","typename":"a/b","limit":1e9}', b"null", b'{"type":5}']
    questions += [b'{"type":"state","target":"bank/account","id":"\\u0000","after":"Yg"}', b'{"type":"checkpoint","x":1}']
    for question in questions:
        with pynng.Req0(send_timeout=5000, recv_timeout=20_000) as socket:
            socket.dial(url, block=True)
            socket.send(question)
            decode_answer(socket.recv())
    assert process.poll() is None
    assert total(node, "a") == 0
    status = query_status(node.data)
    assert (status.state, status.recoveries) == ("running", 0)


@pytest.mark.chaos
def test_what_a_checkpoint_shows_is_there_after_every_kill(node: Node) -> None:
    """What was read as of a checkpoint never goes back; killed as a whole, at least that is stored."""
    process = started(node)
    given, seen, kills = 0, 0, 0
    deadline = time.monotonic() + 20
    while kills < 6 and time.monotonic() < deadline:
        give(node, *({"id": "a", "n": 1} for _ in range(50)))
        given += 50
        for _ in range(10):
            try:
                now = total(node, "a", at="checkpoint")
                later = total(node, "a")
            except UnavailableError:
                continue
            assert seen <= now <= later <= given
            seen = now
        node.kill_shard(kills)
        kills += 1
    before = wait_for(lambda: (n := total(node, "a")) == given and n, "all to be handled")
    name = take_checkpoint(node.data).checkpoint
    answer = ask_state(node.data, StateQuestion(target="bank/account", id="a", at="checkpoint"))
    assert answer.fields["total"] == before
    assert [int(part) for part in answer.checkpoint.split(".")] >= [int(part) for part in name.split(".")]
    give(node, *({"id": "a", "n": 1} for _ in range(50)))
    wait_for(lambda: total(node, "a", at="checkpoint") > before, "some more")
    seen = total(node, "a", at="checkpoint")
    node.kill(process)
    assert node.inspect("bank/account:a")["state"]["total"] >= seen


async def test_many_tasks_ask_over_one_connection_while_shards_are_killed(node: Node) -> None:
    await trio.to_thread.run_sync(started, node)
    give(node, *({"id": f"a{n}", "n": n} for n in range(20)))
    await trio.to_thread.run_sync(wait_for, lambda: total(node, "a19") == 19, "the messages to be handled")
    await trio.to_thread.run_sync(take_checkpoint, node.data)
    answers: list[StateAnswer | None] = []

    with open_asker(door_of(node.data)) as asker, trio.fail_after(60):
        link = NodeLink(asker)

        async def ask(n: int) -> None:
            for _ in range(5):
                try:
                    answer = await link.state(StateQuestion(target="bank/account", id=f"a{n}"))
                    assert answer.fields["total"] == n
                    answers.append(answer)
                except UnavailableError:
                    answers.append(None)

        async with trio.open_nursery() as nursery:
            for n in range(20):
                nursery.start_soon(ask, n)
            await trio.to_thread.run_sync(node.kill_shard, 0)
            with trio.move_on_after(0.001):
                await link.checkpoint()
            with pytest.raises(ShardfunError):
                await link.ids(ListQuestion(typename="no/such"))
        assert len(answers) == 100
        assert sum(answer is not None for answer in answers) > 50, "asked again after the recovery"
        assert (await link.status()).recoveries >= 1
        assert (await link.checkpoint()).took_ms > 0
