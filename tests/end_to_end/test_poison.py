"""Input and functions that fail: what fails is parked with everything a person needs, and the rest is exact."""

from __future__ import annotations

import json
from typing import Any

from real_node import FILE_EGRESS, Node, error_lines, file_ingress, wait_for

from shardfun.model.keyspace import owner_of

COUNTED = [{"id": f"a{i % 3}", "n": i} for i in range(30)]
WRONG = ("exit", "wrong-payload", "unknown-function", "unknown-egress", "wrong-state", "wrong-id")

REASONS = {
    "raise": "RefusedError: attempt 3",
    "exit": "SystemExit: a function may not end the shard",
    "wrong-payload": "PayloadTypeError: test/sink accepts int, not str: 'a text'",
    "unknown-function": "UnknownTargetError: unknown function type 'test/sinc'; did you mean 'test/sink'?",
    "unknown-egress": "UnknownTargetError: unknown egress 'owt'; did you mean 'out'?",
    "wrong-state": "PayloadTypeError: state field 'total': expected int, got str: 'many'",
    "wrong-id": "PayloadTypeError: id: expected a text of 1 to 4096 bytes, got ''",
}


def by_target(letters: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = {letter["target"]: letter for letter in letters}
    assert len(found) == len(letters)
    return found


def test_every_way_to_fail_is_parked_and_leaves_no_trace(node: Node) -> None:
    node.configure(f"{file_ingress()}{FILE_EGRESS}[failure]\nretries = 2\n")
    bad_lines = ["[1]", "{nope", '{"id": "\\ud83d"}']
    failing = [{"id": "raise", "do": "raise"}, *({"id": name, "do": name} for name in WRONG)]
    other = [{"id": "once", "do": "raise-once"}, {"id": "p", "do": "router"}, {"id": "relay", "do": "relay", "to": "f", "n": 7}]
    node.lines("in.jsonl", [*COUNTED, *bad_lines, *failing, *other])
    summary = node.finish()
    assert (summary["verdict"], summary["recoveries"]) == ("finished", 0)

    letters = by_target(node.letters())
    for number, (raw, reason) in enumerate(zip(bad_lines, ("expected", "not valid JSON", "not valid JSON"), strict=True), 31):
        letter = letters.pop(f"ingress/events:in.jsonl:{number} (record {number})")
        assert reason in letter["reason"].lower().replace("not valid json", "not valid JSON")
        assert (letter["payload"], letter["payload_type"], letter["attempts"]) == (f"{raw}\n", "ingress record", 0)
    for name, reason in REASONS.items():
        letter = letters.pop(f"test/worker:{name}")
        assert letter["reason"] == reason
        assert (letter["attempts"], letter["payload"]["do"], letter["sender"]) == (3, name, None)
        assert letter["traceback"].startswith("Traceback")
        assert "another exception" not in letter["traceback"], "the story of one attempt, not of all"
    relayed = letters.pop("test/fragile:f")
    assert (relayed["sender"], relayed["payload_type"], relayed["payload"], relayed["attempts"]) == (
        "test/worker:relay",
        "int",
        7,
        3,
    )
    assert 'raise RefusedError(f"never takes {number}")' in relayed["traceback"]
    ((target, routed),) = letters.items()
    assert target.startswith("ingress/events:in.jsonl:1-43 (")
    assert routed["reason"] == "RefusedError: the router does not want this record"
    assert "'do': 'router'" in routed["payload"]
    assert "rowdy.py" in routed["traceback"]
    assert summary["dead_letters"] == len(REASONS) + 3 + 2

    out = node.out()
    assert [record for record in out if "after" in record] == [{"id": "once", "after": 2}]
    assert [record for record in out if "trace" in record] == [{"id": "once", "trace": True}]
    assert [record for record in out if "sink" in record] == [{"sink": "trace", "total": 1}]
    totals = {record["id"]: (record["total"], record["seen"]) for record in out if "seen" in record}
    assert totals.pop("once") == (1, [1, -1])
    assert totals.pop("relay") == (7, [7])
    assert totals == {f"a{k}": (sum(range(k, 30, 3)), list(range(k, 30, 3))) for k in range(3)}


def test_a_csv_row_that_does_not_parse_is_parked_with_its_line(node: Node) -> None:
    node.configure(file_ingress("in.csv", 'target = "test/csv"\nid = "id"') + FILE_EGRESS, app="rowdy:csv_app", shards=2)
    rows = ["id,n", *(f"k{i % 4},{i}" for i in range(40)), "short", 'k0,"open', "k1,1"]
    (node.folder / "in.csv").write_text("\n".join(rows) + "\n")
    summary = node.finish()
    letters = node.letters()
    assert {letter["target"] for letter in letters} == {
        "ingress/events:in.csv:42 (record 41)",
        "ingress/events:in.csv:43 (record 42)",
    }
    assert all(letter["reason"] and letter["payload_type"] == "ingress record" for letter in letters)
    assert summary["dead_letters"] == 2
    assert {record["id"]: record["total"] for record in node.out()} == {
        f"k{k}": sum(range(k, 40, 4)) + (k == 1) for k in range(4)
    }


LIVELY = '[checkpoint]\ninterval = "50 ms"\n[supervision]\nspares = 0\nheartbeat_interval = "50 ms"\n'


def test_a_function_that_runs_for_long_is_neither_dead_nor_poison(node: Node) -> None:
    node.configure(file_ingress() + FILE_EGRESS, sections=f'{LIVELY}heartbeat_timeout = "2 s"\n')
    node.lines("in.jsonl", [{"id": "slow", "do": "sleep", "s": 8}, {"id": "b"}])
    process = node.start("--json")
    running = wait_for(lambda: _running(node), "the status to name the function that runs for long")
    assert running.startswith("test/worker:slow for ")
    code, stderr = node.end(process)
    assert code == 0
    assert "died" not in stderr
    assert {record["id"]: record["total"] for record in node.out()} == {"slow": 1, "b": 1}
    assert node.letters() == []


def _running(node: Node) -> str:
    done = node.command("status", str(node.config), "--json")
    return "" if done.returncode else json.loads(done.stdout)["shards"][0]["running"]


def test_a_function_that_is_stuck_is_ended_and_at_last_the_node_gives_up(node: Node) -> None:
    limits = 'invocation_timeout = "300 ms"\nrestarts_without_checkpoint = 1\n'
    node.configure(file_ingress() + FILE_EGRESS, sections=LIVELY + limits)
    node.lines("in.jsonl", [{"id": "stuck", "do": "sleep", "s": 3600}])
    done = node.run()
    assert done.returncode == 8
    (line,) = error_lines(done.stderr)
    assert line.startswith(
        "2 deaths of shards without a complete checkpoint in between (supervision.restarts_without_checkpoint)"
    )
    assert "test/worker:stuck has run for" in line
    assert "supervision.invocation_timeout" in line
    assert done.stderr.count("recovered") == 1
    assert node.processes() == []


def test_many_quick_invocations_are_not_taken_for_a_stuck_one(node: Node) -> None:
    node.configure(file_ingress() + FILE_EGRESS, sections=f'{LIVELY}invocation_timeout = "300 ms"\n')
    node.lines("in.jsonl", [{"id": "same", "do": "sleep", "s": 0.02}] * 60)  # one batch of 1.2 s
    assert node.finish()["recoveries"] == 0
    assert [record["total"] for record in node.out()] == [60]


def test_an_application_that_floods_itself_stops_the_node(node: Node) -> None:
    node.configure(f"{file_ingress()}{FILE_EGRESS}[flow]\nbacklog_high = 1000\nbacklog_low = 500\nbacklog_limit = 20_000\n")
    node.lines("in.jsonl", [{"id": "a", "do": "flood"}])
    done = node.run()
    assert done.returncode == 7
    (line,) = error_lines(done.stderr)
    assert "messages wait in shard 0, more than flow.backlog_limit = 20000; most for: test/worker (" in line


def test_a_message_too_large_for_a_frame_is_parked_where_it_was_sent(node: Node) -> None:
    node.configure(file_ingress(more='partition_by = "id"') + FILE_EGRESS, shards=2)
    sender = next(f"s{i}" for i in range(100) if owner_of(f"s{i}", 2) == 0)
    far, near = (next(f"t{i}" for i in range(100) if owner_of(f"t{i}", 2) == shard) for shard in (1, 0))
    sizes = {far: (65 << 20, 300_000, 1), near: (300_000,)}
    node.lines("in.jsonl", [{"id": sender, "do": "big", "to": to, "bytes": size} for to in sizes for size in sizes[to]])
    assert node.finish()["recoveries"] == 0
    shown = node.command("inspect", str(node.config)).stdout
    assert "1 dead letter" in shown
    assert f"test/echo:{far}" in shown
    assert "a frame between shards has at most 67108864; send less, or in pieces" in " ".join(shown.split())
    echoes = sorted((record["echo"], record["length"]) for record in node.out() if "echo" in record)
    assert echoes == sorted([(far, 1), (far, 300_000), (near, 300_000)])


def test_ids_may_be_any_text(node: Node) -> None:
    ids = ["a\0b", "l\nf", "\N{GREEK SMALL LETTER ALPHA}\U0001f600", " ", "\r", "x" * 4096, "\N{COMBINING DIAERESIS}", "a\0"]
    node.configure(file_ingress() + FILE_EGRESS, shards=2)
    node.lines("in.jsonl", [{"id": id, "do": "echo", "to": id[::-1], "text": "t"} for id in ids] * 2 + [{"id": "y" * 4097}])
    node.finish()
    (letter,) = node.letters()
    assert "id: expected a text of 1 to 4096 bytes" in letter["reason"]
    out = node.out()
    assert sorted(record["id"] for record in out if "seen" in record) == sorted(ids)
    assert all(record["total"] == 2 for record in out if "seen" in record)
    assert sorted((record["echo"], record["from"]) for record in out if "echo" in record) == sorted(
        [(id[::-1], id) for id in ids] * 2
    )
    assert node.inspect("test/worker:l\nf")["state"]["total"] == 2
