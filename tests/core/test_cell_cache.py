"""The cache of cells: what is hot is not read from the store, and nobody ever sees an older value than the newest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shardfun.core.cell_cache import CACHED_BYTES, STRIPE
from shardfun.core.cells import Cells, CellsBeside

MAP = b"\0\1mt/f\0\0\1am\0"
BUFFER = b"\0\1bt/f\0\0\1ab\0"


class Store:
    """A dict that counts the reads."""

    def __init__(self, stored: dict[bytes, bytes] | None = None) -> None:
        self.stored = {} if stored is None else stored
        self.reads = 0

    def get(self, key: bytes) -> bytes | None:
        self.reads += 1
        return self.stored.get(key)

    def scan(self, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        return iter(sorted(item for item in self.stored.items() if item[0] >= prefix + start and item[0].startswith(prefix)))


def test_an_entry_is_read_from_the_store_once() -> None:
    store = Store({MAP + b"a": b"1"})
    cells = Cells(store, 1 << 20)
    assert [cells.read(MAP, b"a") for _ in range(3)] == [b"1"] * 3
    assert [cells.read(MAP, b"absent") for _ in range(3)] == [None] * 3
    assert store.reads == 2


def test_what_is_written_is_still_there_when_it_is_applied() -> None:
    store = Store()
    cells = Cells(store, 1 << 20)
    cells.put_all(MAP, {b"a": b"1", b"b": b"2"})
    cells.put(MAP, b"b", None)
    cells.freeze()
    cells.drop_frozen()  # the store knows nothing of it, so whatever is found was kept
    assert (cells.read(MAP, b"a"), cells.read(MAP, b"b"), store.reads) == (b"1", None, 0)


def test_only_maps_are_kept() -> None:
    cells = Cells(Store(), 1 << 20)
    cells.put(BUFFER, b"a", b"1")
    cells.put_all(BUFFER, {b"b": b"1"})
    cells.put(b"\x80o", b"a", b"1")
    assert cells.get(MAP, b"a") is None
    assert cells.cache.total_bytes == 0
    assert not cells.cache.cells()


def size_of(suffix: bytes, value: bytes | None) -> int:
    return CACHED_BYTES + len(MAP + suffix) + len(value or b"")


def forget_all(cells: Cells) -> int:
    """In how many steps of one cell."""
    times = 0
    while cells.cache.forget(1, 0):
        times += 1
    return times


def test_what_is_written_is_counted_as_it_is_then() -> None:
    cells = Cells(Store({MAP + b"b": b"22"}), 1 << 20)
    cells.put_all(MAP, {b"a": b"1"})
    cells.put_all(MAP, {b"a": b"1" * 1000, b"b": None})
    assert cells.cache.total_bytes == size_of(b"a", b"1" * 1000) + size_of(b"b", None)
    cells.cache.turn()
    cells.put(MAP, b"a", b"")
    cells.put(MAP, b"b", b"2")
    assert cells.cache.total_bytes == size_of(b"a", b"") + size_of(b"b", b"2")
    assert (forget_all(cells), cells.cache.young_cells) == (0, 2), "they are in one generation only"


def test_forgetting_is_bounded_by_number_and_by_size() -> None:
    cells = Cells(Store(), 1 << 20)
    suffixes = [number.to_bytes(4, "big") for number in range(100)]
    cells.put_all(MAP, dict.fromkeys(suffixes, b"1"))
    assert not cells.cache.forget(10, 0), "all are in use"
    cells.cache.turn()
    assert cells.cache.forget(10, 0)
    assert len(cells.cache.cells()) == 90
    size = size_of(suffixes[0], b"1")
    assert cells.cache.forget(1000, 50 * size + 1)
    assert len(cells.cache.cells()) == 50
    assert not cells.cache.forget(1000, 50 * size)
    assert forget_all(cells) == 50
    assert cells.cache.total_bytes == 0


def test_what_is_used_again_outlives_the_rest() -> None:
    store = Store({MAP + bytes([n]): b"1" for n in range(10)})
    cells = Cells(store, 1 << 20)
    for n in range(10):
        cells.read(MAP, bytes([n]))
    cells.cache.turn()
    assert cells.cache.young_cells == 0
    assert cells.read(MAP, b"\3") == b"1"
    assert (cells.cache.young_cells, cells.cache.total_bytes) == (1, 10 * size_of(b"\3", b"1"))
    assert forget_all(cells) == 9, "nine that nobody has used"
    assert cells.cache.total_bytes == size_of(b"\3", b"1")
    store.reads = 0
    assert cells.read(MAP, b"\3") == b"1"
    assert store.reads == 0
    assert cells.read(MAP, b"\4") == b"1"
    assert store.reads == 1


def test_what_is_read_without_room_is_not_kept() -> None:
    size = size_of(b"\0", b"1")
    store = Store({MAP + bytes([n]): b"1" for n in range(10)})
    cells = Cells(store, 4 * size)
    for n in range(10):
        assert cells.read(MAP, bytes([n])) == b"1"
    assert cells.cache.total_bytes == 4 * size
    cells.cache.turn()
    for n in range(4, 10):
        assert cells.read(MAP, bytes([n])) == b"1"
    assert cells.cache.total_bytes <= 4 * size, "the old ones have made room"
    assert MAP + b"\4" in cells.cache.cells()


def test_what_is_written_without_room_is_kept_and_makes_room() -> None:
    size = size_of(b"\0", b"1")
    cells = Cells(Store(), 4 * size)
    cells.put_all(MAP, {bytes([n]): b"1" for n in range(10)})
    assert cells.cache.total_bytes == 10 * size
    cells.cache.turn()
    cells.put_all(MAP, {b"x": b"1", b"y": b"1"})
    assert cells.cache.total_bytes == 8 * size, "four have gone for the two"


def test_who_looks_from_beside_moves_nothing() -> None:
    store = Store({MAP + b"a": b"1", MAP + b"c": b"3"})
    cells = Cells(store, 1 << 20)
    beside = CellsBeside(cells)
    cells.read(MAP, b"a")
    cells.put(MAP, b"b", b"2")
    cells.put(MAP, b"c", None)
    cells.cache.turn()
    store.reads = 0
    assert [beside.read(MAP, name) for name in (b"a", b"b", b"c")] == [b"1", b"2", None]
    assert store.reads == 0
    assert cells.cache.young_cells == 0
    forget_all(cells)
    assert [beside.read(MAP, name) for name in (b"a", b"b", b"c")] == [b"1", b"2", None]
    assert store.reads == 1
    assert cells.cache.cells() == {}


class Meanwhile(dict[bytes, Any]):
    """Calls ``act`` when somebody has looked for something, once: another thread goes on just there."""

    act: Callable[[], None] | None = None

    def get(self, key: bytes, default: Any = None) -> Any:
        found = super().get(key, default)
        act, self.act = self.act, None
        if act is not None:
            act()
        return found


@pytest.mark.parametrize("value", [b"new", None])
@pytest.mark.parametrize("place", ["young", "old", "changes", "frozen"])
@pytest.mark.parametrize("moves", ["cut", "apply", "abort", "abort and cut", "use", "turn", "turn and forget"])
def test_a_thread_that_looks_while_the_loop_goes_on_finds_the_newest(value: bytes | None, place: str, moves: str) -> None:
    """The entry was written before the thread looks. It looks in four places; while it is in one, the loop moves the entry."""
    store = Store({MAP + b"a": b"old"})
    cells = Cells(store, 1 << 20)
    cells.put(MAP, b"a", value)
    if moves != "cut":
        cells.freeze()

    def apply() -> None:
        assert cells.unapplied() == {MAP + b"a": value}
        if value is None:
            del store.stored[MAP + b"a"]
        else:
            store.stored[MAP + b"a"] = value
        cells.drop_frozen()

    def go_on() -> None:
        if moves == "cut":
            cells.freeze()
        elif moves == "apply":
            apply()
        elif moves.startswith("abort"):
            cells.merge_frozen()
            if moves.endswith("cut"):
                cells.freeze()
        elif moves == "use":
            cells.read(MAP, b"a")
        else:
            cells.cache.turn()
            if moves.endswith("forget"):
                forget_all(cells)

    cells.cache.turn()
    if moves in {"cut", "apply", "abort", "abort and cut"}:
        forget_all(cells)  # else the thread has it at once
    elif moves.startswith("turn"):
        cells.read(MAP, b"a")
    watched = Meanwhile()
    cache, (changes, frozen) = cells.cache, cells._layers
    number = hash(MAP + b"a") & STRIPE
    if place in {"young", "old"}:
        generation = cache.young if place == "young" else cache.old
        watched.update(generation[number])
        generation[number] = watched
    else:
        watched.update(changes if place == "changes" else frozen)
        cells._layers = (watched, frozen) if place == "changes" else (changes, watched)
    watched.act = go_on
    assert CellsBeside(cells).read(MAP, b"a") == value
    if watched.act is not None:
        watched.act = None
        go_on()  # it had found it before
    assert CellsBeside(cells).read(MAP, b"a") == value
    assert cells.read(MAP, b"a") == value


SUFFIXES = st.sampled_from([b"a", b"b", b"c", b"d"])
VALUES = st.sampled_from([b"", b"1", b"2", None])


class Life(RuleBasedStateMachine):
    """Against a dictionary, through checkpoints, aborts and generations."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.cells = Cells(self.store, 1 << 20)
        self.model: dict[bytes, bytes | None] = {}
        self.cut: dict[bytes, bytes | None] | None = None

    @rule(suffix=SUFFIXES)
    def read(self, suffix: bytes) -> None:
        assert self.cells.read(MAP, suffix) == self.model.get(suffix)

    @rule(suffix=SUFFIXES, value=VALUES)
    def put(self, suffix: bytes, value: bytes | None) -> None:
        self.cells.put(MAP, suffix, value)
        self.model[suffix] = value

    @rule(changes=st.dictionaries(SUFFIXES, VALUES))
    def put_all(self, changes: dict[bytes, bytes | None]) -> None:
        self.cells.put_all(MAP, changes)
        self.model |= changes

    @precondition(lambda self: self.cut is None)
    @rule()
    def freeze(self) -> None:
        self.cells.freeze()
        self.cut = {key: value for piece in self.cells.frozen_pieces(2) for key, value in zip(*piece, strict=True)}

    @precondition(lambda self: self.cut is not None)
    @rule()
    def apply(self) -> None:
        assert self.cut is not None
        for key, value in self.cut.items():
            if value is None:
                self.store.stored.pop(key, None)
            else:
                self.store.stored[key] = value
        self.cells.drop_frozen()
        self.cut = None

    @precondition(lambda self: self.cut is not None)
    @rule()
    def abort(self) -> None:
        self.cells.merge_frozen()
        self.cut = None

    @rule()
    def turn(self) -> None:
        forget_all(self.cells)
        self.cells.cache.turn()

    @rule()
    def forget_one(self) -> None:
        self.cells.cache.forget(1, 0)

    @rule(suffix=SUFFIXES)
    def look(self, suffix: bytes) -> None:
        assert CellsBeside(self.cells).read(MAP, suffix) == self.model.get(suffix)

    @invariant()
    def all_is_the_newest(self) -> None:
        kept = self.cells.cache.cells()
        for key, value in kept.items():
            assert value == self.model.get(key[len(MAP) :])
        assert self.cells.cache.total_bytes == sum(size_of(key[len(MAP) :], value) for key, value in kept.items())
        assert dict(self.cells.scan(MAP)) == {suffix: value for suffix, value in self.model.items() if value is not None}


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
