"""What a real node counts under load, compared with what its records must have caused."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise

from prometheus_client.parser import text_string_to_metric_families
from real_node import FILE_EGRESS, SECTIONS, Node, file_ingress, wait_for

from shardfun.model.keyspace import owner_of
from shardfun.model.status import NodeStatus
from shardfun.supervisor import query_status
from shardfun.telemetry.prometheus import render_metrics

RECORDS = [
    {"id": f"a{i % 13}", "do": "relay", "to": f"f{i % 7}", "n": i}
    if i % 5 == 0
    else {"id": f"a{i % 13}", "do": "report", "n": i}
    for i in range(600)
]
ENDLESS = SECTIONS.replace("[checkpoint]", "endless = true\n[checkpoint]", 1) + "\n[failure]\nretries = 1\n"
COUNTERS = ("messages_in", "out_local", "out_remote", "out_egress", "invocations", "failures", "retries", "dead_letters")
Figures = Counter[tuple[str, int, str]]


def expected() -> Figures:
    """By function, shard and counter."""
    truth = Figures()
    for record in RECORDS:
        at = owner_of(record["id"], 2)
        for name in ("messages_in", "invocations"):
            truth["test/worker", at, name] += 1
        if record["do"] == "report":
            truth["test/worker", at, "out_egress"] += 1
            continue
        to = owner_of(record["to"], 2)
        truth["test/worker", at, "out_local" if to == at else "out_remote"] += 1
        truth["test/fragile", to, "messages_in"] += 1
        truth["test/fragile", to, "invocations"] += 2
        truth["test/fragile", to, "failures"] += 2
        truth["test/fragile", to, "retries"] += 1
        truth["test/fragile", to, "dead_letters"] += 1
    return truth


def counted(status: NodeStatus) -> Figures:
    return Figures(
        {
            (row.function, shard.shard, name): getattr(row, name)
            for shard in status.shards
            for row in shard.functions
            for name in COUNTERS
            if getattr(row, name)
        }
    )


def test_the_counters_of_a_node_are_the_truth_and_never_go_down_while_a_process_lives(node: Node) -> None:
    node.configure(file_ingress(more="rate = 400") + FILE_EGRESS, shards=2, sections=ENDLESS)
    node.lines("in.jsonl", RECORDS)
    node.start()
    truth, seen = expected(), list[Figures]()

    def complete() -> NodeStatus | None:
        if len(node.running_shards()) < 2:
            return None
        status = query_status(node.data, 5.0)
        seen.append(counted(status))
        done = seen[-1] == truth and all(shard.egress[0].pending == 0 for shard in status.shards)
        return status if done else None

    status = wait_for(complete, "everything to be counted")
    assert len({figures["test/worker", 0, "messages_in"] for figures in seen}) > 2, "seen under load"
    for earlier, later in pairwise(seen):
        assert all(later[key] >= count for key, count in earlier.items())

    series = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(render_metrics(status))
        for sample in family.samples
    }
    names = {"messages_out_local": "out_local", "messages_out_remote": "out_remote", "records_out_egress": "out_egress"}
    for name in ("messages_in", *names, "invocations", "failures", "retries", "dead_letters"):
        for function in ("test/worker", "test/fragile", "test/sink"):
            for shard in (0, 1):
                value = series[f"shardfun_function_{name}_total", str(shard), function]
                assert value == truth[function, shard, names.get(name, name)], (name, function, shard)
    reports = sum(record["do"] == "report" for record in RECORDS)
    assert sum(series["shardfun_ingress_records_total", str(shard), "events"] for shard in (0, 1)) == len(RECORDS)
    assert sum(series["shardfun_egress_published_records_total", str(shard), "out"] for shard in (0, 1)) == reports
    assert node.published() == reports
    assert series["shardfun_checkpoints_total", "completed"] >= 1
    assert series["shardfun_shard_up", "0"] == series["shardfun_shard_up", "1"] == 1

    shown = node.command("status", str(node.config)).stdout
    worker = next(line.split() for line in shown.splitlines() if line.startswith("test/worker"))
    total = {name: truth["test/worker", 0, name] + truth["test/worker", 1, name] for name in COUNTERS}
    assert worker[1:6] == [str(total[name]) for name in ("messages_in", "out_local", "out_remote", "out_egress", "invocations")]
    told = json.loads(node.command("status", str(node.config), "--json").stdout)
    assert {row["function"]: row["dead_letters"] for row in told["functions"]}["test/fragile"] == len(RECORDS) - reports

    killed = node.kill_shard(0)
    after = wait_for(lambda: recovered(node, killed), "the recovery")
    kept, begun = after.shards[1], after.shards[0]
    assert begun.restarts == 1
    survivor, fresh = counted(after), Counter({key: count for key, count in counted(after).items() if key[1] == 0})
    assert kept.pid == status.shards[1].pid
    assert all(survivor[key] >= count for key, count in truth.items() if key[1] == 1)
    assert all(count <= truth[key] for key, count in fresh.items())


def recovered(node: Node, killed: int) -> NodeStatus | None:
    if len(node.running_shards()) < 2:
        return None
    status = query_status(node.data, 5.0)
    fine = status.recoveries and status.shards[0].pid not in {0, killed} and all(shard.functions for shard in status.shards)
    return status if fine else None
