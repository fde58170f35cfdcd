"""Per-pair sequences: every address numbers what it sends to each other address, and checks that what arrives counts 1, 2, 3, ...

So a lost, doubled or overtaken message is found by the first one behind it, and in a checkpoint the numbers that were received, that
wait, and that were sent must fit together. Who sends what to whom depends on the order of arrival, which may differ each time.

Besides letters there are questions, whose receiver only reads; bombs, which change state, send a letter, and always raise; and flaky
messages, which do the same at every other attempt. One pair is hot. A tally per application gets a number with each letter.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from typing import Any
from zlib import crc32

import msgspec

from shardfun.model.doors import IngressBatch
from shardfun.model.keyspace import owner_of
from shardfun.sdk.app import App, Message
from shardfun.sdk.context import Context
from shardfun.sdk.state import State, Value, value
from shardfun.simulation.options import Options
from shardfun.simulation.view import CheckpointView, Waiting
from shardfun.simulation.violation import wrong
from shardfun.simulation.workloads.workload import MAIN, Workload, each_once, same, share

CLERK = "pairs/clerk"
TALLY = "pairs/tally"
CLERKS = 8
HOT_FROM = "clerk-0"
BURST = 3


class Letter(msgspec.Struct, frozen=True):
    """The ``number``-th from ``origin`` to this address; answered by sending another one while ``hops`` are left."""

    origin: str
    number: int
    hops: int


class Question(msgspec.Struct, frozen=True):
    """Changes nothing where it arrives."""

    number: int


class Answer(msgspec.Struct, frozen=True):
    """To the question of that number."""

    number: int
    total: int


class Bomb(msgspec.Struct, frozen=True):
    """Always fails, late."""

    tag: int


class Flaky(msgspec.Struct, frozen=True):
    """Fails at every other attempt, late."""

    tag: int


class Desk(State):
    """A clerk's. The dictionaries go from an address (or ingress partition) to the last number."""

    total: Value[int] = value(0)
    emitted: Value[int] = value(0)
    flaky: Value[int] = value(0)
    received: Value[dict[str, int]] = value(default_factory=dict)
    sent: Value[dict[str, int]] = value(default_factory=dict)
    asked: Value[dict[str, int]] = value(default_factory=dict)
    answered: Value[dict[str, int]] = value(default_factory=dict)


class Sheet(State):
    """The tally's."""

    count: Value[int] = value(0)
    sum: Value[int] = value(0)


class Failing(Exception):  # noqa: N818 - raised by the application on purpose
    """What bombs and flaky messages raise."""


class Pairs(Workload):
    """See the module."""

    egress = "log"

    def __init__(self, options: Options) -> None:
        self._attempts = Counter[int]()
        self._hot = _elsewhere(HOT_FROM, options.shards)
        super().__init__(options)
        chance = random.Random(options.seed)
        self._records = [
            _records(chance, partition, share(options.records, partition, options.shards))
            for partition in range(options.shards)
        ]

    # ---- the application ------------------------------------------------------------------------------------------------
    def declare(self, app: App) -> None:
        """Clerks and a tally."""

        @app.function(CLERK)
        def clerk(ctx: Context[Desk], message: Letter | Question | Answer | Bomb | Flaky) -> None:
            match message:
                case Letter():
                    self._letter(ctx, message)
                case Question():
                    assert ctx.caller is not None
                    ctx.send(*ctx.caller, Answer(message.number, ctx.state.total))
                case Answer():
                    assert ctx.caller is not None
                    self._count(ctx, "answers", ctx.state.answered, ctx.caller.id, message.number)
                case Bomb():
                    self._write(ctx, self._hot, 0)
                    raise Failing(message.tag)
                case Flaky():
                    ctx.state.flaky += 1
                    self._attempts[message.tag] += 1
                    self._write(ctx, self._hot, 0)
                    if self._attempts[message.tag] % 2:
                        raise Failing(message.tag)

        @app.function(TALLY)
        def tally(ctx: Context[Sheet], number: int) -> None:
            ctx.state.count += 1
            ctx.state.sum += number

        @app.on_end(CLERK)
        def close(ctx: Context[Desk]) -> None:
            ctx.state.emitted += 1
            ctx.emit("log", [ctx.self.id, ctx.state.total])

        @app.router(MAIN)
        def route(record: tuple[str, Any]) -> Iterable[Message]:
            yield Message(CLERK, *record)

    def _letter(self, ctx: Context[Desk], letter: Letter) -> None:
        state = ctx.state
        self._count(ctx, "letters", state.received, letter.origin, letter.number)
        state.total += 1
        ctx.send(TALLY, "all" if state.total % 3 else ctx.self.id, state.total)
        if letter.number % 4 == 0:
            state.emitted += 1
            ctx.emit("log", [letter.origin, ctx.self.id, letter.number])
        if ctx.self.id == HOT_FROM:
            for _ in range(BURST):
                self._write(ctx, self._hot, 0)
        elif letter.hops:
            self._write(ctx, _next_target(ctx.self.id, state.total), letter.hops - 1)
        if state.total % 3 == 0:
            target = _next_target(ctx.self.id, state.total + 1)
            state.asked[target] = state.asked.get(target, 0) + 1
            ctx.send(CLERK, target, Question(state.asked[target]))

    @staticmethod
    def _write(ctx: Context[Desk], target: str, hops: int) -> None:
        number = ctx.state.sent.get(target, 0) + 1
        ctx.state.sent[target] = number
        ctx.send(CLERK, target, Letter(ctx.self.id, number, hops))

    def _count(self, ctx: Context[Desk], what: str, counts: dict[str, int], origin: str, number: int) -> None:
        expected = counts.get(origin, 0) + 1
        if number != expected:
            self.violations.append(f"{what} from {origin} to {ctx.self.id}: expected number {expected}, got {number}")
        counts[origin] = number

    # ---- input ----------------------------------------------------------------------------------------------------------
    def total(self, partition: int) -> int:
        """See ``Workload``."""
        return len(self._records[partition])

    def batch(self, partition: int, start: int, stop: int) -> IngressBatch:
        """See ``Workload``."""
        return IngressBatch(position=stop, records=list(self._records[partition][start:stop]))

    # ---- checks ---------------------------------------------------------------------------------------------------------
    def check(self, view: CheckpointView) -> None:
        """See ``Workload``."""
        self.check_balls(view)
        desks = dict(view.of_type(CLERK))
        admitted = [
            record for partition in range(self.shards) for record in self._records[partition][: view.position(MAIN, partition)]
        ]
        self._check_letters(view, desks, admitted)
        self._check_questions(view, desks)
        tags = [item.value.tag for item in view.waiting if type(item.value) in {Bomb, Flaky}]
        tags += [letter["payload"]["tag"] for letter in view.letters]
        flaky = sum(fields["flaky"] for fields in desks.values())
        same("bombs and flaky messages", len(tags) + flaky, sum(1 for _, message in admitted if type(message) is not Letter))
        each_once("dead letters and waiting bombs", tags, list(dict.fromkeys(tags)))
        numbers = [item.value for item in view.waiting if item.target.typename == TALLY]
        sheets = [fields for _, fields in view.of_type(TALLY)]
        totals = [fields["total"] for fields in desks.values()]
        same("tallied", len(numbers) + sum(fields["count"] for fields in sheets), sum(totals))
        expected = sum(total * (total + 1) // 2 for total in totals)
        same("sum of the tally", sum(numbers) + sum(fields["sum"] for fields in sheets), expected)
        same("log", view.emitted["log"], sum(fields["emitted"] for fields in desks.values()))

    def _check_letters(self, view: CheckpointView, desks: dict[str, dict[str, Any]], admitted: list[tuple[str, Any]]) -> None:
        last: dict[tuple[str, str], int] = {}
        for target, fields in desks.items():
            last |= {(origin, target): number for origin, number in fields["received"].items()}
        for item in view.waiting:
            if type(item.value) is Letter:
                _follow("letters", last, (item.value.origin, item.target.id), item)
        sent = {(origin, target): n for origin, fields in desks.items() for target, n in fields["sent"].items()}
        for target, message in admitted:
            if type(message) is Letter:
                sent[message.origin, target] = message.number
        same("last letters", last, sent)

    @staticmethod
    def _check_questions(view: CheckpointView, desks: dict[str, dict[str, Any]]) -> None:
        """Answered, answers on their way, questions on their way: in this order they count up to what was asked."""
        last: dict[tuple[str, str], int] = {}
        for origin, fields in desks.items():
            last |= {(origin, target): number for target, number in fields["answered"].items()}
        for item in view.waiting:
            if type(item.value) is Answer:
                assert item.sender is not None
                _follow("answers", last, (item.target.id, item.sender.id), item)
        for item in view.waiting:
            if type(item.value) is Question:
                assert item.sender is not None
                _follow("questions", last, (item.sender.id, item.target.id), item)
        asked = {(origin, target): n for origin, fields in desks.items() for target, n in fields["asked"].items()}
        same("last questions", last, asked)

    def check_end(self, view: CheckpointView, published: list[Any], *, ended: bool) -> None:
        """See ``Workload``."""
        desks = dict(view.of_type(CLERK))
        expected: list[tuple[Any, ...]] = [(id, fields["total"]) for id, fields in desks.items()] if ended else []
        expected += [
            (origin, target, number)
            for target, fields in desks.items()
            for origin, count in fields["received"].items()
            for number in range(4, count + 1, 4)
        ]
        found = [tuple(item) for item in published]
        each_once("published log", map(str, found), map(str, expected))


def _follow(what: str, last: dict[tuple[str, str], int], pair: tuple[str, str], item: Waiting) -> None:
    expected = last.get(pair, 0) + 1
    if item.value.number != expected:
        wrong(
            f"{what} of {pair}: after number {expected - 1} comes {item.value.number}, in the {item.place} of shard {item.shard}"
        )
    last[pair] = expected


def _elsewhere(id: str, shards: int) -> str:
    """A clerk in another shard, if there is another shard."""
    return next((other for i in range(1, CLERKS) if owner_of(other := f"clerk-{i}", shards) != owner_of(id, shards)), "clerk-1")


def _next_target(id: str, salt: int) -> str:
    """The beginning of the hot pair, or somebody."""
    mixed = crc32(f"{id} {salt}".encode())
    return HOT_FROM if mixed % 3 == 0 else f"clerk-{mixed // 3 % CLERKS}"


def _records(chance: random.Random, partition: int, count: int) -> list[tuple[str, Any]]:
    """``(clerk, message)``: letters are numbered per target, as everything else is."""
    numbers = Counter[str]()
    records: list[tuple[str, Any]] = []
    for index in range(count):
        target = HOT_FROM if chance.random() < 0.3 else f"clerk-{chance.randrange(CLERKS)}"
        kind = chance.random()
        tag = partition * 1_000_000 + index
        if kind < 0.03:
            records.append((target, Bomb(tag)))
        elif kind < 0.06:
            records.append((target, Flaky(tag)))
        else:
            numbers[target] += 1
            records.append((target, Letter(f"in-{partition}", numbers[target], chance.randint(0, 4))))
    return records
