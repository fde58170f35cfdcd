"""Careful mode: the same results as always, a breadcrumb while a message is processed, and convicted messages are parked."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from single_core import cells_of, core_of, letters_of, put, record_of, run_all

from shardfun import App, Context, State, Value, restart, value
from shardfun.core.careful import Breadcrumb, run_careful, why_not_encodable
from shardfun.core.function import DEAD_LETTER_KIND
from shardfun.core.limits import Limits
from shardfun.core.shard import ShardCore
from shardfun.errors import FunctionRestartError
from shardfun.model.address import Address
from shardfun.model.control import Poison
from shardfun.model.crumbs import Crumb


class Table:
    """A table of breadcrumbs that remembers."""

    def __init__(self) -> None:
        self.open: dict[int, Crumb] = {}
        self.all: list[Crumb] = []

    def put(self, crumb: Crumb) -> int:
        self.all.append(crumb)
        self.open[len(self.all)] = crumb
        return len(self.all)

    def clear(self, slot: int) -> None:
        del self.open[slot]


class Note(msgspec.Struct, frozen=True):
    text: Any = None


class Inner(msgspec.Struct, frozen=True):
    text: str


class Tally(State):
    total: Value[int] = value(0)
    inner: Value[Inner] = value(Inner("none"))
    seen: Value[list[int]] = value(default_factory=list)


class BoomError(Exception):
    pass


def app_with(table: Table) -> App:
    app = App("careful")

    @app.function("test/worker")
    def work(ctx: Context[Tally], message: int | str) -> None:
        (crumb,) = table.open.values() or (None,)
        assert crumb is None or crumb.address == str(ctx.self)
        ctx.state.total += 1
        ctx.send("test/sink", "s", ctx.state.total)
        if message == "raise":
            raise BoomError
        if message == "bad":
            ctx.state.inner = Inner(object())  # type: ignore[arg-type]
        elif type(message) is int:
            ctx.state.seen = [*ctx.state.seen, message]

    @app.function("test/sink")
    def sink(ctx: Context[Tally], number: int) -> None:
        ctx.state.total += number

    return app


def careful(table: Table, *poison: Poison, retries: int = 1) -> ShardCore:
    return core_of(app_with(table), limits=Limits(retries=retries), breadcrumb=Breadcrumb(table, poison))


def letters(core: ShardCore) -> list[dict[str, Any]]:
    return letters_of({key: raw for key, raw in cells_of(core).items() if key[2:3] == DEAD_LETTER_KIND})


MESSAGES: list[tuple[str, Any]] = [("a", 1), ("b", "raise"), ("a", 2), ("b", 3), ("a", 1)]


def test_results_are_those_of_the_usual_runner() -> None:
    table, silent = Table(), Table()
    core, usual = careful(table), core_of(app_with(silent), limits=Limits(retries=1))
    for each in (core, usual):
        put(each, "test/worker", *MESSAGES, sender=Address("test/x", "1"))
        run_all(each)
    for typename, id in (("test/worker", "a"), ("test/worker", "b"), ("test/sink", "s")):
        mine, theirs = record_of(core, typename, id), record_of(usual, typename, id)
        assert [getattr(mine, f) for f in ("total", "inner", "seen")] == [
            getattr(theirs, f) for f in ("total", "inner", "seen")
        ]
    assert [(x["reason"], x["attempts"]) for x in letters(core)] == [(x["reason"], x["attempts"]) for x in letters(usual)]
    assert len(letters(core)) == 1
    assert table.open == {}
    assert (len(table.all), len(silent.all)) == (len(MESSAGES) + 4, 0)


def test_equal_messages_have_keys_of_their_own_and_the_same_in_each_process() -> None:
    keys = []
    for _ in range(2):
        table = Table()
        core = careful(table)
        put(core, "test/worker", ("a", 1), ("a", 1), ("b", 1), ("a", "1"), ("a", 1))
        put(core, "test/worker", ("a", 1), sender=Address("test/x", "1"))
        run_all(core)
        keys.append([(crumb.key, crumb.occurrence) for crumb in table.all if crumb.address.startswith("test/worker")])
    assert keys[0] == keys[1]
    assert len({key for key, _ in keys[0]}) == 6
    assert [occurrence for _, occurrence in keys[0]] == [1, 2, 1, 1, 3, 1]


def test_a_convicted_message_is_parked_once_and_everything_else_runs() -> None:
    table = Table()
    put_all = [("a", 1), ("a", 1), ("a", 1)]
    first = careful(table)
    put(first, "test/worker", *put_all)
    run_all(first)
    key = table.all[1].key
    table = Table()
    core = careful(table, Poison(key, 3, "ended its process 3 times"))
    assert core.take_cut(1).suspects, "careful mode goes on until it has come"
    put(core, "test/worker", *put_all, sender=None)
    run_all(core)
    assert record_of(core, "test/worker", "a").seen == [1, 1]
    (letter,) = letters(core)
    assert (letter["target"], letter["payload"], letter["attempts"]) == (["test/worker", "a"], 1, 3)
    assert letter["reason"] == "ended its process 3 times"
    assert core.changed
    assert core.dispatcher.letters.count == 1
    cut = core.take_cut(2)
    assert (cut.parked, cut.suspects) == ([key], False)


@pytest.mark.parametrize("retries", [0, 2])
def test_state_without_an_encoding_fails_its_message(retries: int) -> None:
    table = Table()
    core = careful(table, retries=retries)
    put(core, "test/worker", ("a", 1), ("a", "bad"), ("a", 2), ("b", "bad"))
    run_all(core)
    record = record_of(core, "test/worker", "a")
    assert (record.total, record.inner, record.seen) == (2, Inner("none"), [1, 2])
    assert record_of(core, "test/worker", "b").total == 0
    assert record_of(core, "test/sink", "s").total == 1 + 2, "what the failed ones sent is gone with them"
    assert [letter["target"][1] for letter in letters(core)] == ["a", "b"]
    assert "state field 'inner': the value cannot be stored: TypeError" in letters(core)[0]["reason"]
    assert core.table.dirty
    assert not any(why_not_encodable(each._function_of(record), record) for each in [core.table] for record in each.dirty)


def test_an_exception_of_ours_leaves_the_breadcrumb(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table()
    core = careful(table)
    put(core, "test/worker", ("a", 1))

    def broken(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr("shardfun.core.careful.why_not_encodable", broken)
    with pytest.raises(AssertionError):
        run_all(core)
    assert [crumb.address for crumb in table.open.values()] == ["test/worker:a"]


def test_careful_mode_ends_and_late_ends_touch_nothing() -> None:
    table = Table()
    core = careful(table)
    dispatcher = core.dispatcher
    target = dispatcher.types["test/worker"]
    assert target.run is run_careful
    breadcrumb = dispatcher.breadcrumb
    assert breadcrumb is not None
    mark = breadcrumb.begin(target, "slow", None, None, 1)
    assert mark is not None
    dispatcher.end_careful_mode()
    dispatcher.end_careful_mode()
    breadcrumb.end(mark)
    assert [crumb.address for crumb in table.open.values()] == ["test/worker:slow"]
    assert target.run is target.usual is not run_careful
    assert dispatcher.breadcrumb is None


def test_too_many_different_messages_are_left_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardfun.core.careful.SEEN_MAX", 3)
    table = Table()
    core = careful(table)
    put(core, "test/worker", *[("a", number) for number in range(5)])
    core.run(5)
    keys = [crumb.key for crumb in table.all if crumb.address == "test/worker:a"]
    assert len(set(keys[:3])) == 3
    assert set(keys[3:]) == {bytes(16)}


def test_a_restart_leaves_no_breadcrumb() -> None:
    app = App("restarts")

    @app.function("t/f", on_failure=restart())
    def f(ctx: Context, message: int) -> None:
        raise ValueError(message)

    table = Table()
    core = core_of(app, breadcrumb=Breadcrumb(table))
    put(core, "t/f", ("a", 1))
    with pytest.raises(FunctionRestartError):
        run_all(core)
    assert len(table.all) == 1
    assert table.open == {}
