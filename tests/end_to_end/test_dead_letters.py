"""``shardfun dead-letters`` against real nodes: what was parked because of a bug is sent again, exactly once, whatever dies."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import Any

import pytest
from real_node import FILE_EGRESS, SECTIONS, Node, error_lines, file_ingress, wait_for

from shardfun.errors import UnavailableError
from shardfun.model.questions import LettersQuestion
from shardfun.model.status import NodeStatus
from shardfun.supervisor import ask_for_letters, query_status

COUNTED = [{"id": f"a{i % 5}", "n": i} for i in range(100)]
FAILING = 6


def failing(flag: str) -> list[dict[str, Any]]:
    return [{"id": f"f{i}", "n": 10 + i, "do": "die", "by": "raise", "while": flag} for i in range(FAILING)]


@pytest.fixture
def running(node: Node) -> subprocess.Popen[str]:
    """A node of two shards that has parked some messages because of a bug, and goes on waiting for input."""
    flag = node.folder / "bug"
    flag.touch()
    node.configure(
        f"{file_ingress(more='follow = true')}{FILE_EGRESS}[failure]\nretries = 0\n",
        shards=2,
        sections=SECTIONS.replace("spares = 0", "spares = 1"),
    )
    node.lines("in.jsonl", [*COUNTED, "{no json", *failing(str(flag))])
    process = node.start()
    wait_for(lambda: (s := status(node)) is not None and s.dead_letters == FAILING + 1, "the dead letters")
    question = LettersQuestion(action="list")
    wait_for(lambda: ask_for_letters(node.data, question, 5.0).total == FAILING + 1, "a checkpoint that holds them")
    return process


def status(node: Node) -> NodeStatus | None:
    try:
        return query_status(node.data, 1.0)
    except UnavailableError:
        return None


def ask(node: Node, action: str, *arguments: str, code: int = 0) -> dict[str, Any]:
    done = node.command("dead-letters", action, str(node.config), *arguments, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def totals(node: Node) -> dict[str, int]:
    """Stop the node by letting everybody report, once."""
    with (node.folder / "in.jsonl").open("a") as file:
        ids = [f"f{i}" for i in range(FAILING)] + [f"a{i}" for i in range(5)]
        file.writelines(json.dumps({"id": id, "do": "report", "n": 0}) + "\n" for id in ids)
    wait_for(lambda: node.published() >= FAILING + 5, "the reports")
    found = [(record["id"], record["total"]) for record in node.out()]
    assert len(found) == len(dict(found)) == FAILING + 5, "each exactly once"
    return dict(found)


def expected(sent_again: int) -> dict[str, int]:
    counted = {f"a{k}": sum(range(k, 100, 5)) for k in range(5)}
    return counted | {f"f{i}": 10 + i if i < sent_again else 0 for i in range(FAILING)}


def test_look_and_send_again_when_the_bug_is_gone(node: Node, running: subprocess.Popen[str]) -> None:
    listed = ask(node, "list", "--type", "test/worker")
    assert listed["total"] == FAILING
    assert {letter["target"] for letter in listed["letters"]} == {f"test/worker:f{i}" for i in range(FAILING)}
    assert all(letter["payload"] is None and letter["traceback"] == "" for letter in listed["letters"])
    by_target = {letter["target"]: letter["key"] for letter in listed["letters"]}
    key = by_target["test/worker:f0"]
    (shown,) = ask(node, "show", key)["letters"]
    assert (shown["key"], shown["payload"]["n"], shown["attempts"]) == (key, 10, 1)
    assert "RefusedError: there is a bug" in shown["reason"]
    assert shown["traceback"].startswith("Traceback")
    assert shown["payload_type"] == "dict[str, typing.Any]"
    text = node.command("dead-letters", "show", str(node.config), key).stdout
    assert key in text
    assert "none (an ingress)" in text
    assert "there is a bug" in node.command("dead-letters", "list", str(node.config)).stdout

    answer = ask(node, "replay", key)
    assert answer["changes"] == [{"key": key, "target": "test/worker:f0", "refused": ""}]
    assert key not in [letter["key"] for letter in ask(node, "list")["letters"]], "it failed again, and is another letter"
    (node.folder / "bug").unlink()
    answer = ask(node, "replay", "--all", "--type", "test/worker")
    assert len(answer["changes"]) == FAILING
    assert all(change["refused"] == "" for change in answer["changes"])
    assert ask(node, "list", "--type", "test/worker")["total"] == 0
    assert ask(node, "replay", key, code=1)["unknown"] == [key]

    (ingress,) = ask(node, "list")["letters"]
    (change,) = ask(node, "replay", ingress["key"], code=1)["changes"]
    assert "ingress record that never became a message" in change["refused"]
    assert ask(node, "drop", "--all")["changes"][0]["refused"] == ""
    assert ask(node, "list")["total"] == 0
    assert totals(node) == expected(FAILING)
    assert wait_for(lambda: status(node), "the status").dead_letters == 0
    code, stderr = node.end(running, signal.SIGTERM)
    assert code == 0, stderr


def test_dropped_ones_are_gone_for_good(node: Node, running: subprocess.Popen[str]) -> None:
    keys = [letter["key"] for letter in ask(node, "list", "--type", "test/worker")["letters"]]
    assert len(ask(node, "drop", *keys[:-1])["changes"]) == FAILING - 1
    node.kill(running)
    assert [letter["key"] for letter in ask(node, "list", "--type", "test/worker")["letters"]] == keys[-1:]
    (shown,) = ask(node, "show", keys[-1])["letters"]
    assert shown["traceback"].startswith("Traceback")
    assert ask(node, "show", keys[0], keys[-1], code=1)["unknown"] == [keys[0]]
    refused = node.command("dead-letters", "replay", str(node.config), keys[-1])
    assert refused.returncode == 8
    (line,) = error_lines(refused.stderr)
    assert line.startswith("dead-letters replay: no node runs on")
    assert node.command("dead-letters", "drop", str(node.config), "--all").returncode == 8
    process = node.start()
    wait_for(lambda: status(node), "the node to run")
    assert totals(node) == expected(0)
    assert node.end(process, signal.SIGTERM)[0] == 0


@pytest.mark.parametrize("times", [1, 4])
def test_a_shard_that_is_killed_right_behind_it_changes_nothing(node: Node, running: subprocess.Popen[str], times: int) -> None:
    (node.folder / "bug").unlink()
    asking = node.popen("dead-letters", "replay", str(node.config), "--all", "--type", "test/worker", "--json")
    for _ in range(times):
        node.kill_shard()
    out, err = asking.communicate(timeout=60)
    assert asking.returncode == 0, err
    assert len(json.loads(out)["changes"]) == FAILING
    assert totals(node) == expected(FAILING)
    assert ask(node, "list")["total"] == 1
    found = status(node)
    assert found is not None
    assert found.recoveries >= 1
    code, stderr = node.end(running, signal.SIGTERM)
    assert code == 0, stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("show",), "dead-letters show: expected KEYs, or --all"),
        (("drop", "1.2-3-0", "--all"), "dead-letters drop: expected KEYs, or --all"),
        (("list", "1.2-3-0"), "dead-letters list: expected no KEY"),
        (("show", "x"), "dead letter 'x': expected a key as 'shardfun dead-letters list' prints it, such as 1.17-3-0"),
        (("list", "--type", "x"), "--type: function type 'x': expected 'namespace/name'"),
        (("list", "--limit", "0"), "expected a number from 1 to 1000, got '0'"),
    ],
)
def test_wrong_command_lines(node: Node, arguments: tuple[str, ...], problem: str) -> None:
    node.configure(file_ingress() + FILE_EGRESS)
    action, *rest = arguments
    done = node.command("dead-letters", action, str(node.config), *rest)
    assert done.returncode == 2
    assert problem in done.stderr
