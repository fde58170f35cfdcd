"""Delayed messages in a real node: each once and none early, whatever is killed; and what becomes of them at the end."""

from __future__ import annotations

import json
import signal

from real_node import APPS, FILE_EGRESS, Node, file_ingress, wait_for

APP = "clocks:app"


def pending(node: Node) -> int:
    """Timers of a running node, as ``status`` tells it."""
    done = node.command("status", str(node.config), "--json")
    return sum(shard["timers"] for shard in json.loads(done.stdout)["shards"]) if done.returncode == 0 else 0


def test_timers_survive_kills_and_a_restart_and_fire_once(node: Node) -> None:
    ordered = file_ingress(more='partition_by = "id"')  # else a cancellation may overtake its timer
    node.configure(f'{ordered}{FILE_EGRESS}\n[timers]\nat_end = "wait"\n', app=APP, shards=2)
    node.lines(
        "in.jsonl",
        [
            *({"id": f"a{i}", "after": 0.5 + 12 * i / 300} for i in range(300)),
            *({"id": f"c{i}", "after": 2.5, "token": "t"} for i in range(50)),
            *({"id": f"c{i}", "cancel": "t"} for i in range(0, 50, 2)),
            *({"id": f"c{i}", "after": 3, "token": "t"} for i in range(1, 50, 4)),
        ],
    )
    process = node.start()
    wait_for(lambda: node.published() > 20, "some timers to fire")
    node.kill_shard()
    wait_for(lambda: node.published() > 60, "more timers to fire after the recovery")
    node.kill(process)
    before = node.published()
    summary = node.finish()
    assert summary["dead_letters"] == 0
    rings = node.out()
    assert before < len(rings)
    assert sorted(ring["id"] for ring in rings) == sorted([*(f"a{i}" for i in range(300)), *(f"c{i}" for i in range(1, 50, 2))])
    assert {ring["count"] for ring in rings} == {1}
    assert not [ring for ring in rings if ring["early"]]


def test_at_the_end_timers_can_fire_at_once_in_order(node: Node) -> None:
    node.configure(f'{file_ingress()}{FILE_EGRESS}\n[timers]\nat_end = "fire"\n', app=APP)
    node.lines("in.jsonl", [{"id": f"a{i}", "after": 3600 + i * 7 % 100} for i in range(100)])
    node.finish()
    dues = [ring["due"] for ring in node.out()]
    assert len(dues) == 100
    assert dues == sorted(dues)


def test_at_the_end_timers_are_kept_and_can_be_looked_at(node: Node) -> None:
    node.configure(file_ingress() + FILE_EGRESS, app=APP, shards=2)
    node.lines("in.jsonl", [{"id": f"a{i}", "after": 3600 + i, "token": f"t{i}"} for i in range(20)])
    node.finish()
    assert node.out() == []
    found = node.inspect("--timers", "--limit", "3")
    assert found["timers"] == 20
    assert [timer["token"] for timer in found["pending"]] == ["t0", "t1", "t2"]
    assert [timer["target"] for timer in found["pending"]] == [f"test/bell:bell of a{i}" for i in range(3)]
    assert node.finish()["dead_letters"] == 0
    assert node.inspect()["contents"]["timers"] == 20


def test_timers_whose_function_is_gone_are_parked_at_the_next_start(node: Node) -> None:
    node.configure(f'{file_ingress()}{FILE_EGRESS}\n[timers]\nat_end = "wait"\n', app="changed:app")
    text = (APPS / "clocks.py").read_text()
    application = node.folder / "changed.py"
    application.write_text(text)
    node.lines("in.jsonl", [{"id": f"a{i}", "after": 3600} for i in range(5)])
    process = node.start()
    wait_for(lambda: pending(node) == 5, "the timers to be made")
    code, stderr = node.end(process, signal.SIGINT)
    assert code == 0, stderr
    application.write_text(text.replace('"test/bell"', '"test/chime"'))
    code, stderr = node.end(node.start())
    assert code == 0, stderr
    assert "5 restored messages for test/bell are parked: the function test/bell does not exist any more" in stderr
    assert sorted(letter["target"] for letter in node.letters()) == [f"test/bell:bell of a{i}" for i in range(5)]
