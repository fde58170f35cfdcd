"""The HTTP door of real nodes: everything it offers, and that nothing it acknowledged is lost or done twice, whoever is killed."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections import defaultdict
from contextlib import suppress
from typing import Any

import pytest
from http_client import Answer, ask, configure, door_pids, free_port
from prometheus_client.parser import text_string_to_metric_families
from real_node import Node, error_lines, wait_for

COUNTER = "/v1/functions/test/counter"


@pytest.fixture
def door(node: Node) -> tuple[Node, str, subprocess.Popen[str]]:
    """A node that serves."""
    url = configure(node, free_port())
    process = node.start()
    ready(url, process)
    return node, url, process


def ready(url: str, process: subprocess.Popen[str]) -> None:
    """The node answers, and has all its shards."""

    def look() -> bool:
        assert process.poll() is None, process.communicate()[1]
        return answered(url, "/readyz") == 200

    wait_for(look, "the node to be ready", 60)


def answered(url: str, path: str) -> int:
    try:
        return ask(url, "GET", path, timeout=2).status
    except (OSError, http.client.HTTPException):
        return 0


def events(url: str, count: int, last: str = "") -> list[tuple[str, Any]]:
    """That many events of the egress, as a client of server-sent events sees them."""
    address = url.removeprefix("http://")
    host, _, port = address.partition(":")
    found: list[tuple[str, Any]] = []
    with socket.create_connection((host, int(port)), timeout=20) as connection, connection.makefile("rwb") as stream:
        resume = f"Last-Event-ID: {last}\r\n" if last else ""
        stream.write(f"GET /v1/egress/totals HTTP/1.1\r\nHost: {address}\r\n{resume}\r\n".encode())
        stream.flush()
        id = ""
        while len(found) < count:
            line = stream.readline().decode().rstrip()
            if line.startswith("id: "):
                id = line.removeprefix("id: ")
            elif line.startswith("data: "):
                found.append((id, json.loads(line.removeprefix("data: "))))
    return found


def test_everything_it_offers(door: tuple[Node, str, subprocess.Popen[str]]) -> None:
    node, url, process = door
    assert ask(url, "POST", f"{COUNTER}/a", {"n": 1}).status == 202
    asked = ask(url, "POST", f"{COUNTER}/a?wait=20s", {"n": 2}, Idempotency_Key="first")
    assert (asked.status, asked.json["reply"]) == (200, {"id": "a", "total": 3})
    again = ask(url, "POST", f"{COUNTER}/a?wait=20s", {"n": 2}, Idempotency_Key="first")
    assert (again.status, again.json) == (200, asked.json), "once, however often"
    assert ask(url, "GET", "/v1/requests/first").json == asked.json
    for path in (f"{COUNTER}/a", f"{COUNTER}/a?wait=20s", f"{COUNTER}/b"):
        other = ask(url, "POST", path, {"n": 3}, Idempotency_Key="first")
        assert (other.status, other.json["type"]) == (422, "urn:shardfun:problem:key-reused")

    records = b"".join(json.dumps({"id": f"r{n % 10}", "n": 1}).encode() + b"\n" for n in range(200))
    taken = ask(url, "POST", "/v1/ingress/orders", records, **{"Content-Type": "application/x-ndjson"})
    assert taken.json == {"records": 200}
    assert ask(url, "POST", "/v1/ingress/orders", {"id": "r0", "n": 5}).json == {"records": 1}

    def total(id: str) -> int:
        return int(ask(url, "GET", f"/v1/state/test/counter/{id}").json["fields"]["total"])

    wait_for(lambda: total("r0") == 25, "the records to be counted")
    assert total("a") == 3
    checkpoint = ask(url, "POST", "/v1/checkpoints").json["checkpoint"]
    stored = ask(url, "GET", "/v1/state/test/counter/r1?at=checkpoint").json
    assert stored["fields"] == {"total": 20}
    assert [int(part) for part in stored["checkpoint"].split(".")] >= [int(part) for part in checkpoint.split(".")]

    listed: list[str] = []
    page = ask(url, "GET", f"{COUNTER}?limit=4").json
    listed += page["ids"]
    while page["next"] is not None:
        page = ask(url, "GET", f"{COUNTER}?limit=4&after={page['next']}").json
        listed += page["ids"]
    assert sorted(listed) == ["a", *(f"r{n}" for n in range(10))]

    first = events(url, 100)
    rest = events(url, 103, first[-1][0])
    assert len({(event["id"], event["total"]) for _, event in first + rest}) == 203, (
        "each exactly once, also over two connections"
    )

    status = ask(url, "GET", "/v1/status").json
    assert status["http"] == url
    metrics = {family.name: family for family in text_string_to_metric_families(ask(url, "GET", "/metrics").body.decode())}
    (requests,) = [name for name in metrics if "http_requests" in name and "duration" not in name]
    counted = {sample.labels["route"] for sample in metrics[requests].samples}
    assert "/v1/functions/{namespace}/{type}/{id}" in counted
    assert "/v1/functions/test/counter/{id}" in ask(url, "GET", "/openapi.json").json["paths"]
    code, stderr = node.end(process, signal.SIGTERM)
    assert code == 0, stderr
    assert "HTTP door open" in stderr


def test_dead_letters_over_http(door: tuple[Node, str, subprocess.Popen[str]]) -> None:
    node, url, _ = door
    flag = node.folder / "bug"
    flag.touch()
    asked = ask(url, "POST", f"{COUNTER}/x?wait=100ms", {"n": 7, "bug": str(flag)}, Idempotency_Key="k")
    assert asked.status == 202, "a message that fails has no reply"
    letters = wait_for(lambda: ask(url, "GET", "/v1/dead-letters?typename=test/counter").json["letters"], "the dead letter")
    (letter,) = letters
    assert letter["target"] == "test/counter:x"
    flag.unlink()
    assert "a bug" in ask(url, "GET", f"/v1/dead-letters/{letter['key']}").json["traceback"]
    assert ask(url, "POST", f"/v1/dead-letters/{letter['key']}/replay").status == 200
    assert ask(url, "POST", f"/v1/dead-letters/{letter['key']}/replay").status == 404
    found = wait_for(lambda: (a := ask(url, "GET", "/v1/requests/k")).status == 200 and a, "the reply, at last")
    assert found.json["reply"] == {"id": "x", "total": 7}


def test_a_door_that_dies_is_replaced_and_the_node_goes_on(door: tuple[Node, str, subprocess.Popen[str]]) -> None:
    node, url, process = door
    served = node.running_shards()
    for number in range(3):
        assert ask(url, "POST", f"{COUNTER}/d", {"n": 1}, Idempotency_Key=f"d{number}").status == 202
        (pid,) = door_pids(node)
        os.kill(pid, signal.SIGKILL)
        # the socket stays open: who connects now waits for the next door
        assert ask(url, "POST", f"{COUNTER}/d?wait=30s", {"n": 1}, Idempotency_Key=f"d{number}").status == 200
        assert door_pids(node) != [pid]
    assert ask(url, "GET", "/v1/state/test/counter/d").json["fields"] == {"total": 3}
    assert node.running_shards() == served
    code, stderr = node.end(process, signal.SIGTERM)
    assert code == 0
    assert stderr.count("the HTTP door died") == 3


def test_the_door_ends_with_its_supervisor_and_what_it_took_in_stays(door: tuple[Node, str, subprocess.Popen[str]]) -> None:
    node, url, process = door
    for number in range(50):
        assert ask(url, "POST", f"{COUNTER}/s", {"n": 1}, Idempotency_Key=f"s{number}").status == 202
    node.kill(process)  # and waits until nobody is left
    process = node.start()
    ready(url, process)
    assert ask(url, "POST", f"{COUNTER}/s?wait=30s", {"n": 1}, Idempotency_Key="s7").status == 200
    assert wait_for(lambda: ask(url, "GET", "/v1/state/test/counter/s").json["fields"] == {"total": 50}, "all of them, once")


def test_a_door_that_is_stopped_is_killed_by_the_next_start(door: tuple[Node, str, subprocess.Popen[str]]) -> None:
    node, url, process = door
    (pid,) = door_pids(node)
    os.kill(pid, signal.SIGSTOP)
    process.kill()
    process.wait(30)  # its output does not end: the door has it, too
    process = node.start()
    ready(url, process)
    assert pid not in door_pids(node)


def test_a_port_that_is_taken_is_said_at_once(node: Node) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        configure(node, other.getsockname()[1])
        done = node.run()
    assert done.returncode == 8
    (line,) = error_lines(done.stderr)
    assert "http.listen: 127.0.0.1:" in line
    assert "another program listens there already" in line
    assert not node.leftovers()


def test_a_token_that_others_may_read_is_refused(node: Node) -> None:
    token = node.folder / "token"
    token.write_text("0123456789abcdef0123\n")
    token.chmod(0o644)
    configure(node, 0, http='token_file = "token"')
    done = node.run()
    assert done.returncode == 2
    assert "others may read it (mode 0644)" in error_lines(done.stderr)[0]
    token.chmod(0o600)
    token.write_text("short")
    assert "expected one line of 16" in error_lines(node.run().stderr)[0]


def test_the_token_guards_and_is_never_logged(node: Node) -> None:
    token = node.folder / "token"
    token.touch(mode=0o600)
    token.write_text("0123456789abcdef0123\n")
    url = configure(node, free_port(), http='token_file = "token"\naccess_log = true')
    process = node.start()
    ready(url, process)
    assert ask(url, "GET", "/v1/status").status == 401
    assert ask(url, "GET", "/v1/status", Authorization="Bearer 0123456789abcdef0123").status == 200
    assert ask(url, "GET", "/v1/status", Authorization="Bearer 0123456789abcdef0124").status == 401
    _, stderr = node.end(process, signal.SIGTERM)
    assert "route=/v1/status status=401" in stderr
    assert "0123456789abcdef" not in stderr


def test_backlog_full_is_429_and_room_comes_back(node: Node) -> None:
    url = configure(node, free_port(), http='backlog = "1 MiB"\nbody = "1 MiB"')
    process = node.start()
    ready(url, process)
    stopped = node.running_shards()
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)  # nobody reads the log
    big = {"n": 1, "padding": "x" * 100_000}
    answers = [ask(url, "POST", f"{COUNTER}/b", big) for _ in range(15)]
    refused = [answer for answer in answers if answer.status == 429]
    assert refused
    assert {answer.status for answer in answers} == {202, 429}
    assert int(refused[0].headers["retry-after"]) >= 1
    for pid in stopped:
        with suppress(ProcessLookupError):  # it may have counted as dead
            os.kill(pid, signal.SIGCONT)
    taken = len(answers) - len(refused)
    wait_for(lambda: ask(url, "GET", "/v1/state/test/counter/b").json["fields"] == {"total": taken}, "what was taken in")
    assert wait_for(lambda: ask(url, "POST", f"{COUNTER}/b", big).status == 202, "room")
    node.end(process, signal.SIGTERM)


# ---- kills ---------------------------------------------------------------------------------------------------------------
CLIENTS = 6
IDS = 12
KILL_SETTINGS = "[failure]\npoison_deaths = 400\n"


class Clients:
    """Threads that ask with keys, again and again until they are answered, and now and then what was answered before."""

    def __init__(self, url: str, seed: int) -> None:
        self._url = url
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.acknowledged = 0
        self.sent: dict[str, list[str]] = defaultdict(list)
        self.replies: dict[str, Any] = {}
        self.problems: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(n, random.Random(seed + n))) for n in range(CLIENTS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)
        assert not any(thread.is_alive() for thread in self._threads), "a client that is never answered"

    def _run(self, number: int, choice: random.Random) -> None:
        mine: list[tuple[str, str]] = []
        count = 0
        while not self._stop.is_set():
            count += 1
            if mine and choice.random() < 0.2:
                id, key = choice.choice(mine)
            else:
                id, key = f"k{choice.randrange(IDS)}", f"{number}-{count}"
                mine.append((id, key))
                with self._lock:
                    self.sent[id].append(key)
            answer = self._until_answered(id, key, "?wait=20s" if choice.random() < 0.7 else "")
            with self._lock:
                self.acknowledged += 1
                if answer.status == 200:
                    self._note(key, answer.json["reply"])

    def _note(self, key: str, reply: Any) -> None:
        if self.replies.setdefault(key, reply) != reply:
            self.problems.append(f"{key} was answered with {self.replies[key]}, then {reply}")

    def _until_answered(self, id: str, key: str, wait: str) -> Answer:
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline:
            with suppress(OSError, http.client.HTTPException):
                answer = ask(self._url, "POST", f"{COUNTER}/{id}{wait}", {"n": 1}, Idempotency_Key=key)
                if answer.status in {200, 202}:
                    return answer
                if answer.status not in {429, 503}:
                    self.problems.append(f"{key}: {answer.status} {answer.body!r}")
            time.sleep(0.05)
        raise AssertionError(f"{key} is never answered")


def kill_somebody(
    node: Node, url: str, process: subprocess.Popen[str], choice: random.Random
) -> tuple[str, subprocess.Popen[str]]:
    """One of the node's processes; a supervisor is started again."""
    who = choice.choices(["shard", "door", "supervisor"], [5, 3, 2])[0]
    if who == "shard":
        node.kill_shard(choice.randrange(2))
    elif who == "door":
        for pid in wait_for(lambda: door_pids(node), "a door to kill"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    else:
        node.end(process, signal.SIGKILL)
        process = node.start()
    return who, process


def run_with_kills(node: Node, kills: int, seed: int) -> None:
    """The load, the kills, and what must be true in the end."""
    choice = random.Random(seed)
    url = configure(node, free_port(), more=KILL_SETTINGS)
    text = node.config.read_text().replace("[supervision]\n", "[supervision]\nrestarts_without_checkpoint = 1000\n")
    node.config.write_text(text)
    process = node.start()
    ready(url, process)
    clients = Clients(url, seed)
    clients.start()
    done: dict[str, int] = defaultdict(int)
    try:
        for _ in range(kills):
            before = clients.acknowledged
            time.sleep(choice.uniform(0.0, 0.3))
            who, process = kill_somebody(node, url, process, choice)
            done[who] += 1
            wait_for(lambda before=before: clients.acknowledged >= before + 2 * CLIENTS, "answers after a kill", 100)
    finally:
        clients.finish()
    ready(url, process)
    assert not clients.problems
    for id, keys in clients.sent.items():
        for key in keys:
            # every request was acknowledged, so each has a reply in the end, and the same one as before
            answer = wait_for(
                lambda key=key: (a := ask(url, "GET", f"/v1/requests/{key}")).status == 200 and a, f"the reply to {key}"
            )
            clients._note(key, answer.json["reply"])
        totals = sorted(clients.replies[key]["total"] for key in keys)
        assert totals == list(range(1, len(keys) + 1)), f"{id}: each request counted exactly once"
    assert not clients.problems
    assert sum(done.values()) == kills
    sent = sum(len(keys) for keys in clients.sent.values())
    wait_for(lambda: node.published() >= sent, "all results to be published")
    results = [(line["id"], line["total"]) for line in node.out()]
    assert len(results) == len(set(results)) == sent, "each result exactly once in the file"
    streamed = [(event["id"], event["total"]) for _, event in events(url, sent)]
    assert sorted(streamed) == sorted(results), "and in the stream"


@pytest.mark.chaos
def test_what_is_acknowledged_happens_exactly_once_whoever_is_killed(node: Node) -> None:
    run_with_kills(node, 10, 7)


@pytest.mark.chaos
@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_hundred_kills(node: Node, seed: int) -> None:
    run_with_kills(node, 110, seed)
