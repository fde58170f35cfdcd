"""Maps, buffers, registries, expiring state and deleted instances, as a test sees them."""

from __future__ import annotations

import datetime as dt

import pytest

from shardfun import App, Buffer, Context, Map, Registry, State, Value, after_write, buffer, mapping, registry, value
from shardfun.errors import PayloadTypeError
from shardfun.testing import FunctionTest, LocalNode

SHELF, NOTE, STICKER = "s/shelf", "s/note", "s/sticker"
DAY = dt.timedelta(days=1)


class Shelf(State):
    total: Value[int] = value(0)
    today: Value[int] = value(0, expire=after_write(DAY))
    prices: Map[str, float] = mapping()
    recent: Buffer[str] = buffer()
    extra: Registry = registry()


class Note(State):
    texts: Map[str, str] = mapping()


app = App("shelves")


@app.function(SHELF)
def shelf(ctx: Context[Shelf], message: str) -> None:
    if message == "delete":
        ctx.delete_instance()
        return
    ctx.state.total += 1
    ctx.state.today += 1
    ctx.state.prices[message] = ctx.state.prices.get(message, 0.0) + 1.5
    ctx.state.recent.append(message)
    ctx.state.extra.value(message, int, default=0).set(1)
    if message == "bad":
        raise ValueError(message)


@app.function(NOTE, expire_idle=DAY)
def note(ctx: Context[Note], message: str) -> None:
    ctx.state.texts[message] = message


@app.function(STICKER)
def sticker(ctx: Context[Note], message: str) -> None:
    ctx.state.texts[message] = message


@app.on_end(STICKER)
def sticker_end(ctx: Context[Note]) -> None:
    ctx.emit("notes", [ctx.self.id, *ctx.state.texts])


def test_collections_are_shown_as_dicts_and_lists() -> None:
    test = FunctionTest(app, SHELF, state={"prices": {"tea": 2.0, "cup": 4.0}, "recent": ["cup"], "total": 7})
    test.receive("tea")
    assert vars(test.state) == {
        "total": 8,
        "today": 1,
        "prices": {"cup": 4.0, "tea": 3.5},
        "recent": ["cup", "tea"],
        "extra": ["tea"],
    }
    with pytest.raises(ValueError, match="bad"):
        test.receive("bad")
    assert test.state.recent == ["cup", "tea"]
    test.receive("delete")
    assert vars(test.state) == {"total": 0, "today": 0, "prices": {}, "recent": [], "extra": []}


def test_collections_that_do_not_fit_are_refused() -> None:
    with pytest.raises(PayloadTypeError, match="prices"):
        FunctionTest(app, SHELF, state={"prices": {"tea": "dear"}})
    with pytest.raises(PayloadTypeError, match="a registry cannot be given"):
        FunctionTest(app, SHELF, state={"extra": {}})


def test_state_expires_when_time_advances() -> None:
    test = FunctionTest(app, SHELF)
    test.receive("tea")
    test.advance(DAY - dt.timedelta(seconds=1))
    assert test.state.today == 1
    test.advance(1)
    assert (test.state.today, test.state.total) == (0, 1)


@pytest.mark.parametrize("seed", range(5))
def test_collections_in_a_node_survive_crashes(seed: int) -> None:
    with LocalNode(app, seed=seed) as node:
        for number in range(60):
            node.send(SHELF, f"s{number % 5}", f"item-{number % 7}")
            if number % 9 == 0:
                node.step(30)
                node.crash(number % 2)
        node.run()
        for shelf_number in range(5):
            found = node.state(SHELF, f"s{shelf_number}")
            expected = [f"item-{number % 7}" for number in range(60) if number % 5 == shelf_number]
            assert found.recent == expected
            assert found.prices == {item: 1.5 * expected.count(item) for item in sorted(expected)}
            assert found.total == found.today == 12


def test_an_instance_that_has_only_entries_of_a_map_is_found() -> None:
    with LocalNode(app) as node:
        node.send(STICKER, "n1", "hello")
        node.run()
        assert [address.id for address in node.addresses(STICKER)] == ["n1"]
        node.end()
        assert node.published("notes") == [["n1", "hello"]]


def test_an_idle_instance_is_gone_after_its_time() -> None:
    with LocalNode(app) as node:
        node.send(NOTE, "n1", "hello")
        node.advance(DAY / 2)
        node.send(NOTE, "n2", "there")
        node.advance(DAY * 0.6)
        assert node.state(NOTE, "n1").texts == {}
        assert node.state(NOTE, "n2").texts == {"there": "there"}
