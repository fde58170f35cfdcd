"""The cache of cells: what is hot is not read from the store, and nobody ever sees an older value than the newest."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shardfun.core.cell_cache import CACHED_BYTES
from shardfun.core.cells import Cells

MAP = b"\0\1mt/f\0\0\1am\0"
BUFFER = b"\0\1bt/f\0\0\1ab\0"


class Store:
    """A dict that counts the reads, and calls ``during`` in the middle of one."""

    def __init__(self, stored: dict[bytes, bytes] | None = None) -> None:
        self.stored = {} if stored is None else stored
        self.reads = 0
        self.during: Callable[[], None] | None = None

    def get(self, key: bytes) -> bytes | None:
        self.reads += 1
        found = self.stored.get(key)
        during, self.during = self.during, None
        if during is not None:
            during()
        return found

    def scan(self, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        return iter(sorted(item for item in self.stored.items() if item[0] >= prefix + start and item[0].startswith(prefix)))


def test_an_entry_is_read_from_the_store_once() -> None:
    store = Store({MAP + b"a": b"1"})
    cells = Cells(store)
    assert [cells.read(MAP, b"a") for _ in range(3)] == [b"1"] * 3
    assert [cells.read(MAP, b"absent") for _ in range(3)] == [None] * 3
    assert store.reads == 2


def test_what_is_written_is_still_there_when_it_is_applied() -> None:
    store = Store()
    cells = Cells(store)
    cells.put_all(MAP, {b"a": b"1", b"b": b"2"})
    cells.put(MAP, b"b", None)
    cells.freeze()
    cells.drop_frozen()  # the store knows nothing of it, so whatever is found was kept
    assert (cells.read(MAP, b"a"), cells.read(MAP, b"b"), store.reads) == (b"1", None, 0)


def test_only_maps_are_kept() -> None:
    cells = Cells(Store())
    cells.put(BUFFER, b"a", b"1")
    cells.put_all(BUFFER, {b"b": b"1"})
    cells.put(b"\x80o", b"a", b"1")
    assert cells.get(MAP, b"a") is None
    assert cells.cache.total_bytes == 0
    assert not cells.cache.cells()


def swept(cells: Cells, limit: int) -> int:
    times = 0
    while cells.cache.sweep(limit):
        times += 1
    return times


def test_a_sweep_is_bounded() -> None:
    cells = Cells(Store())
    cells.put_all(MAP, {number.to_bytes(4, "big"): b"" for number in range(3200)})
    cells.cache.turn()
    assert swept(cells, 10) == 0
    cells.cache.turn()
    assert swept(cells, 10) == 320


def test_what_is_used_again_outlives_the_rest() -> None:
    store = Store({MAP + bytes([n]): b"1" for n in range(10)})
    cells = Cells(store)
    for n in range(10):
        cells.read(MAP, bytes([n]))
    size = CACHED_BYTES + len(MAP) + 2
    assert cells.cache.young_bytes == cells.cache.total_bytes == 10 * size
    cells.cache.turn()
    assert (cells.cache.young_bytes, cells.cache.total_bytes) == (0, 10 * size)
    assert cells.read(MAP, b"\3") == b"1"
    assert (cells.cache.young_bytes, cells.cache.total_bytes) == (size, 10 * size)
    cells.cache.turn()
    assert swept(cells, 1) == 9, "nine that nobody has used"
    assert cells.cache.total_bytes == size
    store.reads = 0
    assert cells.read(MAP, b"\3") == b"1"
    assert store.reads == 0
    assert cells.read(MAP, b"\4") == b"1"
    assert store.reads == 1


@pytest.mark.parametrize("turns_before", [0, 1])
@pytest.mark.parametrize("turns_after", [0, 1, 2])
@pytest.mark.parametrize("new", [b"new", None])
def test_a_reader_in_a_thread_never_hides_what_was_committed_meanwhile(
    turns_before: int, turns_after: int, new: bytes | None
) -> None:
    """The read of the store takes so long that a commit, and whole generations, pass in between."""
    store = Store({MAP + b"a": b"old"})
    cells = Cells(store)

    def turn() -> None:
        swept(cells, 10)
        cells.cache.turn()

    def meanwhile() -> None:
        for _ in range(turns_before):
            turn()
        cells.put_all(MAP, {b"a": new})
        for _ in range(turns_after):
            turn()
        cells.freeze()

    store.during = meanwhile
    assert cells.read(MAP, b"a") in {b"old", new}, "it began before the commit"
    for _ in range(3):
        assert cells.read(MAP, b"a") == new
        turn()


def test_a_sweep_meets_a_reader_that_takes_the_last_cell() -> None:
    cells = Cells(Store())
    cells.read(MAP, b"a")
    cells.cache.turn()

    class Late(dict[bytes, bytes | None]):
        def popitem(self) -> tuple[bytes, bytes | None]:
            self.clear()  # a thread was here
            return super().popitem()

    cells.cache._old = [Late(stripe) for stripe in cells.cache._old]
    cells.cache.turn()
    assert cells.cache.sweep(10)
    assert not cells.cache.sweep(10)


SUFFIXES = st.sampled_from([b"a", b"b", b"c", b"d"])
VALUES = st.sampled_from([b"", b"1", b"2", None])


class Life(RuleBasedStateMachine):
    """Against a dictionary, through checkpoints, aborts and generations."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.cells = Cells(self.store)
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
        swept(self.cells, 1)
        self.cells.cache.turn()

    @invariant()
    def all_is_the_newest(self) -> None:
        for key, value in self.cells.cache.cells().items():
            assert value == self.model.get(key[len(MAP) :])
        assert dict(self.cells.scan(MAP)) == {suffix: value for suffix, value in self.model.items() if value is not None}


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
