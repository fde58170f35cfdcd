"""Sources, sinks and stops: every kind once with a real node, and what a run that is stopped or repeated makes of them."""

from __future__ import annotations

import json
import os
import signal
import time

from real_node import FILE_EGRESS, SECTIONS, Node, error_lines, file_ingress, wait_for

COUNT = 300
RATE = 100
RECORDS = [{"id": f"a{i % 7}", "do": "report", "n": i} for i in range(COUNT)]
TOTALS = {f"a{k}": sum(range(k, COUNT, 7)) for k in range(7)}


def check_exact(out: list[dict[str, object]]) -> None:
    assert sorted(record["n"] for record in out if "n" in record) == list(range(COUNT))
    assert {record["id"]: record["total"] for record in out if "seen" in record} == TOTALS
    assert len(out) == COUNT + len(TOTALS)


def test_a_packed_file_over_tcp(node: Node) -> None:
    node.configure(f'{file_ingress("in.jsonl.gz")}{FILE_EGRESS}[mesh]\ntransport = "tcp"\n', shards=2)
    node.lines("in.jsonl.gz", RECORDS)
    assert node.finish()["recoveries"] == 0
    check_exact(node.out())


def test_a_rate_is_kept_and_stops_and_starts_go_on_exactly(node: Node) -> None:
    node.configure(file_ingress(more=f"rate = {RATE}") + FILE_EGRESS, shards=2)
    node.lines("in.jsonl", RECORDS)
    started = time.monotonic()
    for number in (signal.SIGINT, signal.SIGTERM):
        before = node.published()
        process = node.start()
        wait_for(lambda before=before: node.published() > before + 20, "results")
        code, stderr = node.end(process, number)
        assert code == 0, stderr
        assert "node stopped after" in stderr
        assert "the next start goes on from checkpoint" in stderr
        assert node.published() < COUNT
    summary = node.finish()
    assert (summary["verdict"], summary["records"]) == ("finished", COUNT)
    assert time.monotonic() - started > COUNT / RATE
    check_exact(node.out())


def test_a_second_ctrl_c_stops_now_and_loses_nothing(node: Node) -> None:
    """While a function runs, no checkpoint can be taken, so the first Ctrl-C takes long."""
    node.configure(file_ingress() + FILE_EGRESS)
    node.lines("in.jsonl", [{"id": "slow", "do": "sleep-once", "s": 600, "flag": str(node.folder / "flag")}, *RECORDS])
    process = node.start("--json")
    wait_for((node.folder / "flag").exists, "the function to run")
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    code, stderr = node.end(process, signal.SIGINT)
    assert code == 130
    assert "stopping now; the next start goes on from the last complete checkpoint" in stderr
    assert node.processes() == []
    assert node.finish()["verdict"] == "finished"
    check_exact([record for record in node.out() if record["id"] != "slow"])


def test_a_growing_file_is_followed(node: Node) -> None:
    node.configure(file_ingress(more="follow = true") + FILE_EGRESS)
    path = node.lines("in.jsonl", RECORDS[:100])
    process = node.start()
    wait_for(lambda: node.published() == 100, "the first records")
    with path.open("a") as file:
        for record in RECORDS[100:150]:
            file.write(json.dumps(record) + "\n")
        half = json.dumps(RECORDS[150])
        file.write(half[:9])
    wait_for(lambda: node.published() == 150, "what was added")
    with path.open("a") as file:
        file.write(half[9:] + "\n")
    wait_for(lambda: node.published() == 151, "the record that was half")
    assert node.end(process, signal.SIGTERM)[0] == 0

    with path.open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in RECORDS[151:])
    process = node.start()
    wait_for(lambda: node.published() == COUNT, "what was added while it was stopped")
    os.truncate(path, 10)
    code, stderr = node.end(process)
    assert code == 6
    (line,) = error_lines(stderr)
    assert f"ingress 'events': {path} has 10 bytes" in line
    assert "were already read: it was truncated; put the old file back, or start afresh with --fresh" in line
    assert sorted(record["n"] for record in node.out()) == list(range(COUNT))


def test_generated_events_go_to_standard_output(node: Node) -> None:
    generator = '[ingress.events]\nkind = "generator"\ncount = 1000\nids = 10\ntarget = "test/counter"\nvalue = 2\n'
    node.configure(f'{generator}[egress.out]\nkind = "stdout"\n', shards=2, sections=SECTIONS)
    done = node.run("--json")
    assert done.returncode == 0, done.stderr
    *records, summary = [json.loads(line) for line in done.stdout.splitlines()]
    assert {record["id"]: record["total"] for record in records} == {f"k{i}": 200 for i in range(10)}
    assert (summary["records"], summary["emitted"], summary["published"]) == (1000, 10, 10)


def test_events_that_the_target_does_not_take_stop_the_node(node: Node) -> None:
    generator = '[ingress.made]\nkind = "generator"\ncount = 10\ntarget = "test/counter"\nvalue = "text"\n'
    node.configure(generator)
    done = node.run()
    assert done.returncode == 2
    (line,) = error_lines(done.stderr)
    assert line == "ingress.made: what it reads does not fit its target: test/counter accepts int, not str: 'text'"
