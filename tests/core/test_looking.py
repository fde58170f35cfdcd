"""Looking at an address shows what an invocation would see, page by page, and changes nothing."""

from __future__ import annotations

import datetime as dt
from typing import Any
from uuid import UUID

import cbor2
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from invoking import TYPENAME, FailedError, Invoking
from single_core import DictStore, core_of

from shardfun import (
    App,
    Buffer,
    Context,
    Map,
    Registry,
    State,
    Value,
    after_access,
    after_write,
    buffer,
    mapping,
    registry,
    retry,
    value,
)
from shardfun.core import looking
from shardfun.core.looking import NOTHING, Wanted, function_of, look, sight_of
from shardfun.errors import ConfigurationError, CorruptionError, PayloadTypeError, UnknownTargetError
from shardfun.model.address import Address
from shardfun.model.page_tokens import token_of

TTL = 160_000


class Item(msgspec.Struct, frozen=True):
    number: int
    raw: bytes = b""


class Plain(State):
    n: Value[int] = value(0)
    names: Value[list[str]] = value(default_factory=list)
    item: Value[Item | None] = value(None)


class Full(State):
    n: Value[int] = value(0)
    w: Value[int] = value(7, expire=after_write(seconds=160))
    m: Map[str, int] = mapping(expire=after_write(seconds=160))
    b: Buffer[int] = buffer(expire=after_write(seconds=160))
    whole: Buffer[str] = buffer(expire=after_access(seconds=160))
    extra: Registry = registry()


def seen(
    thing: Invoking,
    part: str | None = None,
    after: str | None = None,
    *,
    id: str = "a",
    limit: int = 100,
    at: str = "live",
    between: Any = None,
) -> dict[str, Any]:
    """``between``: happens after what is in memory was taken, and before the store is read."""
    address, dispatcher = Address(TYPENAME, id), thing.core.dispatcher
    function = function_of(dispatcher, TYPENAME)
    sight = NOTHING if at == "checkpoint" else sight_of(dispatcher, address, function, part)
    if between is not None:
        between()
    return look(function, address, sight, DictStore(thing.stored), thing.now_ms, Wanted(part, after, limit))


def paged(thing: Invoking, part: str, limit: int, **options: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    after = None
    for _ in range(1000):
        answer = seen(thing, part, after, limit=limit, **options)
        items = answer["parts"][part]["items"]
        assert len(items) <= limit
        assert answer["next"] == answer["parts"][part]["next"]
        found += [(item["key"], item["value"]) for item in items]
        after = answer["next"]
        if after is None:
            return found
    pytest.fail("it does not end")


def shown(part: dict[str, Any]) -> dict[Any, Any]:
    return {item["key"]: item["value"] for item in part["items"]}


def test_single_values_in_memory_and_stored() -> None:
    thing = Invoking(Plain)
    assert seen(thing) == {
        "address": "t/f:a",
        "exists": False,
        "fields": {"n": 0, "names": [], "item": None},
        "expires": {},
        "parts": {},
        "next": None,
    }

    def change(ctx: Context[Plain]) -> None:
        ctx.state.n += 1
        ctx.state.names.append("x")
        ctx.state.item = Item(ctx.state.n, b"\xff")

    thing.do(change)
    live = seen(thing)
    assert (live["exists"], live["fields"]["n"], live["fields"]["names"]) == (True, 1, ["x"])
    assert live["fields"]["item"] == {"number": 1, "raw": {"base64": "/w=="}}
    assert not seen(thing, at="checkpoint")["exists"], "nothing is applied yet"
    thing.checkpoint()
    thing.do(change)
    assert seen(thing, at="checkpoint")["fields"]["n"] == 1
    assert seen(thing)["fields"]["n"] == 2
    thing.restart()
    assert seen(thing)["fields"]["n"] == 1
    assert not thing.core.table.generations[TYPENAME].young, "looking loads nothing"
    assert not seen(thing, id="b")["exists"]


def test_what_is_taken_stays_as_it_was_whatever_is_applied_meanwhile() -> None:
    thing = Invoking(Full)

    def change(ctx: Context[Full]) -> None:
        ctx.state.n += 1
        ctx.state.m[f"k{ctx.state.n}"] = ctx.state.n
        ctx.state.b.append(ctx.state.n)

    thing.do(change)
    written = thing.cut()
    thing.do(change)
    answer = seen(thing, between=lambda: thing.apply(written))
    assert answer["fields"]["n"] == 2
    assert shown(answer["parts"]["m"]) == {"k1": 1, "k2": 2}
    assert shown(answer["parts"]["b"]) == {0: 1, 1: 2}
    assert seen(thing, at="checkpoint")["fields"]["n"] == 1

    thing.do(lambda ctx: ctx.state.m.clear())
    written = thing.cut()
    thing.do(lambda ctx: ctx.state.m.update({"z": 9}))
    answer = seen(thing, between=lambda: (thing.core.table.merge_frozen(), thing.do(change)))
    assert shown(answer["parts"]["m"]) == {"z": 9}, "an aborted checkpoint and a change behind it"


def test_what_has_expired_is_not_shown() -> None:
    thing = Invoking(Full, expire_idle=1000)

    def fill(ctx: Context[Full]) -> None:
        ctx.state.w = 5
        ctx.state.m["old"] = 1
        ctx.state.b.append(1)
        ctx.state.whole.append("x")

    thing.do(fill)
    thing.checkpoint()
    started = thing.now_ms / 1000
    answer = seen(thing)
    assert answer["expires"] == {"w": started + 160, "whole": started + 160, "": started + 1000}
    assert answer["parts"]["m"]["items"] == [{"key": "old", "value": 1, "expires": started + 160}]
    thing.now_ms += TTL // 2
    thing.core.advance(thing.now_ms / 1000)
    thing.do(lambda ctx: (ctx.state.m.update({"new": 2}), ctx.state.b.append(2)))
    for at, expected, elements in (("live", {"new": 2}, {1: 2}), ("checkpoint", {}, {})):
        thing.now_ms = int(started * 1000) + TTL
        answer = seen(thing, at=at)
        assert answer["fields"]["w"] == 7
        assert shown(answer["parts"]["m"]) == expected
        assert shown(answer["parts"]["b"]) == elements
        assert answer["parts"]["whole"]["items"] == []
        assert "w" not in answer["expires"]
    thing.now_ms += 1_000_000
    assert seen(thing) == {
        "address": "t/f:a",
        "exists": False,
        "fields": {"n": 0, "w": 7},
        "expires": {},
        "parts": {name: {"kind": kind, "items": [], "next": None} for name, kind in KINDS.items()},
        "next": None,
    }


KINDS = {"m": "map", "b": "buffer", "whole": "buffer", "extra": "registry"}


@pytest.mark.parametrize("stored", ["memory", "frozen", "store", "half"])
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_parts_come_in_pages(stored: str, limit: int) -> None:
    thing = Invoking(Full)
    thing.do(lambda ctx: (ctx.state.m.update({f"k{n}": n for n in range(7)}), ctx.state.b.append_all(range(7))))
    if stored in {"store", "half"}:
        thing.checkpoint()
    if stored == "frozen":
        thing.cut()
    if stored == "half":
        thing.do(lambda ctx: (ctx.state.m.update({"k2x": 99}), ctx.state.m.pop("k1"), ctx.state.m.pop("k6")))
    expected = {f"k{n}": n for n in range(7)}
    if stored == "half":
        expected = {"k0": 0, "k2": 2, "k2x": 99, "k3": 3, "k4": 4, "k5": 5}
    assert paged(thing, "m", limit) == list(expected.items())
    assert paged(thing, "b", limit) == [(n, n) for n in range(7)]
    whole = seen(thing, limit=limit)
    assert [item["key"] for item in whole["parts"]["m"]["items"]] == list(expected)[:limit]
    assert (whole["parts"]["m"]["next"] is None) == (limit == 100)


def test_one_page_looks_at_a_bounded_number_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "LOOKED_MAX", 5)
    thing = Invoking(Full)
    thing.do(lambda ctx: ctx.state.m.update({f"k{n:02}": n for n in range(40)}))
    assert len(paged(thing, "m", 100)) == 40, "in memory"
    thing.checkpoint()
    assert len(paged(thing, "m", 100)) == 40, "in the store"
    thing.do(lambda ctx: [ctx.state.m.pop(f"k{n:02}") for n in range(1, 39)])
    first = seen(thing, "m", limit=100)
    assert ([item["key"] for item in first["parts"]["m"]["items"]], first["next"] is None) == (["k00"], False)
    assert paged(thing, "m", 100) == [("k00", 0), ("k39", 39)], "deleted ones cost pages, and are not shown"
    thing.checkpoint()
    thing.do(lambda ctx: ctx.state.m.clear())
    assert seen(thing, "m")["parts"]["m"] == {"kind": "map", "items": [], "next": None}


def test_what_is_large_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Large(State):
        t: Value[str] = value("")
        u: Value[str] = value("")
        m: Map[int, str] = mapping()

    assert looking._weight(cbor2.dumps(b"x" * 100_000)) * 4 <= 100_005
    assert looking._weight(cbor2.dumps("x" * 100_000)) == 100_005
    monkeypatch.setattr(looking, "VALUE_BYTES_MAX", 1000)
    monkeypatch.setattr(looking, "FIELDS_BYTES_MAX", 1500)
    monkeypatch.setattr(looking, "ITEMS_BYTES_MAX", 1500)
    thing = Invoking(Large)

    def fill(ctx: Context[Large]) -> None:
        ctx.state.t = "t" * 900
        ctx.state.u = "u" * 900
        ctx.state.m.update(dict.fromkeys(range(4), "x" * 900))
        ctx.state.m[2] = "y" * 2000

    thing.do(fill)
    answer = seen(thing)
    assert answer["fields"] == {"t": "t" * 900, "u": {"omitted": "903 bytes, too long to show"}}
    assert [item["key"] for item in answer["parts"]["m"]["items"]] == [0]
    assert [key for key, _ in paged(thing, "m", 10)] == [0, 1, 2, 3]
    assert dict(paged(thing, "m", 10))[2] == {"omitted": "2003 bytes, too long to show"}


def test_registered_states() -> None:
    thing = Invoking(Full)

    def register(ctx: Context[Full]) -> None:
        extra = ctx.state.extra
        extra.value("total", int, default=0).set(5)
        extra.value("fading", int, default=0, expire=after_write(seconds=160)).set(6)
        extra.value("unset", str, default="")
        extra.map("by.day", dt.date, int)[dt.date(2024, 5, 6)] = 1
        extra.buffer("list", int).append_all([1, 2])

    thing.do(register)
    for stored in (False, True):
        if stored:
            thing.checkpoint()
            thing.restart()
        answer = seen(thing)
        assert answer["exists"]
        assert shown(answer["parts"]["extra"]) == {
            "by.day": {"kind": "map", "type": "date, int"},
            "fading": {"kind": "value", "type": "int", "value": 6},
            "list": {"kind": "buffer", "type": "int"},
            "total": {"kind": "value", "type": "int", "value": 5},
            "unset": {"kind": "value", "type": "str"},
        }
        assert paged(thing, "extra.by.day", 1) == [("2024-05-06", 1)]
        assert paged(thing, "extra.list", 1) == [(0, 1), (1, 2)]
        for part in ("extra.other", "extra.total", "extra.", "m.x", "nothing"):
            with pytest.raises(UnknownTargetError):
                seen(thing, part)
    thing.now_ms += TTL
    assert shown(seen(thing)["parts"]["extra"])["fading"] == {"kind": "value", "type": "int"}
    thing.do(lambda ctx: ctx.state.extra.clear())
    with pytest.raises(UnknownTargetError, match=r"nothing is registered under 'extra.list'"):
        seen(thing, "extra.list")


def test_keys_of_all_types_can_be_read() -> None:
    class Keys(State):
        m: Map[tuple[str, int], int] = mapping()
        u: Map[UUID, int] = mapping()
        r: Map[bytes, int] = mapping()

    thing = Invoking(Keys)
    thing.do(
        lambda ctx: (ctx.state.m.update({("é\0", -5): 1}), ctx.state.u.update({UUID(int=1): 2}), ctx.state.r.update({b"\0": 3}))
    )
    parts = seen(thing)["parts"]
    assert parts["m"]["items"] == [{"key": ["é\0", -5], "value": 1}]
    assert parts["u"]["items"] == [{"key": "00000000-0000-0000-0000-000000000001", "value": 2}]
    assert parts["r"]["items"] == [{"key": {"base64": "AA=="}, "value": 3}]


def test_errors_say_what_is_wrong() -> None:
    thing = Invoking(Full)
    with pytest.raises(UnknownTargetError, match=r"t/f has no part 'n'"):
        seen(thing, "n")
    with pytest.raises(UnknownTargetError, match="did you mean 'whole'"):
        seen(thing, "whol")
    for token in ("x", "!", token_of(b"b", b"1"), "é"):
        with pytest.raises(ConfigurationError, match="expected 'next' of an answer"):
            seen(thing, "m", token)
    thing.do(lambda ctx: ctx.state.m.update({"a": 1}))
    thing.checkpoint()
    key = next(iter(thing.stored))
    thing.stored[key[:-3] + b"\x77"] = b"\x01"
    with pytest.raises(CorruptionError, match="the state of t/f:a is damaged"):
        seen(thing, "m")


def test_a_state_that_does_not_fit_its_declaration_is_an_error() -> None:
    thing = Invoking(Plain)
    thing.do(lambda ctx: setattr(ctx.state, "n", 5))
    thing.checkpoint()
    for key, raw in thing.stored.items():
        thing.stored[key] = raw.replace(b"\x61n\x05", b"\x61n\x61x")
    with pytest.raises(PayloadTypeError):
        seen(thing, at="checkpoint")
    with pytest.raises(UnknownTargetError, match=r"unknown function type 'no/such'"):
        function_of(thing.core.dispatcher, "no/such")


def test_names_of_a_namespace_are_looked_at_without_becoming_types() -> None:
    app = App("wild")

    @app.function("shop/*")
    def shop(ctx: Context[Plain], message: int) -> None:
        ctx.state.n += message

    core = core_of(app)
    before = len(core.dispatcher.order)
    for n in range(50):
        function = function_of(core.dispatcher, f"shop/x{n}")
        address = Address(f"shop/x{n}", "1")
        sight = sight_of(core.dispatcher, address, function, None)
        assert look(function, address, sight, DictStore({}), 0, Wanted(None, None, 1))["fields"]["n"] == 0
    assert len(core.dispatcher.order) == before
    with pytest.raises(UnknownTargetError):
        function_of(core.dispatcher, "shop/*")


def test_an_address_that_waits_for_another_attempt_shows_what_is_committed() -> None:
    thing = Invoking(Plain, on_failure=retry(attempts=2, backoff=10))
    thing.do(lambda ctx: setattr(ctx.state, "n", 3))

    def fail(ctx: Context[Plain]) -> None:
        ctx.state.n = 99
        raise FailedError

    thing.do(fail)
    assert thing.core.dispatcher.types[TYPENAME].blocked
    assert seen(thing)["fields"]["n"] == 3


class Anything(State):
    n: Value[int] = value(0)
    w: Value[int] = value(7, expire=after_write(seconds=160))
    items: Value[list[int]] = value(default_factory=list)
    m: Map[int, int] = mapping()
    mw: Map[int, int] = mapping(expire=after_write(seconds=160))
    b: Buffer[int] = buffer()
    bw: Buffer[int] = buffer(expire=after_write(seconds=160))
    whole: Buffer[int] = buffer(expire=after_access(seconds=160))


NUMBERS = st.integers(0, 5)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["n", "w", "append", "m", "mw", "b", "bw", "whole", "pop"]), NUMBERS),
        st.tuples(st.sampled_from(["clear m", "clear b", "clear bw", "delete", "restart", "cut", "apply", "abort"]), NUMBERS),
        st.tuples(st.just("pass"), st.integers(1, 200)),
    ),
    max_size=30,
)


def act(ctx: Context[Any], what: str, number: int) -> None:
    state = ctx.state
    match what:
        case "n" | "w":
            setattr(state, what, number)
        case "append":
            state.items.append(number)
        case "m" | "mw":
            getattr(state, what)[number] = number
        case "b" | "bw" | "whole":
            getattr(state, what).append(number)
        case "pop":
            state.m.pop(number, None)
        case "delete":
            ctx.delete_instance()
        case _:
            getattr(state, what.removeprefix("clear ")).clear()


def as_a_function_sees_it(ctx: Context[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    state = ctx.state
    fields = {name: getattr(state, name) for name in ("n", "w", "items")}
    parts = {name: dict(getattr(state, name).items()) for name in ("m", "mw")}
    return fields, parts | {name: list(getattr(state, name).view()) for name in ("b", "bw", "whole")}


@settings(deadline=None, max_examples=60)
@given(STEPS, st.integers(1, 4))
def test_a_look_shows_what_an_invocation_would_see(steps: list[tuple[str, int]], limit: int) -> None:
    thing = Invoking(Anything, expire_idle=500)
    written: dict[bytes, bytes | None] | None = None
    for what, number in steps:
        match what:
            case "pass":
                thing.pass_ms(number * 1000)
            case "cut" if written is None:
                written = thing.cut()
            case "apply" if written is not None:
                thing.apply(written)
                written = None
            case "abort" if written is not None:
                thing.core.table.merge_frozen()
                written = None
            case "restart" if written is None:
                thing.checkpoint()
                thing.restart()
            case "cut" | "apply" | "abort" | "restart":
                pass
            case _:
                thing.do(lambda ctx, what=what, number=number: act(ctx, what, number))
    answer = seen(thing)
    parts = {name: paged(thing, name, limit) for name in ("m", "mw", "b", "bw", "whole")}
    if written is not None:
        thing.apply(written)
    fields, expected = thing.do(as_a_function_sees_it)
    assert answer["fields"] == fields
    assert {name: dict(parts[name]) for name in ("m", "mw")} == {name: expected[name] for name in ("m", "mw")}
    for name in ("b", "bw", "whole"):
        assert [value for _, value in parts[name]] == expected[name]
    assert answer["exists"] == (fields != {"n": 0, "w": 7, "items": []} or any(expected.values()))
