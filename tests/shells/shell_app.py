"""The application of these tests: every way in which a function can run, with results that do not depend on who interleaves how.

A record adds an amount to an address, and perhaps to another one by a message. Each addition tells which one it is of its address, so a
lost, repeated or half undone one shows in what is published.
"""

from __future__ import annotations

import functools
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any, Final

import msgspec
import trio
from shell_process import here, spend
from shell_world import Job

from shardfun import App, Context, Message, State, Value, value

WAYS: Final = ("plain", "plain", "plain", "awaits", "blocks", "later", "slow", "fails")
LATER_S: Final = 0.7
IDS: Final = 8


class Add(msgspec.Struct, frozen=True):
    """An addition: ``number`` of the record (negative: of its message), ``to`` whom it is passed on."""

    number: int
    amount: int
    to: str = ""
    seconds: float = 0.0


class Total(State):
    """Of one address."""

    count: Value[int] = value(0)
    total: Value[int] = value(0)


app = App("shells")


def _add(ctx: Context[Total], add: Add) -> None:
    ctx.state.count += 1
    ctx.state.total += add.amount
    at = str(ctx.self)
    ctx.emit("log", {"number": add.number, "at": at, "count": ctx.state.count, "total": ctx.state.total})


def _pass_on(ctx: Context[Total], add: Add) -> None:
    if add.to:
        ctx.send("shells/plain", add.to, Add(-add.number, add.amount))


@app.function("shells/plain")
def plain(ctx: Context[Total], add: Add) -> None:
    _add(ctx, add)
    _pass_on(ctx, add)


@app.function("shells/awaits")
async def awaits(ctx: Context[Total], add: Add) -> None:
    await trio.sleep(add.seconds)
    _add(ctx, add)
    await trio.sleep(add.seconds)
    _pass_on(ctx, add)


@app.function("shells/blocks", blocking=True)
def blocks(ctx: Context[Total], add: Add) -> None:
    _add(ctx, add)
    _pass_on(ctx, add)


@app.function("shells/later")
def later(ctx: Context[Total], add: Add) -> None:
    _add(ctx, add)
    if add.to:
        ctx.send_after(LATER_S, "shells/plain", add.to, Add(-add.number, add.amount))


@app.function("shells/slow")
def slow(ctx: Context[Total], add: Add) -> None:
    process = here.get()
    assert process is not None
    spend(add.seconds * process.world.slowness(add.number))
    _add(ctx, add)
    _pass_on(ctx, add)


@app.function("shells/fails")
def fails(ctx: Context[Total], add: Add) -> None:
    process = here.get()
    assert process is not None
    if not process.world.well.is_set():
        msg = f"number {add.number} is refused as long as something is wrong"
        raise ValueError(msg)
    _add(ctx, add)
    _pass_on(ctx, add)


@app.router("adds")
def route(record: dict[str, Any]) -> list[Message]:
    add = Add(record["number"], record["amount"], record["to"], record["seconds"])
    return [(f"shells/{record['way']}", record["id"], add)]


def make_records(count: int, seed: int) -> list[dict[str, Any]]:
    """The input."""
    chance = random.Random(seed)
    ids = [f"a{number}" for number in range(IDS)]
    return [
        {
            "number": number,
            "id": chance.choice(ids),
            "way": chance.choice(WAYS),
            "amount": chance.randint(1, 100),
            "to": chance.choice(["", *ids]),
            "seconds": round(chance.random() * 0.1, 4),
        }
        for number in range(1, count + 1)
    ]


def differences(records: list[dict[str, Any]], published: Path, letters: int) -> list[str]:
    """What is wrong with what was published; one sentence for each.

    Args:
        letters: how many dead letters there are in the end.
    """
    lines = [json.loads(line) for path in sorted(published.glob("log-*.jsonl")) for line in path.read_bytes().splitlines()]
    found = Counter((line["number"], line["at"]) for line in lines)
    wrong = [f"{key} was added {times} times" for key, times in found.items() if times > 1]
    waiting = 0
    expected: set[tuple[int, str]] = set()
    for record in records:
        key = (record["number"], f"shells/{record['way']}:{record['id']}")
        if record["way"] == "fails" and key not in found:
            waiting += 1
            continue
        expected.add(key)
        if record["to"]:
            expected.add((-record["number"], f"shells/plain:{record['to']}"))
    wrong += [f"{key} is missing" for key in sorted(expected - found.keys())]
    wrong += [f"{key} was never asked for" for key in sorted(found.keys() - expected)]
    if waiting != letters:
        wrong.append(f"{waiting} records have failed, and there are {letters} dead letters")
    amounts = {record["number"]: record["amount"] for record in records}
    for at in sorted({line["at"] for line in lines}):
        total = 0
        for number, line in enumerate(sorted((line for line in lines if line["at"] == at), key=lambda line: line["count"]), 1):
            total += amounts[abs(line["number"])]
            if (line["count"], line["total"]) != (number, total):
                wrong.append(f"{at}: expected addition {number} with the sum {total}, found {line}")
                break
    return wrong


@functools.cache
def adds(count: int, seed: int = 5, rate: float = 20.0) -> Job:
    """A job of this application."""
    records = make_records(count, seed)
    lines = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    config = f"""
app = "shell_app:app"
timers.at_end = "wait"
[ingress.adds]
kind = "file"
path = "adds.jsonl"
partition_by = "id"
rate = {rate:g}
[egress.log]
kind = "file"
path = "out/log-{{partition}}.jsonl"
"""
    return Job(config, {"adds.jsonl": lines}, lambda folder, final: differences(records, folder, final.dead_letters))
