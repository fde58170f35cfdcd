"""State in memory: a checkpoint holds the values of its cut, and what has changed is never forgotten."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from single_core import DictStore, cells_of

from shardfun import App, Context, State, Value, value
from shardfun.core.function import RECORD_BYTES, CompiledFunction, state_key
from shardfun.core.limits import Limits
from shardfun.core.records import SWEEP_RECORDS, RecordTable
from shardfun.errors import PayloadTypeError


class Pair(State):
    n: Value[int] = value(0)
    items: Value[list[int]] = value(default_factory=list)


MAP_PREFIX = b"\0\1mt/f\0\0\1am\0"


def functions() -> list[CompiledFunction]:
    app = App("records")

    @app.function("t/f")
    def f(ctx: Context[Pair], message: int) -> None: ...

    @app.function("t/g")
    def g(ctx: Context[Pair], message: int) -> None: ...

    return app.compile()


FUNCTIONS = functions()


def table_of(store: dict[bytes, bytes], cache_bytes: int = 1 << 30) -> RecordTable:
    return RecordTable(FUNCTIONS, DictStore(store), Limits(cache_bytes=cache_bytes))


def use(table: RecordTable, typename: str, id: str) -> Any:
    """What a runner does before an invocation."""
    generation = table.generations[typename]
    record = generation.young.get(id)
    if record is None:
        record = table.load(generation, id)
    if record._epoch is not table.epoch:
        table.touch(record)
    return record


def change(table: RecordTable, typename: str, id: str, number: int) -> None:
    record = use(table, typename, id)
    record.n = number
    record.items.append(number)
    record._encoded_items = cbor2.dumps(record.items)
    table.mark_dirty(record)


def encode_all(table: RecordTable) -> dict[bytes, Any]:
    keys: list[bytes] = []
    values: list[Any] = []
    for piece in table.encode_frozen(2):
        keys += piece[0]
        values += piece[1]
    table.encoding_done()
    return {key: value if value is None else cbor2.loads(value) for key, value in zip(keys, values, strict=True)}


KEY = state_key("t/f", "a")


def test_what_is_encoded_is_the_value_of_the_cut() -> None:
    table = table_of({})
    change(table, "t/f", "a", 1)
    table.freeze()
    change(table, "t/f", "a", 2)  # touched before it is encoded: the pre-image counts
    change(table, "t/f", "a", 3)
    assert encode_all(table) == {KEY: {"n": 1, "items": [1]}}
    table.drop_frozen()
    table.freeze()
    assert encode_all(table) == {KEY: {"n": 3, "items": [1, 2, 3]}}


def test_no_pre_image_is_taken_when_none_is_needed() -> None:
    table = table_of({})
    change(table, "t/f", "a", 1)
    table.freeze()
    use(table, "t/f", "b")  # did not change before the cut
    encode_all(table)
    use(table, "t/f", "a")  # is encoded already
    assert table.frozen.pre_images == {}


def test_an_abort_keeps_the_next_cut_exact() -> None:
    """The trap of hard point 17: frozen, touched (but not changed), aborted, cut again, changed, and only then encoded."""
    table = table_of({})
    change(table, "t/f", "a", 1)
    change(table, "t/f", "b", 1)
    table.freeze()
    next(table.encode_frozen(1))
    use(table, "t/f", "a")
    use(table, "t/f", "b")
    table.merge_frozen()
    assert len(table.dirty) == 2
    change(table, "t/f", "b", 2)
    assert len(table.dirty) == 2, "on the list once"
    table.freeze()
    change(table, "t/f", "a", 7)
    change(table, "t/f", "b", 7)
    assert encode_all(table) == {KEY: {"n": 1, "items": [1]}, state_key("t/f", "b"): {"n": 2, "items": [1, 2]}}


def test_an_abort_merges_cells_under_newer_ones() -> None:
    table = table_of({})
    table.cells.put(b"x", b"", b"old")
    table.cells.put(b"y", b"", b"old")
    table.freeze()
    table.cells.put(b"y", b"", None)
    table.merge_frozen()
    assert cells_of(table) == {b"x": b"old", b"y": None}
    assert table.changed


def test_a_second_cut_needs_the_first_to_be_decided() -> None:
    table = table_of({})
    table.freeze()
    with pytest.raises(AssertionError):
        table.freeze()


def in_memory(table: RecordTable, typename: str = "t/f") -> set[str]:
    generation = table.generations[typename]
    assert not generation.young.keys() & generation.old.keys()
    return generation.young.keys() | generation.old.keys()


def sweep_all(table: RecordTable) -> int:
    times = 0
    while table.sweep():
        times += 1
        assert times < 100, "it does not end"
    return times


def test_what_fits_stays_whatever_is_used() -> None:
    table = table_of({}, cache_bytes=8 * RECORD_BYTES)
    for _ in range(3):
        for id in "abcdefgh":
            use(table, "t/f", id)
            assert not table.sweep()
    assert in_memory(table) == set("abcdefgh")


def test_a_record_in_use_stays_and_the_others_go_one_by_one() -> None:
    table = table_of({}, cache_bytes=4 * RECORD_BYTES)
    generation = table.generations["t/f"]
    for id in "abcde":
        use(table, "t/f", id)
    kept = generation.young["a"]
    sweep_all(table)  # too many by one: what was young becomes old, and one goes
    assert (len(in_memory(table)), generation.young) == (4, {})
    assert use(table, "t/f", "a") is kept
    for id in "xyz":
        use(table, "t/f", id)
        sweep_all(table)
        assert table.cached_bytes == 4 * RECORD_BYTES
    assert in_memory(table) == set("axyz")
    use(table, "t/f", "w")
    sweep_all(table)
    assert len(in_memory(table)) == 4
    assert table.cached_bytes == sum(r._size for part in (generation.young, generation.old) for r in part.values())


def test_what_has_changed_and_is_not_applied_is_kept_and_looked_at_once() -> None:
    table = table_of({}, cache_bytes=4 * RECORD_BYTES)
    for number in range(100):
        change(table, "t/f", str(number), 1)
    assert sweep_all(table) == 2  # a turn, and a look at all of them
    assert len(in_memory(table)) == 100
    for number in range(10):
        use(table, "t/f", f"new-{number}")
        assert sweep_all(table) == 0, "the others have been looked at"
    for number in range(10):
        use(table, "t/f", f"newer-{number}")
        sweep_all(table)
    assert len(in_memory(table)) < 110, "when an eighth is new, that goes"
    table.freeze()
    list(table.encode_frozen(1000))
    table.encoding_done()
    table.drop_frozen()
    for number in range(30):
        use(table, "t/f", f"later-{number}")
        sweep_all(table)
    assert table.cached_bytes <= 5 * RECORD_BYTES


def test_records_that_have_left_the_table_do_not_keep_the_sweeps_busy() -> None:
    table = table_of({}, cache_bytes=4 * RECORD_BYTES)
    for number in range(10):
        use(table, "t/f", str(number))
    table.generations["t/f"].young.clear()  # as those do that wait for another attempt
    assert sweep_all(table) == 0
    use(table, "t/f", "a")
    assert sweep_all(table) <= 2


def test_a_sweep_is_bounded() -> None:
    table = table_of({}, cache_bytes=RECORD_BYTES)
    for number in range(SWEEP_RECORDS + 10):
        use(table, "t/f", str(number))
    assert table.sweep()  # the turn
    assert table.sweep()
    assert len(in_memory(table)) == 10
    assert table.sweep()
    assert len(in_memory(table)) == 1
    assert not table.sweep()


def test_entries_of_maps_share_the_budget_however_many_are_written_at_once() -> None:
    limit = 1 << 20
    table = table_of({}, cache_bytes=limit)
    cache, most = table.cells.cache, 0
    for turn in range(100):
        table.cells.put_all(MAP_PREFIX, {(turn * 1000 + n).to_bytes(4, "big"): b"1" for n in range(1000)})
        table.sweep()
        most = max(most, cache.total_bytes)
    assert limit < most < 1.6 * limit
    sweep_all(table)
    assert cache.total_bytes <= limit
    use(table, "t/f", "a")
    sweep_all(table)
    assert cache.total_bytes + table.cached_bytes <= limit
    table.cells.put_all(MAP_PREFIX, {n.to_bytes(4, "big"): b"2" for n in range(16_000)})
    sweep_all(table)
    assert not table.generations["t/f"].young, "both begin anew"


def test_entries_that_one_function_reads_go_beyond_the_budget_by_a_quarter_at_most() -> None:
    limit = 1 << 20
    table = table_of({}, cache_bytes=limit)
    assert not table.sweep()
    for n in range(20_000):
        table.cells.read(MAP_PREFIX, n.to_bytes(4, "big"))
    assert 1.2 * limit < table.cells.cache.total_bytes <= 1.25 * limit
    sweep_all(table)
    assert table.cells.cache.total_bytes <= limit
    for n in range(20_000, 40_000):
        table.cells.read(MAP_PREFIX, n.to_bytes(4, "big"))
        if n % 100 == 0:
            table.sweep()
    sweep_all(table)
    assert 0.9 * limit < table.cells.cache.total_bytes <= limit
    newest = MAP_PREFIX + (39_999).to_bytes(4, "big")
    assert newest in table.cells.cache.cells()


def test_a_state_that_does_not_fit_is_not_kept() -> None:
    table = table_of({KEY: cbor2.dumps({"n": "text"})})
    with pytest.raises(PayloadTypeError):
        table.load(table.generations["t/f"], "a")
    assert table.cached_bytes == 0
    assert not table.generations["t/f"].young


def test_a_survivor_keeps_what_is_as_in_the_store() -> None:
    store = {state_key("t/f", id): cbor2.dumps({"n": 9, "items": [9]}) for id in "abcd"}
    before = table_of(store)
    for id in "abcd":
        use(before, "t/f", id)
    clean = before.generations["t/f"].young["a"]
    change(before, "t/f", "b", 1)
    before.freeze()
    change(before, "t/f", "c", 1)
    before.generations["t/f"].old["d"] = before.generations["t/f"].young.pop("d")
    after = table_of(store)
    after.adopt(before)
    assert use(after, "t/f", "a") is clean
    assert [use(after, "t/f", id).n for id in "abcd"] == [9] * 4
    assert after.dirty == []
    generation = after.generations["t/f"]
    assert after.cached_bytes == sum(r._size for part in (generation.young, generation.old) for r in part.values())


class Life(RuleBasedStateMachine):
    """Against two dictionaries: what is true now, and what was true at the cut."""

    def __init__(self) -> None:
        super().__init__()
        self.store: dict[bytes, bytes] = {}
        self.table = table_of(self.store, cache_bytes=6 * RECORD_BYTES)
        self.now: dict[tuple[str, str], tuple[int, list[int]]] = {}
        self.cut: dict[tuple[str, str], tuple[int, list[int]]] = {}
        self.stored: dict[tuple[str, str], tuple[int, list[int]]] = {}
        self.pieces: Any = iter(())
        self.keys: list[bytes] = []
        self.values: list[bytes | None] = []

    addresses = st.tuples(st.sampled_from(["t/f", "t/g"]), st.sampled_from("abcdefgh"))

    @rule(address=addresses)
    def read(self, address: tuple[str, str]) -> None:
        record = use(self.table, *address)
        assert (record.n, record.items) == self.now.get(address, (0, []))

    @rule(address=addresses, number=st.integers(1, 9))
    def write(self, address: tuple[str, str], number: int) -> None:
        change(self.table, *address, number)
        _, items = self.now.get(address, (0, []))
        self.now[address] = (number, [*items, number])

    @precondition(lambda self: self.table.frozen is None)
    @rule()
    def freeze(self) -> None:
        self.table.freeze()
        self.cut = dict(self.now)
        self.pieces = self.table.encode_frozen(2)
        self.keys, self.values = [], []

    @precondition(lambda self: self.table.frozen is not None and not self.table.frozen.encoded)
    @rule()
    def encode(self) -> None:
        piece = next(self.pieces, None)
        if piece is None:
            self.table.encoding_done()
        else:
            self.keys += piece[0]
            self.values += piece[1]

    @precondition(lambda self: self.table.frozen is not None and self.table.frozen.encoded)
    @rule()
    def apply(self) -> None:
        self.store.update(zip(self.keys, self.values, strict=True))
        self.table.drop_frozen()
        self.stored = self.cut
        assert {key: cbor2.loads(raw) for key, raw in self.store.items()} == {
            state_key(*address): {"n": n, "items": items} for address, (n, items) in self.stored.items()
        }

    @precondition(lambda self: self.table.frozen is not None)
    @rule()
    def abort(self) -> None:
        self.table.merge_frozen()

    @rule()
    def sweep(self) -> None:
        self.table.sweep()

    @rule()
    def recover(self) -> None:
        table = table_of(self.store, cache_bytes=6 * RECORD_BYTES)
        table.adopt(self.table)
        self.table, self.now = table, dict(self.stored)

    @invariant()
    def a_record_is_in_one_generation_and_counted_once(self) -> None:
        records = [
            record
            for generation in self.table.generations.values()
            for part in (generation.young, generation.old)
            for record in part.values()
        ]
        assert len({record._address for record in records}) == len(records)
        assert self.table.cached_bytes == sum(record._size for record in records)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
