"""Messages that kill their process: each is found out and parked, and everything else happens exactly once."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest
from real_node import FILE_EGRESS, Node, file_ingress, wait_for

SECTIONS = """
[checkpoint]
interval = "50 ms"

[supervision]
spares = 1
heartbeat_interval = "50 ms"
invocation_timeout = "400 ms"
"""
MANY_STARTS_S = 120
IDS = 40
ROUNDS = 150
DEADLY = {
    "exit": {"do": "die", "by": "exit", "code": 3},
    "fault": {"do": "die", "by": "fault"},
    "kill": {"do": "die", "by": "kill"},
    "stuck": {"do": "sleep", "s": 3600},
}
USUAL = ("fault", "stuck")
HOW = {"exit": "exit code 3", "fault": "SIGSEGV", "kill": "SIGKILL", "stuck": "invocation_timeout"}


def traffic() -> list[dict[str, Any]]:
    return [{"id": f"a{i % IDS}", "n": i} for i in range(IDS * ROUNDS)]


def check_traffic(node: Node) -> None:
    """Every other message has had exactly one effect."""
    totals = {record["id"]: (record["total"], record["seen"]) for record in node.out() if "seen" in record}
    expected = {f"a{k}": list(range(k, IDS * ROUNDS, IDS)) for k in range(IDS)}
    assert {id: seen[1] for id, seen in totals.items() if id in expected} == expected
    assert {id: seen[0] for id, seen in totals.items() if id in expected} == {id: sum(seen) for id, seen in expected.items()}
    assert not [record for record in node.out() if "trace" in record or record.get("sink") == "trace"]


def started(node: Node, records: list[dict[str, Any]], *, rate: int = 20_000) -> None:
    more = f'partition_by = "id"\nrate = {rate}\n'
    node.configure(file_ingress(more=more) + FILE_EGRESS, shards=2, sections=SECTIONS)
    node.lines("in.jsonl", records)


def finish(node: Node) -> dict[str, Any]:
    """Many processes are started one after the other, which takes its time on a busy machine."""
    done = node.run("--json", timeout=MANY_STARTS_S)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("way", [*USUAL, *(pytest.param(way, marks=pytest.mark.long) for way in DEADLY if way not in USUAL)])
def test_a_message_that_kills_its_process_is_parked(node: Node, way: str) -> None:
    records = traffic()
    records.insert(len(records) // 2, {"id": "deadly", "n": 5})
    records.insert(len(records) // 2 + 50, {"id": "deadly", **DEADLY[way]})
    records.insert(len(records) // 2 + 1000, {"id": "deadly", "n": 7})
    started(node, records)
    summary = finish(node)
    (letter,) = node.letters()
    assert letter["target"] == "test/worker:deadly"
    assert letter["payload"] == {"id": "deadly", **DEADLY[way]}
    deaths = 6 if way == "kill" else 3
    assert letter["attempts"] == deaths
    assert letter["reason"].startswith(
        f"ended its shard's process {deaths} times in a row (failure.poison_deaths), the last time:"
    )
    assert HOW[way] in letter["reason"]
    assert summary["dead_letters"] == 1
    assert deaths <= summary["recoveries"] <= deaths + 12
    check_traffic(node)
    assert [(r["total"], r["seen"]) for r in node.out() if r.get("id") == "deadly"] == [(12, [5, 7])]


def test_several_deadly_messages_in_both_shards(node: Node) -> None:
    records = traffic()
    for place, id in enumerate("pqrs", 1):
        records.insert(place * 1000, {"id": id, **DEADLY["exit" if place % 2 else "fault"]})
    started(node, records)
    node.configure(
        file_ingress(more='partition_by = "id"\nrate = 20000\n') + FILE_EGRESS + "[failure]\npoison_deaths = 1\n",
        shards=2,
        sections=SECTIONS,
    )
    finish(node)
    assert {letter["target"] for letter in node.letters()} == {f"test/worker:{id}" for id in "pqrs"}
    check_traffic(node)


def test_state_without_an_encoding_is_found_out_and_parked(node: Node) -> None:
    records = traffic()
    records.insert(len(records) // 2, {"id": "odd", "n": 5})
    records.insert(len(records) // 2 + 50, {"id": "odd", "do": "bad-state"})
    records.insert(len(records) // 2 + 1000, {"id": "odd", "n": 7})
    started(node, records)
    summary = finish(node)
    (letter,) = node.letters()
    assert letter["target"] == "test/worker:odd"
    assert "state field 'inner': the value cannot be stored" in letter["reason"]
    assert 1 <= summary["recoveries"] <= 5
    check_traffic(node)
    assert [(r["total"], r["seen"]) for r in node.out() if r.get("id") == "odd"] == [(12, [5, 7])]


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long)])
def test_random_kills_park_nobody(node: Node, seed: int) -> None:
    """In bursts, so that processes die again while they are careful. One message runs for long, and thousands are equal."""
    chance = random.Random(seed)
    hot = 3000
    records = [record for pair in zip(traffic(), [{"id": "hot"}] * hot, strict=False) for record in pair]
    records += traffic()[hot:]
    records.insert(500, {"id": "slow", "do": "sleep", "s": 0.3})
    started(node, records, rate=900)
    process = node.start("--json")
    wait_for(lambda: len(node.running_shards()) == 2, "the shards to run")
    killed = 0
    while killed < 8:
        time.sleep(chance.uniform(0.1, 0.5))
        for _ in range(chance.randint(1, 3)):
            node.kill_shard(chance.randrange(2))
            killed += 1
            time.sleep(chance.uniform(0.0, 0.2))
    code, stderr = node.end(process)
    assert code == 0, stderr
    assert stderr.count("died (SIGKILL)") >= 5
    assert "careful mode" in stderr
    assert node.letters() == []
    check_traffic(node)
    totals = {record["id"]: record["total"] for record in node.out() if "seen" in record}
    assert (totals["hot"], totals["slow"]) == (hot, 1)
