"""Functions that await or block in a real node: everything exactly once, and nobody waits who need not."""

from __future__ import annotations

import signal
import time
from collections import Counter
from typing import Any

from real_node import FILE_EGRESS, SECTIONS, Node, file_ingress, wait_for

APP = "waiting:app"
LASTING = file_ingress(more="rate = 1000")  # so that there is something to kill, also where everything is slow


def last_totals(records: list[dict[str, Any]]) -> dict[tuple[str, str], int]:
    """The last total of each address, after checking that none of its records is missing or doubled."""
    seen = Counter((record["do"], record["id"], record["count"]) for record in records)
    assert set(seen.values()) <= {1}
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for record in records:
        key = record["do"], record["id"]
        found[key] = max(found.get(key, (0, 0)), (record["count"], record["total"]))
    assert len(seen) == sum(count for count, _ in found.values())
    return {key: total for key, (_, total) in found.items()}


def expected_totals(records: list[dict[str, Any]]) -> dict[tuple[str, str], int]:
    totals: Counter[tuple[str, str]] = Counter()
    for record in records:
        totals[f"test/{record['do']}", record["id"]] += record["n"]
        totals["test/count", "all"] += record["n"]
    return dict(totals)


def test_functions_that_await_block_or_need_asyncio(node: Node) -> None:
    node.configure(file_ingress() + FILE_EGRESS, app=APP, shards=2)
    records = [{"id": f"k{i % 20}", "do": ("await", "block", "asyncio")[i % 3], "n": 1 + i % 7} for i in range(600)]
    node.lines("in.jsonl", records)
    summary = node.finish()
    assert (summary["verdict"], summary["recoveries"], summary["dead_letters"]) == ("finished", 0, 0)
    assert last_totals(node.out()) == expected_totals(records)


def test_awaiting_functions_are_exactly_once_under_kills(node: Node) -> None:
    node.configure(LASTING + FILE_EGRESS, app=APP, shards=2, sections='[checkpoint]\ninterval = "50 ms"\n')
    records = [{"id": f"k{i % 40}", "do": ("await", "block", "asyncio")[i % 3], "n": 30 + i % 7} for i in range(2400)]
    node.lines("in.jsonl", records)
    process = node.start("--json")
    for kill in range(3):
        wait_for(lambda kill=kill: node.published() > 300 * (kill + 1), "some results")
        node.kill_shard(kill)
        time.sleep(0.3)
    code, stderr = node.end(process)
    assert code == 0, stderr
    assert last_totals(node.out()) == expected_totals(records)


def test_a_timeout_fails_the_invocation_and_the_address_goes_on(node: Node) -> None:
    node.configure(file_ingress() + FILE_EGRESS, app=APP)
    node.lines("in.jsonl", [{"id": "a", "do": "late", "n": 60}, {"id": "a", "do": "late", "n": 0}, {"id": "b", "do": "count"}])
    assert node.finish()["dead_letters"] == 1
    (letter,) = node.letters()
    assert letter["reason"] == "FunctionTimeoutError: test/late:a took longer than its timeout of 0.1 s"
    assert {record["id"] for record in node.out()} == {"b", "never"}, "only the second one's effects"


def test_a_shard_whose_threads_are_all_stuck_is_replaced(node: Node) -> None:
    node.configure(
        f"{file_ingress()}{FILE_EGRESS}\n[calls]\nthreads = 2\n", app=APP, sections='[checkpoint]\ninterval = "50 ms"\n'
    )
    records = [{"id": f"s{i}", "do": "stuck", "n": 600 if i < 2 else 0} for i in range(6)]
    node.lines("in.jsonl", [*records, *({"id": "a", "do": "count", "n": 1} for _ in range(5))])
    summary = node.finish()
    assert summary["verdict"] == "finished"
    assert summary["recoveries"] >= 1
    assert sorted(letter["target"] for letter in node.letters()) == ["test/stuck:s0", "test/stuck:s1"]
    assert max(record["total"] for record in node.out()) == 5


def test_an_async_function_that_computes_for_ever_is_found_out(node: Node) -> None:
    sections = '[checkpoint]\ninterval = "50 ms"\n[supervision]\ninvocation_timeout = "1 s"\nheartbeat_interval = "100 ms"\n'
    node.configure(file_ingress() + FILE_EGRESS, app=APP, sections=sections)
    node.lines("in.jsonl", [{"id": "a", "do": "spin", "n": 600}, {"id": "b", "do": "count"}])
    process = node.start("--json")
    stderr = ""
    assert process.stderr is not None
    while "an async function that does not await has run for" not in stderr:
        line = process.stderr.readline()
        assert line, stderr
        stderr += line
    node.end(process, signal.SIGKILL)


def test_an_async_function_that_kills_its_process_is_parked_and_those_beside_it_are_not(node: Node) -> None:
    node.configure(file_ingress() + FILE_EGRESS, app=APP, sections='[checkpoint]\ninterval = "50 ms"\n')
    records = [{"id": f"k{i}", "do": "die", "n": -1 if i == 7 else 1} for i in range(20)]
    node.lines("in.jsonl", records)
    summary = node.finish()
    assert summary["verdict"] == "finished"
    (letter,) = node.letters()
    assert letter["target"] == "test/die:k7"
    assert sorted(record["id"] for record in node.out()) == sorted(f"k{i}" for i in range(20) if i != 7)


def test_a_retry_with_a_pause_waits_and_others_go_on(node: Node) -> None:
    node.configure(file_ingress() + FILE_EGRESS, app=APP)
    node.lines("in.jsonl", [{"id": "a", "do": "flag"}, {"id": "a", "do": "flag"}, {"id": "b", "do": "count"}])
    process = node.start("--json")
    wait_for(node.out, "the other address")
    time.sleep(0.5)
    assert [record["id"] for record in node.out()] == ["b"]
    (node.folder / "flag").touch()
    code, stderr = node.end(process)
    assert code == 0, stderr
    assert [(record["id"], record["count"]) for record in node.out()] == [("b", 1), ("a", 1), ("a", 2)]
    assert node.letters() == []


def test_restart_falls_back_to_the_last_checkpoint(node: Node) -> None:
    node.configure(file_ingress() + FILE_EGRESS, app=APP, shards=2)
    node.lines("in.jsonl", [{"id": f"k{i}", "do": "count"} for i in range(50)] + [{"id": "a", "do": "restart"}])
    summary = node.finish()
    assert (summary["verdict"], summary["recoveries"], summary["dead_letters"]) == ("finished", 3, 0)
    assert len(node.out()) == 51


def test_restart_for_ever_stops_the_node_with_the_reason(node: Node) -> None:
    node.configure(file_ingress() + FILE_EGRESS, app=APP, sections=f"{SECTIONS}restarts_without_checkpoint = 3\n")
    node.lines("in.jsonl", [{"id": "a", "do": "restart"}])
    (node.folder / "attempts").write_text("")
    done = node.run()
    if done.returncode:  # the third attempt may be one too many
        assert "test/restart:a has failed (attempts: 1), and its policy is to restart: ConnectionError" in done.stderr


def test_results_of_operations_come_once_and_are_unknown_after_a_kill(node: Node) -> None:
    node.configure(LASTING + FILE_EGRESS, app=APP, shards=2, sections='[checkpoint]\ninterval = "50 ms"\n')
    node.lines(
        "in.jsonl", [{"id": f"k{i % 50}", "do": "ask", "n": i} for i in range(3000)] + [{"id": "x", "do": "ask", "n": -1}]
    )
    process = node.start("--json")
    for kill in range(3):
        wait_for(lambda kill=kill: node.published() > 400 * (kill + 1), "some results")
        node.kill_shard(kill)
        time.sleep(0.3)
    code, stderr = node.end(process)
    assert code == 0, stderr
    out = node.out()
    assert Counter(record["asked"] for record in out) == Counter([*range(3000), -1])
    statuses = Counter(record["status"] for record in out)
    assert all(record["value"] == 2 * record["asked"] for record in out if record["status"] == "SUCCESS")
    assert min(statuses["SUCCESS"], statuses["UNKNOWN"]) > 0
    assert statuses["FAILURE"] <= 1
