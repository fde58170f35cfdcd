"""Sources and sinks that users write, and a webhook, are exactly once whatever is killed, and errors in them say what to do."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from egress_receiver import Receiver, Verdict
from real_node import Node, error_lines, wait_for

from shardfun.egress.segments import segments_in
from shardfun.egress.tail import EgressTail
from shardfun.errors import EventIdError

ROUNDS, MANY_ROUNDS = 10, 60
"""Of which one in four kills the supervisor, the others a shard. The second with ``--long``."""
SENT_ROWS = 60
TICKETS = 23


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver().start()
    yield found
    found.stop()


class Watching:
    """Reads a stream in a thread from its beginning on; now and then it is forgotten, and another one goes on at its event id."""

    def __init__(self, data: Path) -> None:
        self.records: list[tuple[str, int]] = []
        self.stop = False
        self._data = data
        self._thread = threading.Thread(target=lambda: trio.run(self._watch), daemon=True)
        self._thread.start()

    async def _watch(self) -> None:
        tail, after = EgressTail(self._data, "kept", 2), None
        while not self.stop:
            with trio.move_on_after(0.1):
                for _ in range(50):
                    after, record = await anext(tail)
                    self.records.append((record["ticket"], record["times"]))
            tail = EgressTail(self._data, "kept", 2, after=after)

    def end(self, count: int) -> list[tuple[str, int]]:
        wait_for(lambda: len(self.records) >= count, "all records to be read")
        self.stop = True
        self._thread.join(5)
        return self.records


class Inputs:
    """The database and the file that the sources read, growing."""

    def __init__(self, folder: Path) -> None:
        self.rows = sqlite3.connect(folder / "changes.db", isolation_level=None)
        self.rows.execute("PRAGMA journal_mode = WAL")
        self.rows.execute("CREATE TABLE changes (number INTEGER PRIMARY KEY, ticket TEXT, open INTEGER)")
        self.lines = folder / "lines.txt"
        self.lines.touch()
        self.expected: Counter[str] = Counter()
        self.sent = 0

    def grow(self, count: int) -> None:
        with self.lines.open("a") as file:
            for _ in range(count):
                name = f"{self.sent % TICKETS}"
                self.rows.execute("INSERT INTO changes (ticket, open) VALUES (?, 1)", (f"row-{name}",))
                file.write(f"{name}\n")
                self.expected.update([f"row-{name}", f"split-{name}", f"whole-{name}"])
                self.sent += 1

    def end(self) -> None:
        with self.lines.open("a") as file:
            file.write("end\n")


def configuration(url: str, until: int, batch: int = 1) -> str:
    return f"""
[ingress.changes]
kind = "shardfun.examples.tickets.source:Changes"
path = "changes.db"
until = {until}

[egress.history]
kind = "shardfun.examples.tickets.sink:History"
path = "history.db"

[egress.hook]
kind = "webhook"
url = "{url}"
batch = {batch}
retry_max = "200 ms"

[egress.kept]
kind = "http"
segment = "4 KiB"
"""


def history(folder: Path) -> list[tuple[str, int]]:
    database = sqlite3.connect(folder / "history.db")
    numbers = database.execute("SELECT partition, number FROM history ORDER BY partition, rowid").fetchall()
    for partition in (0, 1):
        own = [number for one, number in numbers if one == partition]
        assert own == list(range(len(own)))
    found = database.execute("SELECT ticket, times FROM history ORDER BY partition, number").fetchall()
    database.close()
    return found


def streamed(data: Path) -> list[tuple[str, bytes]]:
    """Each file of the stream, with the job it is of."""
    folders = sorted((data / "streams" / "kept").iterdir())
    return [(segment.job, segment.path.read_bytes()) for folder in folders for segment in segments_in(folder)]


def hooked(receiver: Receiver) -> list[tuple[str, int]]:
    records = [record for body in receiver.records() for record in (body if isinstance(body, list) else [body])]
    return [(record["ticket"], record["times"]) for record in records]


def check(records: list[tuple[str, int]], expected: Counter[str]) -> None:
    """Each id counts up by one, in order, to its number."""
    seen: Counter[str] = Counter()
    for id, times in records:
        seen[id] += 1
        assert times == seen[id]
    assert seen == expected


@pytest.mark.parametrize("rounds", [ROUNDS, pytest.param(MANY_ROUNDS, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
def test_exactly_once_over_kills_of_shards_the_supervisor_and_the_receiver(node: Node, receiver: Receiver, rounds: int) -> None:
    chance = random.Random(7)

    def decide(number: int, key: str) -> Verdict:
        return chance.choices([200, 503, "drop", "take-and-drop"], [80, 5, 5, 10])[0]

    receiver.decide = decide
    inputs = Inputs(node.folder)
    node.configure(configuration(receiver.url, until=SENT_ROWS * rounds, batch=20), app="homemade:app", shards=2)
    process = node.start()
    watching = Watching(node.data)
    for round in range(rounds):
        inputs.grow(SENT_ROWS)
        if round % 4 == 3:
            wait_for(node.running_shards, "the node to run")
            node.kill(process)
            process = node.start()
        else:
            node.kill_shard(round)
        if round % 4 == 2:
            receiver.stop()
            receiver.start()
    inputs.end()
    code, stderr = node.end(process)  # reads what it says meanwhile
    assert code == 0, stderr
    check(history(node.folder), inputs.expected)
    check(hooked(receiver), inputs.expected)
    check(watching.end(inputs.expected.total()), inputs.expected)
    keys = list(receiver.taken)
    for partition in (0, 1):
        first = [key.split("/")[3].partition("-") for key in keys if key.split("/")[2] == str(partition)]
        numbers = [number for low, _, high in first for number in range(int(low), int(high) + 1)]
        assert numbers == list(range(len(numbers))), "every record in one request, without a gap"


def test_fresh_begins_anew_everywhere(node: Node, receiver: Receiver) -> None:
    inputs = Inputs(node.folder)
    inputs.grow(30)
    inputs.end()
    node.configure(configuration(receiver.url, until=30), app="homemade:app", shards=2)
    node.finish()
    check(hooked(receiver), inputs.expected)
    node.finish()
    assert len(receiver.requests) == 90, "a run that has ended has nothing more to say"
    before = streamed(node.data)
    assert sum(len(data.splitlines()) for _, data in before) == 90
    node.finish("--fresh", "--yes")
    after = sorted(line for _, data in streamed(node.data) for line in data.splitlines())
    assert after == sorted(line for _, data in before for line in data.splitlines())
    assert {job for job, _ in streamed(node.data)}.isdisjoint(job for job, _ in before)
    with pytest.raises(EventIdError, match="begun anew"):
        EgressTail(node.data, "kept", 2, after=f"{before[0][0]}-1.1")
    jobs = {key.split("/")[0] for key in receiver.taken}
    assert len(jobs) == 2
    assert len(receiver.taken) == 180
    held = sqlite3.connect(node.folder / "history.db").execute("SELECT job, sum(records) FROM held GROUP BY job").fetchall()
    assert held == [(job, 90) for job in sorted(jobs)]


def test_an_entry_of_the_configuration_is_used_instead_of_a_source_of_the_application(node: Node, receiver: Receiver) -> None:
    inputs = Inputs(node.folder)
    inputs.end()
    node.lines("in.jsonl", [{"id": id} for id in "xyx"])
    node.configure(
        configuration(receiver.url, until=0) + '[ingress.whole]\nkind = "file"\npath = "in.jsonl"\n',
        app="homemade:app",
        shards=2,
    )
    node.finish()
    check(hooked(receiver), Counter({"x": 2, "y": 1}))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (
            "nowhere:Changes",
            "ingress kind 'nowhere:Changes' cannot be imported: ModuleNotFoundError: No module named 'nowhere'",
        ),
        ("shardfun.examples.tickets.source:Change", "has no 'Change'; did you mean 'Changes'?"),
        ("shardfun.examples.tickets.source:Options", "expected a subclass of shardfun.sources.Ingress, got Options"),
        ("shardfun.examples.tickets.source.Changes", "write 'shardfun.examples.tickets.source:Changes'"),
        ("bad:Half", "it has no 'read': see shardfun.sources.Ingress"),
        ("broken:Changes", "broken.py:1"),
        (
            "wrong:Changes",
            "Changes.read: expected a plain 'def', which runs in a thread; for an async source, use @app.ingress",
        ),
    ],
)
def test_a_class_that_cannot_be_used_is_an_error_of_the_configuration(node: Node, kind: str, said: str) -> None:
    start = "from shardfun.sources import Ingress\n\n\nclass"
    opens = "    def open(self, position):\n        pass\n"
    (node.folder / "bad.py").write_text(f"{start} Half(Ingress):\n{opens}")
    (node.folder / "broken.py").write_text("1 / 0\n")
    (node.folder / "wrong.py").write_text(
        f"{start} Changes(Ingress):\n{opens}\n    async def read(self, limit):\n        pass\n"
    )
    node.configure(f'[ingress.changes]\nkind = "{kind}"\n', app="homemade:app")
    done = node.run()
    assert done.returncode == 2, done.stderr
    (line,) = error_lines(done.stderr)
    assert "node.toml:" in line
    assert said in line


def test_an_ingress_error_of_a_source_stops_the_node(node: Node, receiver: Receiver) -> None:
    (node.folder / "lines.txt").write_text("end\n")
    node.configure(configuration(receiver.url, until=0), app="homemade:app")
    done = node.run()
    assert done.returncode == 6, done.stderr
    assert "there is no database" in error_lines(done.stderr)[-1]


def test_a_sink_that_holds_what_nobody_published_stops_the_node(node: Node, receiver: Receiver) -> None:
    inputs = Inputs(node.folder)
    inputs.grow(5)
    inputs.end()
    node.configure(configuration(receiver.url, until=5), app="homemade:app")
    node.finish()
    database = sqlite3.connect(node.folder / "history.db", isolation_level=None)
    for records, said in (
        (99, "holds 99 records of partition 0, more than the 15"),
        (3, "holds 3 records of partition 0, but 15"),
    ):
        database.execute("UPDATE held SET records = ?", (records,))
        done = node.run()
        assert done.returncode == 6, done.stderr
        assert said in error_lines(done.stderr)[-1]
    database.close()
    assert json.loads(next(iter(receiver.taken.values())))["times"] == 1
