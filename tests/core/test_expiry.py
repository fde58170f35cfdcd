"""Expiry: what has expired is at its default at once, and leaves the disk by itself."""

from __future__ import annotations

import gc
import itertools
import weakref
from typing import Any

import cbor2
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from invoking import TYPENAME, FailedError, Invoking
from single_core import record_of

from shardfun import Buffer, Context, Map, Registry, State, Value, after_access, after_write, buffer, mapping, registry, value
from shardfun.core.cells import Stored
from shardfun.core.expiry import PEEK_SLOTS_MAX
from shardfun.core.limits import Limits
from shardfun.core.options import FunctionOptions
from shardfun.errors import DefinitionError

SECOND = 1000
TTL = 160 * SECOND
LIMITS = Limits(retries=0, expiry_round_ms=10 * SECOND)


class Thing(State):
    w: Value[int] = value(0, expire=after_write(seconds=160))
    a: Value[int] = value(0, expire=after_access(seconds=160))
    items: Value[list[int]] = value(default_factory=list, expire=after_write(seconds=160))
    stays: Value[int] = value(0)
    mw: Map[str, int] = mapping(expire=after_write(seconds=160))
    ma: Map[str, list[int]] = mapping(expire=after_access(seconds=160))
    bw: Buffer[int] = buffer(expire=after_write(seconds=160))
    ba: Buffer[int] = buffer(expire=after_access(seconds=160))
    extra: Registry = registry()


@pytest.fixture
def thing() -> Invoking:
    return Invoking(Thing, limits=LIMITS)


def state_of(ctx: Context[Thing]) -> dict[str, Any]:
    """Without reading single values: the read of an after_access one would count."""
    s = ctx.state
    return {"w": s.w, "items": s.items, "mw": dict(s.mw.items()), "bw": list(s.bw)}


def sweep(invoking: Invoking, rounds: int = 1) -> None:
    """Let the background work go on for so many rounds."""
    core = invoking.core
    core.expire()
    for _ in range(rounds):
        assert core.wake_at_ms is not None
        for piece in itertools.count():
            assert piece < 10_000
            assert core.wake_at_ms is not None
            invoking.now_ms = max(invoking.now_ms, core.wake_at_ms)
            core.advance(invoking.now_ms / 1000)
            core.expire()
            if core.wake_at_ms is None or core.wake_at_ms > invoking.now_ms + LIMITS.expiry_pause_ms:
                break
        if core.wake_at_ms is None:
            break


# ---- values ------------------------------------------------------------------------------------------------------------
def test_a_value_expires_after_its_last_write(thing: Invoking) -> None:
    thing.do(lambda ctx: setattr(ctx.state, "w", 5))
    thing.pass_ms(TTL - 1)
    assert thing.do(lambda ctx: (ctx.state.w, "w" in ctx.state)) == (5, True)
    thing.pass_ms(1)
    assert thing.do(lambda ctx: ("w" in ctx.state, ctx.state.w)) == (False, 0)
    assert thing.stored_record() is None, "and it is gone"


def test_writing_an_equal_value_renews_and_reading_does_not(thing: Invoking) -> None:
    thing.do(lambda ctx: setattr(ctx.state, "w", 5))
    thing.pass_ms(TTL - 1)
    thing.do(lambda ctx: ctx.state.w)
    thing.do(lambda ctx: setattr(ctx.state, "w", 5))
    thing.pass_ms(TTL - 1)
    assert thing.do(lambda ctx: ctx.state.w) == 5
    thing.pass_ms(1)
    assert thing.do(lambda ctx: ctx.state.w) == 0


def test_a_read_renews_when_that_is_worth_a_write(thing: Invoking) -> None:
    thing.do(lambda ctx: setattr(ctx.state, "a", 5))
    thing.checkpoint()
    thing.pass_ms(TTL // 16)
    thing.do(lambda ctx: ctx.state.a)
    assert not thing.core.table.changed, "a sixteenth is not worth it"
    thing.pass_ms(1)
    thing.do(lambda ctx: ctx.state.stays)
    thing.do(lambda ctx: ctx.state.w)
    assert not thing.core.table.changed, "it was not read"
    thing.do(lambda ctx: ctx.state.a)
    assert thing.core.table.changed
    thing.pass_ms(TTL - 1)
    assert thing.do(lambda ctx: ctx.state.a) == 5
    thing.pass_ms(TTL)
    assert thing.do(lambda ctx: ctx.state.a) == 0


def test_a_change_in_place_is_a_write(thing: Invoking) -> None:
    thing.do(lambda ctx: ctx.state.items.append(1))
    thing.pass_ms(TTL - 1)
    thing.do(lambda ctx: ctx.state.items.append(2))
    thing.pass_ms(TTL - 1)
    assert thing.do(lambda ctx: ctx.state.items) == [1, 2]
    thing.pass_ms(1)
    assert thing.do(lambda ctx: ctx.state.items) == []


def test_a_value_at_its_default_has_no_deadline(thing: Invoking) -> None:
    thing.do(lambda ctx: [setattr(ctx.state, "w", 5), setattr(ctx.state, "stays", 1)])
    assert thing.stored_record()["~"]["x"] == {"w": thing.now_ms + TTL}
    thing.do(lambda ctx: delattr(ctx.state, "w"))
    assert "~" not in thing.stored_record()


def test_a_failed_invocation_renews_nothing(thing: Invoking) -> None:
    def fail(ctx: Context[Thing]) -> None:
        ctx.state.w = 6
        raise ValueError

    thing.do(lambda ctx: setattr(ctx.state, "w", 5))
    thing.pass_ms(TTL - 1)
    with pytest.raises(FailedError):
        thing.do(fail)
    thing.pass_ms(1)
    assert thing.do(lambda ctx: ctx.state.w) == 0


# ---- maps, buffers, registered states ----------------------------------------------------------------------------------
def test_each_entry_of_a_map_expires_on_its_own(thing: Invoking) -> None:
    thing.do(lambda ctx: ctx.state.mw.update({"a": 1, "b": 2}))
    thing.pass_ms(TTL // 2)
    thing.do(lambda ctx: ctx.state.mw.update({"b": 2, "c": 3}))
    thing.pass_ms(TTL // 2)
    assert thing.do(lambda ctx: (dict(ctx.state.mw.items()), "a" in ctx.state.mw, ctx.state.mw.count())) == (
        {"b": 2, "c": 3},
        False,
        2,
    )
    with pytest.raises(FailedError, match="KeyError"):
        thing.do(lambda ctx: ctx.state.mw["a"])
    thing.pass_ms(TTL)
    assert thing.do(lambda ctx: (bool(ctx.state.mw), list(ctx.state.mw))) == (False, [])


@pytest.mark.parametrize(
    "read", [lambda m: m["a"], lambda m: list(m.items()), lambda m: list(m.values()), lambda m: m.get("a")]
)
def test_reading_an_entry_renews_it(thing: Invoking, read: Any) -> None:
    thing.do(lambda ctx: ctx.state.ma.update({"a": [1]}))
    thing.checkpoint()
    for _ in range(3):
        thing.pass_ms(TTL - 1)
        thing.do(lambda ctx: read(ctx.state.ma))
        thing.checkpoint()
    thing.do(lambda ctx: read(ctx.state.ma))
    assert not thing.core.table.changed
    thing.pass_ms(TTL - 1)
    assert thing.do(lambda ctx: (list(ctx.state.ma), "a" in ctx.state.ma)) == (["a"], True)
    thing.pass_ms(1)
    assert thing.do(lambda ctx: list(ctx.state.ma)) == [], "keys and `in` are no reads"


def test_elements_of_a_buffer_expire_one_by_one(thing: Invoking) -> None:
    thing.do(lambda ctx: ctx.state.bw.append_all([1, 2]))
    thing.pass_ms(TTL // 2)
    thing.do(lambda ctx: ctx.state.bw.append(3))
    thing.checkpoint()
    thing.pass_ms(TTL // 2)
    assert thing.do(lambda ctx: (len(ctx.state.bw), list(ctx.state.bw))) == (1, [3])
    thing.do(lambda ctx: ctx.state.bw.append(4))
    assert thing.do(lambda ctx: list(ctx.state.bw)) == [3, 4]
    thing.pass_ms(TTL)
    assert thing.do(lambda ctx: (len(ctx.state.bw), list(ctx.state.bw), bool(ctx.state.bw))) == (0, [], False)
    assert thing.everything_stored() == {}


def test_a_clock_that_goes_back_leaves_no_hole_in_a_buffer(thing: Invoking) -> None:
    thing.do(lambda ctx: ctx.state.bw.append(1))
    thing.pass_ms(-TTL // 2)
    thing.do(lambda ctx: ctx.state.bw.append(2))
    thing.pass_ms(TTL)
    assert thing.do(lambda ctx: (len(ctx.state.bw), list(ctx.state.bw))) == (2, [1, 2])
    thing.pass_ms(TTL // 2)
    assert thing.do(lambda ctx: (len(ctx.state.bw), list(ctx.state.bw))) == (0, [])


def test_a_buffer_as_a_whole_expires_after_the_last_access(thing: Invoking) -> None:
    thing.do(lambda ctx: ctx.state.ba.append_all([1, 2]))
    thing.pass_ms(TTL - 1)
    thing.do(lambda ctx: ctx.state.ba.append(3))
    thing.pass_ms(TTL - 1)
    assert thing.do(lambda ctx: len(ctx.state.ba)) == 3
    thing.pass_ms(TTL - 1)
    thing.do(lambda ctx: ctx.state.stays)
    assert thing.do(lambda ctx: list(ctx.state.ba)) == [1, 2, 3]
    thing.pass_ms(TTL)
    assert thing.do(lambda ctx: list(ctx.state.ba)) == []
    assert thing.everything_stored() == {}


def test_registered_states_expire(thing: Invoking) -> None:
    def use(ctx: Context[Thing]) -> Any:
        extra = ctx.state.extra
        n = extra.value("n", int, default=7, expire=after_write(seconds=160))
        m = extra.map("m", str, int, expire=after_write(seconds=160))
        b = extra.buffer("b", int, expire=after_access(seconds=160))
        return n, m, b

    def make(ctx: Context[Thing]) -> None:
        n, m, b = use(ctx)
        n.set(8)
        m["a"] = 1
        b.append(1)

    def look(ctx: Context[Thing]) -> Any:
        n, m, b = use(ctx)
        return n.get(), dict(m.items()), list(b)

    thing.do(make)
    thing.checkpoint()
    thing.pass_ms(TTL - 1)
    assert thing.do(look) == (8, {"a": 1}, [1])
    thing.pass_ms(1)
    assert thing.do(look) == (7, {}, [1])
    thing.pass_ms(TTL)
    assert thing.do(look) == (7, {}, [])
    assert thing.do(lambda ctx: ctx.state.extra.names()) == ["b", "m", "n"]


def test_a_stored_deadline_counts_also_when_the_declaration_has_changed() -> None:
    class Expiring(State):
        m: Map[str, int] = mapping(expire=after_write(seconds=160))

    class Staying(State):
        m: Map[str, int] = mapping()

    first, second = Invoking(Expiring), Invoking(Staying)
    second.do(lambda ctx: ctx.state.m.update({"old": 0}))
    second.checkpoint()
    first.stored.update(second.stored)
    first.do(lambda ctx: ctx.state.m.update({"a": 1}))
    first.checkpoint()
    second.stored.update(first.stored)
    assert second.do(lambda ctx: dict(ctx.state.m.items())) == {"a": 1, "old": 0}
    for each in (first, second):
        each.pass_ms(TTL)
        assert each.do(lambda ctx: dict(ctx.state.m.items())) == {"old": 0}


# ---- instances ---------------------------------------------------------------------------------------------------------
class Idle(State):
    n: Value[int] = value(0)
    items: Value[list[int]] = value(default_factory=list)
    m: Map[int, int] = mapping()
    b: Buffer[int] = buffer()
    extra: Registry = registry()


def idle() -> Invoking:
    return Invoking(Idle, limits=LIMITS, expire_idle=160)


def fill_idle(ctx: Context[Idle]) -> None:
    ctx.state.n = 5
    ctx.state.items.append(1)
    ctx.state.m.update((number, number) for number in range(20))
    ctx.state.b.append_all(range(20))
    ctx.state.extra.map("m", str, int)["a"] = 1
    ctx.state.extra.buffer("b", str).append("x")
    ctx.state.extra.value("v", int, default=0).set(1)


def test_an_idle_instance_is_as_if_deleted_when_the_next_message_comes() -> None:
    thing = idle()
    thing.do(fill_idle)
    thing.checkpoint()
    thing.pass_ms(TTL - 1)
    assert thing.do(lambda ctx: (ctx.state.n, len(ctx.state.b))) == (5, 20)
    thing.pass_ms(TTL)

    def look(ctx: Context[Idle]) -> None:
        assert (ctx.state.n, ctx.state.items, list(ctx.state.m), list(ctx.state.b), ctx.state.extra.names()) == (
            0,
            [],
            [],
            [],
            [],
        )
        ctx.state.m[100] = 1

    thing.do(look)
    assert thing.do(lambda ctx: list(ctx.state.m)) == [100]
    kinds = sorted(key[2:3] for key in thing.everything_stored())
    assert kinds == [b"m", b"s"]
    thing.do(lambda ctx: ctx.delete_instance())
    assert thing.everything_stored() == {}


def test_a_message_puts_the_end_off_but_not_each_time_a_write() -> None:
    thing = idle()
    thing.do(lambda ctx: setattr(ctx.state, "n", 5))
    thing.checkpoint()
    thing.pass_ms(TTL // 16)
    thing.do(lambda ctx: None)
    assert not thing.core.table.changed
    thing.pass_ms(1)
    thing.do(lambda ctx: None)
    assert thing.stored_record()["~"] == {"i": thing.now_ms + TTL}


def test_a_message_to_nobody_makes_no_instance() -> None:
    thing = idle()
    thing.do(lambda ctx: ctx.state.n)
    assert not thing.core.table.changed


def test_an_instance_from_before_the_declaration_begins_its_time_with_the_first_look() -> None:
    before = Invoking(Idle)
    before.do(fill_idle)
    before.checkpoint()
    thing = idle()
    thing.stored.update(before.stored)
    thing.pass_ms(10 * TTL)
    sweep(thing)
    record = thing.stored_record()
    assert record is not None
    assert record["n"] == 5
    assert abs(record["~"]["i"] - thing.now_ms - TTL) < SECOND
    thing.pass_ms(TTL + SECOND)
    sweep(thing)
    assert thing.everything_stored() == {}


# ---- in the background -------------------------------------------------------------------------------------------------
def fill(ctx: Context[Thing]) -> None:
    ctx.state.w = 5
    ctx.state.items.append(1)
    ctx.state.stays = 1
    ctx.state.mw.update({"a": 1, "b": 2})
    ctx.state.ma["a"] = [1]
    ctx.state.bw.append_all([1, 2, 3])
    ctx.state.ba.append_all([1, 2, 3])
    ctx.state.extra.value("v", int, default=0, expire=after_write(seconds=160)).set(1)
    ctx.state.extra.map("m", str, int, expire=after_write(seconds=160))["a"] = 1
    ctx.state.extra.buffer("b", int, expire=after_write(seconds=160)).append(1)


@pytest.mark.parametrize("in_memory", [True, False])
def test_what_has_expired_leaves_the_disk_by_itself(thing: Invoking, *, in_memory: bool) -> None:
    ids = [f"id{number}" for number in range(40)]
    for id in ids:
        thing.do(fill, id)
    thing.checkpoint()
    thing.pass_ms(TTL // 2)
    for id in ids[:3]:
        thing.do(fill, id)
    if not in_memory:
        thing.checkpoint()
        thing.restart()
    thing.pass_ms(TTL // 2)
    thing.checkpoint()
    sweep(thing)
    assert thing.core.changed
    thing.checkpoint()
    left = sorted({key[3:] for key in thing.stored if key[2:3] not in {b"s", b"r"}})
    assert all(any(id.encode() in key for id in ids[:3]) for key in left), "what was renewed is there, the rest is not"
    assert thing.do(state_of, ids[0]) == {
        "w": 5,
        "items": [1, 1],
        "mw": {"a": 1, "b": 2},
        "bw": [1, 2, 3],
    }
    thing.checkpoint()
    sweep(thing, 40)
    thing.checkpoint()
    assert {key[2:3] for key in thing.stored} == {b"s", b"r"}
    for key, raw in thing.stored.items():
        if key[2:3] == b"s":
            assert cbor2.loads(raw) == {"w": 0, "a": 0, "items": [], "stays": 1}
        else:
            assert set(cbor2.loads(raw)) == {"kind", "type"}, "registrations stay, without values"


def test_an_idle_instance_leaves_the_disk_piece_by_piece() -> None:
    limits = Limits(retries=0, expiry_round_ms=10 * SECOND, expiry_keys=7)
    thing = Invoking(Idle, limits=limits, expire_idle=160)
    thing.do(fill_idle)
    thing.do(lambda ctx: setattr(ctx.state, "n", 1), "other")
    thing.checkpoint()
    thing.pass_ms(TTL - 1)
    thing.do(lambda ctx: None, "other")
    thing.checkpoint()
    thing.pass_ms(1)
    sizes = [len(thing.stored)]
    while thing.core.expire() or thing.core.wake_at_ms is not None:
        thing.pass_ms(max(0, thing.core.wake_at_ms - thing.now_ms))
        before = len(thing.core.table.cells.unapplied())
        thing.core.expire()
        assert len(thing.core.table.cells.unapplied()) - before <= 7, "a bounded piece"
        if thing.core.changed:
            thing.checkpoint()
            thing.core.changed = False
            sizes.append(len(thing.stored))
        if len(thing.stored) == 1:
            break
    assert len(sizes) > 6
    assert sizes == sorted(sizes, reverse=True)
    (key,) = thing.stored
    assert key.endswith(b"other")


def test_a_message_in_the_middle_of_a_deletion_finds_nothing_and_ends_it() -> None:
    limits = Limits(retries=0, expiry_round_ms=10 * SECOND, expiry_keys=7)
    thing = Invoking(Idle, limits=limits, expire_idle=160)
    thing.do(fill_idle)
    thing.checkpoint()
    thing.pass_ms(TTL)
    thing.core.expire()
    while not thing.core.table.cells.unapplied():
        thing.pass_ms(max(1, thing.core.wake_at_ms - thing.now_ms))
        thing.core.expire()
    thing.checkpoint()
    assert any(key[2:3] == b"m" for key in thing.stored), "it is in the middle"
    thing.pass_ms(-TTL)  # nor does a clock that goes back bring half of it to life

    def use(ctx: Context[Idle]) -> None:
        assert (ctx.state.n, list(ctx.state.m), list(ctx.state.b), ctx.state.extra.names()) == (0, [], [], [])
        ctx.state.m[1000] = 1

    thing.do(use)
    for _ in range(20):
        thing.pass_ms(20)
        thing.core.expire()
    assert thing.do(lambda ctx: list(ctx.state.m)) == [1000]
    assert sorted(key[2:3] for key in thing.everything_stored()) == [b"m", b"s"]


def test_a_buffer_is_trimmed_also_where_the_way_to_it_takes_a_whole_piece() -> None:
    thing = Invoking(Thing, limits=Limits(retries=0, expiry_round_ms=10 * SECOND, expiry_keys=1))

    def fill(ctx: Context[Thing]) -> None:
        ctx.state.stays = 1
        ctx.state.bw.append_all([1, 2, 3])

    thing.do(fill)
    thing.checkpoint()
    thing.pass_ms(TTL)
    sweep(thing, 3)
    thing.checkpoint()
    assert {key[2:3] for key in thing.stored} == {b"s"}


def test_busy_addresses_are_left_alone() -> None:
    thing = idle()
    thing.do(fill_idle)
    before = thing.everything_stored()
    target = thing.core.dispatcher.types[TYPENAME]
    target.blocked["a"] = object()
    thing.pass_ms(TTL)
    sweep(thing, 2)
    assert thing.everything_stored() == before
    del target.blocked["a"]
    sweep(thing)
    assert thing.everything_stored() == {}


def test_rounds_are_no_denser_than_asked_for(thing: Invoking) -> None:
    thing.do(lambda ctx: setattr(ctx.state, "w", 5))
    thing.checkpoint()
    started = thing.now_ms
    sweep(thing, 5)
    assert thing.now_ms - started >= 5 * LIMITS.expiry_round_ms
    assert thing.now_ms - started < 6 * LIMITS.expiry_round_ms
    assert not thing.core.table.changed


def test_a_short_time_to_live_makes_rounds_denser_but_not_without_end() -> None:
    class Short(State):
        n: Value[int] = value(0, expire=after_write(seconds=8))

    class VeryShort(State):
        n: Value[int] = value(0, expire=after_write(seconds=0.01))

    for cls, expected in ((Short, 2 * SECOND), (VeryShort, SECOND)):
        thing = Invoking(cls)
        thing.core.expire()
        assert thing.core.wake_at_ms == thing.now_ms + expected


def test_without_expiry_nothing_is_looked_at_and_nobody_wakes_up() -> None:
    class Plain(State):
        m: Map[str, int] = mapping()

    thing = Invoking(Plain)
    thing.core.table.cells._store = None  # type: ignore[assignment]
    thing.pass_ms(100 * TTL)
    thing.core.expire()
    assert thing.core.wake_at_ms is None


def test_a_registry_is_looked_at_once_and_then_only_if_something_in_it_expires() -> None:
    class Only(State):
        extra: Registry = registry()

    thing = Invoking(Only)
    thing.do(lambda ctx: ctx.state.extra.value("n", int, default=0).set(5))
    thing.checkpoint()
    sweep(thing)
    thing.core.expire()
    assert thing.core.wake_at_ms is None, "nothing that expires was found"
    thing.do(lambda ctx: ctx.state.extra.value("e", int, default=0, expire=after_write(seconds=160)).set(5))
    thing.checkpoint()
    thing.pass_ms(TTL)
    sweep(thing)
    thing.checkpoint()
    assert [set(cbor2.loads(raw)) for raw in thing.stored.values()] == [{"kind", "type", "value"}, {"kind", "type"}]
    thing.restart()
    thing.core.expire()
    assert thing.core.wake_at_ms is not None, "a new process has to look"


def test_sweeping_keeps_the_cache() -> None:
    thing = idle()
    for number in range(30):
        thing.do(lambda ctx: setattr(ctx.state, "n", 1), f"id{number}")
    thing.checkpoint()
    thing.restart()
    used = {f"id{number}" for number in range(5)}
    for id in used:
        thing.do(lambda ctx: ctx.state.n, id)
    sweep(thing)
    assert set(thing.core.table.generations[TYPENAME].young) == used, "what has not expired is not loaded"


class Watched:
    """A store that counts scans."""

    def __init__(self, store: Stored) -> None:
        self._store = store
        self.scans = 0

    def get(self, key: bytes) -> bytes | None:
        return self._store.get(key)

    def scan(self, prefix: bytes = b"", start: bytes = b"") -> Any:
        self.scans += 1
        return self._store.scan(prefix, start)


def test_a_round_over_few_keys_takes_few_scans_and_over_foreign_ones_not_too_many() -> None:
    thing = idle()
    for number in range(10):
        thing.do(lambda ctx: setattr(ctx.state, "n", 1), f"id{number}")
    thing.checkpoint()
    watched = thing.core.table.cells._store = Watched(thing.core.table.cells._store)
    sweep(thing)
    assert watched.scans < 10 * 8 + 10
    slots = 2000
    thing.stored.clear()
    thing.stored.update({slot.to_bytes(2, "big") + b"sz/z\0x": cbor2.dumps({}) for slot in range(slots)})
    watched.scans = 0
    sweep(thing)
    assert watched.scans < 3 * slots * (1 + 2 / PEEK_SLOTS_MAX) + 100


def test_functions_of_a_namespace_are_swept_also_before_anybody_sends_to_them() -> None:
    from single_core import core_of, put, run_all

    from shardfun import App

    app = App("names")

    @app.function("n/*", expire_idle=160)
    def wild(ctx: Context[Idle], message: int) -> None:
        ctx.state.n = message

    @app.function("n/exact")
    def exact(ctx: Context[Idle], message: int) -> None:
        ctx.state.n = message

    thing = Invoking(Idle)
    thing.app = app
    thing._limits = LIMITS
    thing.core = thing._core(None)
    for typename in ("n/one", "n/two", "n/exact"):
        thing.core.dispatcher.resolve(typename)
        put(thing.core, typename, ("x", 5))
    run_all(thing.core)
    thing.checkpoint()
    thing.restart()
    thing.pass_ms(TTL)
    assert core_of is not None
    sweep(thing)
    thing.checkpoint()
    assert [key[3:] for key in thing.stored] == [b"n/exact\0x"]


def test_a_core_with_a_round_under_way_is_free_at_once_when_it_retires() -> None:
    limits = Limits(retries=0, expiry_round_ms=SECOND, expiry_keys=1)
    thing = Invoking(Idle, limits=limits, expire_idle=160)
    for number in range(10):
        thing.do(fill_idle, str(number))
    thing.checkpoint()
    thing.core.expire()
    thing.pass_ms(SECOND)
    thing.core.expire()
    assert thing.core._sweeper._round is not None
    table = weakref.ref(thing.core.dispatcher)
    gc.disable()
    try:
        thing.core.retire()
        thing.core = None  # type: ignore[assignment]
        assert table() is None
    finally:
        gc.enable()


# ---- declarations ------------------------------------------------------------------------------------------------------
def test_an_expiry_is_a_policy() -> None:
    class Wrong(State):
        n: Value[int] = value(0, expire=60)  # type: ignore[arg-type]

    with pytest.raises(DefinitionError, match=r"Wrong.n: expire: expected after_write\(...\) or after_access\(...\), got 60"):
        Invoking(Wrong)


def test_options_reach_the_core() -> None:
    assert idle().core.dispatcher.types[TYPENAME].function.spec.options == FunctionOptions(expire_idle_ms=TTL)


# ---- everything together -----------------------------------------------------------------------------------------------
class Life(RuleBasedStateMachine):
    """Against a model that knows when everything was written; time, rounds, checkpoints and recoveries come in between."""

    keys = st.sampled_from("ab")

    def __init__(self) -> None:
        super().__init__()
        self.thing = Invoking(Thing, limits=LIMITS)
        self.now: dict[str, tuple[int, int]] = {}
        self.stored: dict[str, tuple[int, int]] = {}

    def alive(self) -> dict[str, int]:
        return {name: number for name, (number, until) in self.now.items() if until > self.thing.now_ms}

    @rule(number=st.integers(1, 9))
    def write_value(self, number: int) -> None:
        self.thing.do(lambda ctx: setattr(ctx.state, "w", number))
        self.now["w"] = (number, self.thing.now_ms + TTL)

    @rule(key=keys, number=st.integers(1, 9))
    def write_entry(self, key: str, number: int) -> None:
        self.thing.do(lambda ctx: ctx.state.mw.update({key: number}))
        self.now["mw" + key] = (number, self.thing.now_ms + TTL)

    @rule(number=st.integers(1, 9))
    def append(self, number: int) -> None:
        self.thing.do(lambda ctx: ctx.state.bw.append(number))
        names = [int(name[2:]) for name in self.now if name.startswith("bw")]
        self.now[f"bw{max(names, default=0) + 1:05}"] = (number, self.thing.now_ms + TTL)

    @rule(share=st.integers(1, 20))
    def wait(self, share: int) -> None:
        self.thing.pass_ms(share * TTL // 16)

    @rule(pieces=st.integers(1, 40))
    def sweep(self, pieces: int) -> None:
        for _ in range(pieces):
            self.thing.pass_ms(LIMITS.expiry_pause_ms)
            self.thing.core.expire()

    @rule()
    def round(self) -> None:
        self.thing.checkpoint()
        self.stored = dict(self.now)
        sweep(self.thing)

    @rule()
    def checkpoint(self) -> None:
        self.thing.checkpoint()
        self.stored = dict(self.now)

    @rule()
    def recover(self) -> None:
        self.thing.recover()
        self.now = dict(self.stored)

    @invariant()
    def is_as_the_model(self) -> None:
        alive = self.alive()
        found = self.thing.do(state_of)
        assert found["w"] == alive.get("w", 0)
        assert found["mw"] == {name[2:]: number for name, number in sorted(alive.items()) if name.startswith("mw")}
        assert found["bw"] == [number for name, number in sorted(alive.items()) if name.startswith("bw")]

    def teardown(self) -> None:
        """In the end nothing is left."""
        self.thing.pass_ms(TTL)
        self.thing.checkpoint()
        self.thing.core.expire()
        sweep(self.thing, 2)
        assert self.thing.everything_stored() == {}


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_the_record_in_memory_counts_not_the_stored_one(thing: Invoking) -> None:
    thing.do(lambda ctx: setattr(ctx.state, "w", 5))
    thing.checkpoint()
    thing.pass_ms(TTL - 1)
    thing.do(lambda ctx: setattr(ctx.state, "w", 6))
    thing.pass_ms(1)
    sweep(thing)
    assert record_of(thing.core, TYPENAME, "a").w == 6
