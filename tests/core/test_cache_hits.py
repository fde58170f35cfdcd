"""How often state is found in memory: of 100 times at most 3 less than with a list of the least recently used (docs/decisions/031)."""

from __future__ import annotations

import bisect
import itertools
import random
from collections import OrderedDict

import pytest
from single_core import DictStore

from shardfun import App, Context, State, Value, value
from shardfun.core.cell_cache import CACHED_BYTES
from shardfun.core.cells import Cells
from shardfun.core.function import RECORD_BYTES
from shardfun.core.limits import Limits
from shardfun.core.records import RecordTable

ROOM = 1000
ACCESSES = 30_000
LESS = ACCESSES * 3 // 100
MAP = b"\0\1mt/f\0\0\1am\0"


class Number(State):
    n: Value[int] = value(0)


class Counting(DictStore):
    """A store of nothing that counts the reads."""

    def __init__(self) -> None:
        super().__init__({})
        self.reads = 0

    def get(self, key: bytes) -> bytes | None:
        self.reads += 1
        return super().get(key)


def least_recently_used(accesses: list[int]) -> int:
    """How many are found."""
    hits, kept = 0, OrderedDict[int, None]()
    for number in accesses:
        hits += number in kept
        kept[number] = None
        kept.move_to_end(number)
        if len(kept) > ROOM:
            kept.popitem(last=False)
    return hits


def evenly(count: int) -> list[int]:
    chance = random.Random(1)
    return [chance.randrange(count) for _ in range(ACCESSES)]


def zipf(count: int) -> list[int]:
    chance = random.Random(2)
    sums = list(itertools.accumulate(1 / rank for rank in range(1, count + 1)))
    return [bisect.bisect(sums, chance.random() * sums[-1]) for _ in range(ACCESSES)]


def sessions(active: int, messages: int) -> list[int]:
    chance, now, accesses = random.Random(3), list(range(active)), []
    begun = active
    for _ in range(ACCESSES):
        at = chance.randrange(active)
        accesses.append(now[at])
        if chance.random() < 1 / messages:
            now[at], begun = begun, begun + 1
    return accesses


def hot_and_scan(hot: int) -> list[int]:
    chance = random.Random(4)
    return [chance.randrange(hot) if chance.random() < 0.7 else hot + number for number in range(ACCESSES)]


PATTERNS = {
    "half of the room": evenly(ROOM // 2),
    "most of the room": evenly(ROOM * 8 // 10),
    "more than the room": evenly(ROOM * 12 // 10),
    "twice the room": evenly(ROOM * 2),
    "Zipf": zipf(ROOM * 10),
    "sessions": sessions(ROOM * 7 // 10, 20),
    "hot and a scan": hot_and_scan(ROOM * 4 // 10),
    "one after the other": [number % (ROOM * 12 // 10) for number in range(ACCESSES)],
}


def table_for(store: Counting, cache_bytes: int) -> RecordTable:
    app = App("hits")

    @app.function("t/f")
    def count(ctx: Context[Number], message: int) -> None:
        ctx.state.n += message

    return RecordTable(app.compile(), store, Limits(cache_bytes=cache_bytes))


@pytest.mark.parametrize("accesses", PATTERNS.values(), ids=PATTERNS)
def test_records_are_found_as_often_as_the_least_recently_used(accesses: list[int]) -> None:
    store = Counting()
    table = table_for(store, ROOM * RECORD_BYTES)
    generation = table.generations["t/f"]
    for number in accesses:
        if str(number) not in generation.young:
            table.load(generation, str(number))
        while table.sweep():
            pass
        assert table.cached_bytes <= ROOM * RECORD_BYTES
    assert ACCESSES - store.reads >= least_recently_used(accesses) - LESS


@pytest.mark.parametrize("accesses", PATTERNS.values(), ids=PATTERNS)
def test_entries_are_found_as_often_as_the_least_recently_used(accesses: list[int]) -> None:
    store = Counting()
    budget = ROOM * (CACHED_BYTES + len(MAP) + 4)
    table = table_for(store, budget)
    cells: Cells = table.cells
    for number in accesses:
        cells.read(MAP, number.to_bytes(4, "big"))
        while table.sweep():
            pass
        assert cells.cache.total_bytes <= budget
    assert ACCESSES - store.reads >= least_recently_used(accesses) - LESS
