"""Maps: as a sorted dict, whatever is in the store, frozen or changed; an invocation happens as a whole or not at all."""

from __future__ import annotations

import datetime as dt
import enum
import itertools
import tracemalloc
from collections.abc import Iterator
from typing import Any

import cbor2
import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from invoking import TYPENAME, FailedError, Invoking

from shardfun import Context, Map, State, Value, mapping, value
from shardfun.core.cell_keys import parse_cell_key
from shardfun.errors import ContextClosedError, DefinitionError
from shardfun.model.address import Address
from shardfun.model.ordered_keys import decode_key


class Item(msgspec.Struct, frozen=True):
    number: int


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Shop(State):
    n: Value[int] = value(0)
    prices: Map[str, float] = mapping()
    stock: Map[int, int] = mapping()
    lists: Map[str, list[int]] = mapping()
    items: Map[Colour, Item | None] = mapping()
    pairs: Map[tuple[str, int], str] = mapping()
    days: Map[dt.date, bytes] = mapping()
    any: Map[str, Any] = mapping()


@pytest.fixture
def shop() -> Invoking:
    return Invoking(Shop)


def fill(ctx: Context[Shop]) -> None:
    ctx.state.prices.update({"b": 2.0, "a": 1.0, "c": 3.0})


# ---- as a dict ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("where", ["own", "changed", "frozen", "stored", "restarted"])
def test_reads_see_an_entry_wherever_it_is(shop: Invoking, where: str) -> None:
    def read(ctx: Context[Shop]) -> None:
        prices = ctx.state.prices
        if where == "own":
            fill(ctx)
        assert prices["a"] == 1.0
        assert prices.get("z") is None
        assert prices.get("z", 7.0) == 7.0
        assert "a" in prices
        assert "z" not in prices
        assert list(prices) == list(prices.keys()) == ["a", "b", "c"]
        assert list(prices.values()) == [1.0, 2.0, 3.0]
        assert list(prices.items()) == [("a", 1.0), ("b", 2.0), ("c", 3.0)]
        assert list(prices.items(start="b")) == [("b", 2.0), ("c", 3.0)]
        assert list(prices.keys(start="aa", stop="c")) == ["b"]
        assert list(prices.values(stop="a")) == []
        assert prices
        assert not ctx.state.stock
        assert prices.count() == 3
        with pytest.raises(KeyError):
            prices["z"]

    if where != "own":
        shop.do(fill)
    match where:
        case "frozen":
            shop.cut()
        case "stored" | "restarted":
            shop.checkpoint()
    if where == "restarted":
        shop.restart()
    shop.do(read)


@pytest.mark.parametrize("where", ["own", "stored"])
def test_writes_are_seen_at_once_and_afterwards(shop: Invoking, where: str) -> None:
    def write(ctx: Context[Shop]) -> dict[str, float]:
        prices = ctx.state.prices
        if where == "own":
            fill(ctx)
        del prices["a"]
        prices["b"] += 0.5
        assert prices.setdefault("b", 9.0) == 2.5
        assert prices.setdefault("d", 4.0) == 4.0
        assert prices.pop("c") == 3.0
        assert prices.pop("c", None) is None
        with pytest.raises(KeyError):
            prices.pop("c")
        with pytest.raises(KeyError):
            del prices["a"]
        assert "a" not in prices
        return dict(prices.items())

    if where == "stored":
        shop.do(fill)
        shop.checkpoint()
    assert shop.do(write) == {"b": 2.5, "d": 4.0}
    assert shop.do(lambda ctx: dict(ctx.state.prices.items())) == {"b": 2.5, "d": 4.0}
    shop.checkpoint()
    shop.restart()
    assert shop.do(lambda ctx: dict(ctx.state.prices.items())) == {"b": 2.5, "d": 4.0}


def test_clear_and_what_comes_after_it(shop: Invoking) -> None:
    def refill(ctx: Context[Shop]) -> None:
        before = ctx.state.prices.items()
        ctx.state.prices.clear()
        assert not ctx.state.prices
        assert "a" not in ctx.state.prices
        ctx.state.prices["b"] = 5.0
        assert list(ctx.state.prices.items()) == [("b", 5.0)]
        assert list(before) == [("a", 1.0), ("b", 2.0), ("c", 3.0)], "as it was when the iteration began"

    shop.do(fill)
    shop.checkpoint()
    shop.do(refill)
    assert shop.do(lambda ctx: dict(ctx.state.prices.items())) == {"b": 5.0}
    shop.do(lambda ctx: ctx.state.prices.clear())
    assert shop.everything_stored() == {}


def test_maps_and_addresses_do_not_mix(shop: Invoking) -> None:
    shop.do(lambda ctx: ctx.state.lists.update({"a": [1]}), "x")
    shop.do(lambda ctx: ctx.state.any.update({"a": 2}), "x")
    shop.do(lambda ctx: ctx.state.any.update({"a": 3}), "x\0")
    assert shop.do(lambda ctx: (dict(ctx.state.lists.items()), dict(ctx.state.any.items())), "x") == ({"a": [1]}, {"a": 2})
    shop.do(lambda ctx: ctx.state.any.clear(), "x")
    assert shop.do(lambda ctx: dict(ctx.state.any.items()), "x\0") == {"a": 3}


def test_keys_of_other_types(shop: Invoking) -> None:
    def write(ctx: Context[Shop]) -> None:
        ctx.state.stock.update({5: 1, -300: 2, 10**30: 3})
        ctx.state.items[Colour.RED] = Item(1)
        ctx.state.items[Colour.BLUE] = None
        ctx.state.pairs.update([(("a", 2), "x"), (("a", -2), "y"), (("b", 0), "z")])
        ctx.state.days[dt.date(2024, 2, 29)] = b"leap"

    def read(ctx: Context[Shop]) -> None:
        assert list(ctx.state.stock.items()) == [(-300, 2), (5, 1), (10**30, 3)]
        assert list(ctx.state.items.items()) == [(Colour.BLUE, None), (Colour.RED, Item(1))]
        assert list(ctx.state.pairs.items(start=("a",), stop=("b",))) == [(("a", -2), "y"), (("a", 2), "x")]
        assert list(ctx.state.pairs.keys(start=("a", 0))) == [("a", 2), ("b", 0)]
        assert ctx.state.days.get(dt.date(2024, 2, 29)) == b"leap"

    shop.do(write)
    shop.do(read)
    shop.checkpoint()
    shop.do(read)


# ---- types -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (lambda m: m.prices.update({5: 1.0}), "state field 'prices': key: expected str, got int: 5"),
        (lambda m: m.prices.get(5), "state field 'prices': key: expected str, got int: 5"),
        (lambda m: 5 in m.prices, "state field 'prices': key: expected str, got int: 5"),
        (lambda m: m.prices.items(start=5), "state field 'prices': key: expected str, got int: 5"),
        (lambda m: m.prices.update({"a": 1}), "state field 'prices': expected float, got int: 1"),
        (lambda m: m.lists.update({"a": ["x"]}), "state field 'lists': the value is not of the declared type"),
        (lambda m: m.lists.update({"a": (1,)}), "state field 'lists': expected list[int], got tuple"),
        (lambda m: m.items.update({Colour.RED: Item("x")}), "state field 'items': the value is not of the declared type"),
        (lambda m: m.any.update({"a": object()}), "state field 'any': the value cannot be encoded"),
        (
            lambda m: setattr(m, "prices", {"a": 1.0}),
            "state field 'prices' is a map and cannot be assigned: change its entries",
        ),
        (lambda m: "price" in m, "'ShopCopy' object has no attribute 'price'"),
        (lambda m: m.price, "'ShopCopy' object has no attribute 'price'"),
    ],
)
def test_what_does_not_fit_is_an_error_where_it_is_given(shop: Invoking, action: Any, expected: str) -> None:
    def attempt(ctx: Context[Shop]) -> str:
        try:
            action(ctx.state)
        except Exception as error:
            return str(error)
        return ""

    assert expected in shop.do(attempt)
    assert shop.everything_stored() == {}, "a refused value is not there"


def test_a_stored_value_of_an_earlier_declaration_is_an_error() -> None:
    class Before(State):
        m: Map[str, str] = mapping()

    class After(State):
        m: Map[str, int] = mapping()

    old, new = Invoking(Before), Invoking(After)
    old.do(lambda ctx: ctx.state.m.update({"a": "text"}))
    old.checkpoint()
    new.stored.update(old.stored)
    with pytest.raises(FailedError, match="state field 'm': the stored value is not of the declared type"):
        new.do(lambda ctx: ctx.state.m["a"])


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (Map[list[int], int], "cannot be the type of keys"),
        (Map[str, dt.tzinfo], "is not a supported type"),
        (Map, "expected the annotation 'Map"),
        (Value[int], r"expected '= value\(...\)' after the annotation"),
        (None, "expected the annotation 'Map"),
    ],
)
def test_declarations_that_cannot_work(annotation: Any, expected: str) -> None:
    hints = {} if annotation is None else {"m": annotation}
    cls = type("Wrong", (State,), {"__annotations__": hints, "m": mapping()})
    with pytest.raises(DefinitionError, match=rf"function 't/f': state field Wrong.m: .*{expected}"):
        Invoking(cls)


def test_an_annotation_alone_declares_no_map() -> None:
    class Forgotten(State):
        m: Map[str, int]

    with pytest.raises(DefinitionError, match=r"Forgotten.m: expected '= mapping\(...\)' after 'Map\[K, V\]'"):
        Invoking(Forgotten)


def test_a_subclass_may_declare_a_name_anew() -> None:
    class Base(State):
        m: Map[str, int] = mapping()
        n: Value[int] = value(0)

    class Derived(Base):
        m: Value[int] = value(5)
        n: Map[str, int] = mapping()

    state = Invoking(Derived)
    state.do(lambda ctx: ctx.state.n.update({"a": ctx.state.m}))
    assert state.do(lambda ctx: ctx.state.n["a"]) == 5


# ---- values that change in place ---------------------------------------------------------------------------------------
def test_a_value_changed_in_place_is_kept(shop: Invoking) -> None:
    def make(ctx: Context[Shop]) -> None:
        ctx.state.lists["a"] = mine = [1]
        mine.append(2)
        ctx.state.lists["b"] = []
        ctx.state.lists.setdefault("c", []).append(3)

    def change(ctx: Context[Shop]) -> None:
        ctx.state.lists["a"].append(3)
        assert ctx.state.lists["a"] is ctx.state.lists["a"]
        for numbers in ctx.state.lists.values():
            numbers.append(9)
        assert ctx.state.lists["a"] == [1, 2, 3, 9]

    shop.do(make)
    shop.checkpoint()
    shop.do(change)
    shop.checkpoint()
    assert shop.do(lambda ctx: dict(ctx.state.lists.items())) == {"a": [1, 2, 3, 9], "b": [9], "c": [3, 9]}


def test_a_value_that_was_only_read_is_not_written(shop: Invoking) -> None:
    shop.do(lambda ctx: ctx.state.lists.update({"a": [1]}))
    shop.checkpoint()
    shop.do(lambda ctx: [list(ctx.state.lists.items()), ctx.state.lists["a"]])
    assert shop.core.table.cells.unapplied() == {}
    assert not shop.core.table.changed


def test_a_change_in_place_that_does_not_fit_fails_the_invocation_and_leaves_no_trace(shop: Invoking) -> None:
    def change(ctx: Context[Shop]) -> None:
        ctx.state.n = 5
        ctx.state.lists["a"].append("x")
        ctx.state.prices["a"] = 1.0
        ctx.send(TYPENAME, "b", 0)

    shop.do(lambda ctx: ctx.state.lists.update({"a": [1]}))
    before = shop.everything_stored()
    with pytest.raises(FailedError, match="state field 'lists': the value is not of the declared type"):
        shop.do(change)
    assert shop.everything_stored() == before
    assert shop.do(lambda ctx: ctx.state.lists["a"]) == [1]


def test_what_is_deleted_or_replaced_is_not_written_back(shop: Invoking) -> None:
    def change(ctx: Context[Shop]) -> None:
        first, second = ctx.state.lists["a"], ctx.state.lists["b"]
        del ctx.state.lists["a"]
        ctx.state.lists["b"] = [7]
        first.append(5)
        second.append(5)

    shop.do(lambda ctx: ctx.state.lists.update({"a": [1], "b": [2]}))
    shop.do(change)
    assert shop.do(lambda ctx: dict(ctx.state.lists.items())) == {"b": [7]}


def test_a_failed_invocation_leaves_no_trace(shop: Invoking) -> None:
    def fail(ctx: Context[Shop]) -> None:
        ctx.state.prices["a"] = 100.0
        del ctx.state.prices["b"]
        ctx.state.lists.clear()
        ctx.state.n += 1
        raise ValueError

    shop.do(fill)
    shop.do(lambda ctx: ctx.state.lists.update({"a": [1]}))
    before = shop.everything_stored()
    with pytest.raises(FailedError, match="ValueError"):
        shop.do(fail)
    assert shop.everything_stored() == before


# ---- iteration ---------------------------------------------------------------------------------------------------------
def test_an_iteration_shows_the_map_as_it_was_when_it_began(shop: Invoking) -> None:
    def change_on_the_way(ctx: Context[Shop]) -> list[tuple[str, float]]:
        prices = ctx.state.prices
        found = []
        for key, price in prices.items():
            found.append((key, price))
            prices[key + "2"] = price
            prices.pop("b", None)
            prices["c"] = 30.0
        return found

    shop.do(fill)
    shop.checkpoint()
    assert shop.do(change_on_the_way) == [("a", 1.0), ("b", 2.0), ("c", 3.0)]
    assert shop.do(lambda ctx: dict(ctx.state.prices.items())) == {"a": 1.0, "a2": 1.0, "b2": 2.0, "c": 30.0, "c2": 3.0}


def test_an_iteration_over_mutable_values_shows_objects_that_belong_to_the_map_or_to_nobody(shop: Invoking) -> None:
    def change(ctx: Context[Shop]) -> None:
        lists = ctx.state.lists
        iteration = lists.items()
        lists["b"] = [20]
        del lists["c"]
        seen = dict(iteration)
        assert seen == {"a": [1], "b": [2], "c": [3]}
        for numbers in seen.values():
            numbers.append(0)
        assert seen["a"] is lists["a"]

    shop.do(lambda ctx: ctx.state.lists.update({"a": [1], "b": [2], "c": [3]}))
    shop.checkpoint()
    shop.do(change)
    assert shop.do(lambda ctx: dict(ctx.state.lists.items())) == {"a": [1, 0], "b": [20]}


class CountingStore:
    """Tells how far its scans were followed."""

    def __init__(self, stored: dict[bytes, bytes]) -> None:
        self.ordered = sorted(stored.items())
        self.stored = stored
        self.steps = 0

    def get(self, key: bytes) -> bytes | None:
        return self.stored.get(key)

    def scan(self, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        for key, stored in self.ordered:
            if key.startswith(prefix) and key >= prefix + start:
                self.steps += 1
                yield key, stored


def test_an_iteration_reads_no_more_than_it_shows(shop: Invoking) -> None:
    shop.do(lambda ctx: ctx.state.stock.update((number, number) for number in range(1000)))
    shop.checkpoint()
    store = CountingStore(shop.stored)
    shop.core.table.cells._store = store
    assert shop.do(lambda ctx: list(itertools.islice(ctx.state.stock.items(start=100), 3))) == [(n, n) for n in (100, 101, 102)]
    assert store.steps == 3
    assert shop.do(lambda ctx: bool(ctx.state.stock))
    assert store.steps == 4


def test_iterating_over_200_000_entries_takes_no_memory(shop: Invoking) -> None:
    entries = 200_000
    shop.do(lambda ctx: ctx.state.stock.update({0: 0}))
    shop.checkpoint()
    ((key, stored),) = shop.stored.items()
    parsed = parse_cell_key(key)
    assert parsed is not None
    from shardfun.model.ordered_keys import key_type

    encode = key_type(int, "key").encode

    class Streaming:
        """As LevelDB: entries are made when they are asked for."""

        def get(self, key: bytes) -> bytes | None:
            return shop.stored.get(key)

        def scan(self, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
            if prefix != parsed.prefix:
                return
            for number in range(entries):
                yield prefix + encode(number), stored

    shop.core.table.cells._store = Streaming()

    def walk(ctx: Context[Shop]) -> tuple[int, int]:
        tracemalloc.start()
        try:
            count = sum(1 for _ in ctx.state.stock.items())
            return count, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    count, peak = shop.do(walk)
    assert count == entries
    assert peak < 200_000, f"{peak} bytes, one byte an entry"


def test_an_iteration_survives_an_applied_checkpoint(shop: Invoking) -> None:
    """As an asynchronous function may hold one over an await."""
    shop.do(fill)
    written = shop.cut()
    target = shop.core.dispatcher.types[TYPENAME]
    record = target.records.young["a"]
    copy = target.copies.begin(record, shop.core.table.cells, shop.now_ms)
    iteration = copy.prices.items()
    assert next(iteration) == ("a", 1.0)
    shop.apply(written)
    shop.do(lambda ctx: ctx.state.prices.update({"b": 20.0, "d": 4.0}))
    shop.checkpoint()
    assert list(iteration) == [("b", 2.0), ("c", 3.0)]


# ---- default is absent -------------------------------------------------------------------------------------------------
def test_an_address_with_entries_only_has_no_record(shop: Invoking) -> None:
    shop.do(fill)
    keys = sorted(shop.everything_stored())
    assert [key[2:3] for key in keys] == [b"m"] * 3
    parsed = [parse_cell_key(key) for key in keys]
    assert [(found.address, found.name, decode_key(found.suffix)) for found in parsed if found] == [
        (Address(TYPENAME, "a"), "prices", key) for key in "abc"
    ]
    assert cbor2.loads(shop.stored[keys[0]]) == 1.0


def test_in_del_and_delete_instance(shop: Invoking) -> None:
    def look(ctx: Context[Shop]) -> list[str]:
        return [name for name in ("n", "prices", "lists") if name in ctx.state]

    def make(ctx: Context[Shop]) -> None:
        fill(ctx)
        ctx.state.n = 5
        ctx.state.lists["x"] = [1]

    assert shop.do(look) == []
    shop.do(make)
    shop.checkpoint()
    assert shop.do(look) == ["n", "prices", "lists"]
    shop.do(lambda ctx: [delattr(ctx.state, "n"), delattr(ctx.state, "prices")])
    assert shop.do(look) == ["lists"]
    assert shop.stored_record() is None
    shop.do(make)
    shop.do(lambda ctx: [ctx.delete_instance(), ctx.state.prices.update({"new": 1.0})])
    assert shop.do(lambda ctx: dict(ctx.state.prices.items())) == {"new": 1.0}
    shop.do(lambda ctx: ctx.delete_instance())
    assert shop.everything_stored() == {}


def test_a_failed_deletion_of_an_instance_deletes_nothing(shop: Invoking) -> None:
    def fail(ctx: Context[Shop]) -> None:
        ctx.delete_instance()
        assert ctx.state.n == 0
        assert not ctx.state.prices
        raise ValueError

    shop.do(lambda ctx: [fill(ctx), setattr(ctx.state, "n", 3)])
    before = shop.everything_stored()
    with pytest.raises(FailedError):
        shop.do(fail)
    assert shop.everything_stored() == before


def test_a_map_ends_with_its_invocation(shop: Invoking) -> None:
    kept = shop.do(lambda ctx: ctx.state.prices)
    for use in (
        lambda: kept["a"],
        lambda: "a" in kept,
        lambda: kept.update({"a": 1.0}),
        kept.clear,
        lambda: list(kept),
        lambda: bool(kept),
    ):
        with pytest.raises(ContextClosedError, match="outside of its invocation"):
            use()


# ---- everything together -----------------------------------------------------------------------------------------------
class Life(RuleBasedStateMachine):
    """Against dictionaries: what is true now, at the cut, and in the store; with cuts, aborts, applies, failures, recoveries."""

    keys = st.sampled_from(["", "a", "a\0", "b", "ä", "zz"])
    numbers = st.integers(0, 9)

    def __init__(self) -> None:
        super().__init__()
        self.shop = Invoking(Shop)
        self.now: dict[str, list[int]] = {}
        self.at_cut: dict[str, list[int]] = {}
        self.stored: dict[str, list[int]] = {}
        self.written: dict[bytes, bytes | None] | None = None

    def do(self, action: Any, *, fails: bool) -> None:
        def attempt(ctx: Context[Shop]) -> None:
            action(ctx.state.lists)
            if fails:
                raise ValueError

        if fails:
            with pytest.raises(FailedError):
                self.shop.do(attempt)
        else:
            self.shop.do(attempt)

    def model(self, action: Any, *, fails: bool) -> None:
        model = {key: list(numbers) for key, numbers in self.now.items()}
        action(model)
        if not fails:
            self.now = model

    @rule(key=keys, number=numbers, fails=st.booleans())
    def set(self, key: str, number: int, *, fails: bool) -> None:
        for run in (self.do, self.model):
            run(lambda lists: lists.__setitem__(key, [number]), fails=fails)

    @rule(key=keys, number=numbers, fails=st.booleans())
    def change_in_place(self, key: str, number: int, *, fails: bool) -> None:
        for run in (self.do, self.model):
            run(lambda lists: lists.setdefault(key, []).append(number), fails=fails)

    @rule(key=keys, fails=st.booleans())
    def delete(self, key: str, *, fails: bool) -> None:
        for run in (self.do, self.model):
            run(lambda lists: lists.pop(key, None), fails=fails)

    @rule(key=keys, fails=st.booleans())
    def clear(self, key: str, *, fails: bool) -> None:
        for run in (self.do, self.model):
            run(lambda lists: [lists.clear(), lists.update({key: [1]})], fails=fails)

    @rule(start=keys, stop=keys, number=numbers)
    def change_on_the_way(self, start: str, stop: str, number: int) -> None:
        expected = sorted(
            (key, list(numbers)) for key, numbers in self.now.items() if start.encode() <= key.encode() < stop.encode()
        )

        def walk(lists: Any) -> None:
            seen = []
            for key, numbers in lists.items(start=start, stop=stop):
                seen.append((key, list(numbers)))
                numbers.append(number)
                lists["b"] = [number]
            assert sorted(seen) == expected
            assert [key for key, _ in seen] == sorted((key for key, _ in seen), key=str.encode)

        def walk_model(model: dict[str, list[int]]) -> None:
            began = False
            for key, numbers in sorted(self.now.items(), key=lambda item: item[0].encode()):
                if start.encode() <= key.encode() < stop.encode():
                    if not (key == "b" and began):
                        model[key] = [*numbers, number]
                    model["b"] = [number]
                    began = True

        self.do(walk, fails=False)
        self.model(walk_model, fails=False)

    @precondition(lambda self: self.written is None)
    @rule()
    def cut(self) -> None:
        self.written = self.shop.cut()
        self.at_cut = self.now

    @precondition(lambda self: self.written is not None)
    @rule()
    def apply(self) -> None:
        self.shop.apply(self.written)
        self.stored, self.written = self.at_cut, None

    @precondition(lambda self: self.written is not None)
    @rule()
    def abort(self) -> None:
        self.shop.core.table.merge_frozen()
        self.written = None

    @rule()
    def recover(self) -> None:
        self.shop.recover()
        self.now, self.written = self.stored, None

    @invariant()
    def is_as_the_model(self) -> None:
        found = self.shop.do(lambda ctx: list(ctx.state.lists.items()))
        assert found == sorted(self.now.items(), key=lambda item: item[0].encode())


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
