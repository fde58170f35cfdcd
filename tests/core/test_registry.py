"""Registered states: a name means the same in every invocation; they behave as declared ones do."""

from __future__ import annotations

from typing import Any

import cbor2
import msgspec
import pytest
from invoking import FailedError, Invoking

from shardfun import Context, Registry, State, Value, registry, value
from shardfun.core.cell_keys import parse_cell_key
from shardfun.errors import ContextClosedError


class Item(msgspec.Struct, frozen=True):
    number: int


class Thing(State):
    n: Value[int] = value(0)
    extra: Registry = registry()
    more: Registry = registry()


@pytest.fixture
def thing() -> Invoking:
    return Invoking(Thing)


@pytest.mark.parametrize("stored", [False, True])
def test_a_registered_value(thing: Invoking, *, stored: bool) -> None:
    def add(ctx: Context[Thing]) -> int:
        n = ctx.state.extra.value("n", int, default=5)
        n.set(n.get() + 1)
        assert ctx.state.extra.value("n", int, default=5).get() == n.get()
        return n.get()

    for expected in (6, 7, 8):
        assert thing.do(add) == expected
        if stored:
            thing.checkpoint()
            thing.restart()
    assert "n" in thing.do(lambda ctx: ctx.state.extra.names())
    thing.do(lambda ctx: ctx.state.extra.value("n", int, default=5).delete())
    assert thing.do(lambda ctx: ctx.state.extra.value("n", int, default=5).get()) == 5
    ((key, raw),) = thing.everything_stored().items()
    found = parse_cell_key(key)
    assert found is not None
    assert (found.kind, found.name, found.suffix) == (b"r", "extra", b"n")
    assert cbor2.loads(raw) == {"kind": "value", "type": "int"}, "the name is known, the value is at its default"


def test_registered_maps_and_buffers(thing: Invoking) -> None:
    def make(ctx: Context[Thing]) -> None:
        ctx.state.extra.map("m", str, list[int])["a"] = [1]
        ctx.state.extra.map("m", str, list[int])["a"].append(2)
        ctx.state.extra.buffer("b", Item).append_all([Item(1), Item(2)])
        ctx.state.more.map("m", int, int)[5] = 6

    def look(ctx: Context[Thing]) -> Any:
        extra = ctx.state.extra
        return (
            dict(extra.map("m", str, list[int]).items()),
            list(extra.buffer("b", Item)),
            dict(ctx.state.more.map("m", int, int).items()),
        )

    thing.do(make)
    thing.checkpoint()
    thing.restart()
    assert thing.do(look) == ({"a": [1, 2]}, [Item(1), Item(2)], {5: 6})
    assert thing.do(lambda ctx: (ctx.state.extra.names(), ctx.state.more.names())) == (["b", "m"], ["m"])
    assert thing.do(lambda ctx: ("m" in ctx.state.extra, "x" in ctx.state.extra, "extra" in ctx.state)) == (True, False, True)
    assert thing.do(look, "another") == ({}, [], {})


def test_mutable_values_may_change_in_place(thing: Invoking) -> None:
    thing.do(lambda ctx: ctx.state.extra.value("l", list[int], default_factory=list).get().append(1))
    thing.checkpoint()
    thing.do(lambda ctx: ctx.state.extra.value("l", list[int], default_factory=list).get().append(2))
    assert thing.do(lambda ctx: ctx.state.extra.value("l", list[int], default=[]).get()) == [1, 2]
    thing.checkpoint()
    thing.do(lambda ctx: ctx.state.extra.value("l", list[int], default=[]).get())
    assert not thing.core.table.changed, "what was only read is not written"


REGISTRATIONS = {
    "int": lambda extra: extra.value("x", int, default=0),
    "str": lambda extra: extra.value("x", str, default=""),
    "int or none": lambda extra: extra.value("x", int | None, default=None),
    "map": lambda extra: extra.map("x", str, int),
    "map of str": lambda extra: extra.map("x", str, str),
    "map by int": lambda extra: extra.map("x", int, int),
    "buffer": lambda extra: extra.buffer("x", int),
    "buffer of str": lambda extra: extra.buffer("x", str),
}


@pytest.mark.parametrize("later", ["same invocation", "next", "after a restart"])
@pytest.mark.parametrize("first", REGISTRATIONS)
def test_another_kind_or_type_is_an_error_of_that_invocation(thing: Invoking, first: str, later: str) -> None:
    if later != "same invocation":
        thing.do(lambda ctx: REGISTRATIONS[first](ctx.state.extra))
    if later == "after a restart":
        thing.checkpoint()
        thing.restart()
    for second, register in REGISTRATIONS.items():

        def again(ctx: Context[Thing], register: Any = register) -> None:
            if later == "same invocation":
                REGISTRATIONS[first](ctx.state.extra)
            register(ctx.state.extra)

        if second == first:
            thing.do(again)
            continue
        with pytest.raises(FailedError, match=r"registry 'extra': 'x' is registered as a .*, and asked for as a"):
            thing.do(again, "a" if later != "same invocation" else f"fresh {second}")


def test_a_failed_invocation_registers_nothing(thing: Invoking) -> None:
    def fail(ctx: Context[Thing]) -> None:
        ctx.state.extra.value("x", int, default=0).set(1)
        raise ValueError

    with pytest.raises(FailedError):
        thing.do(fail)
    thing.do(lambda ctx: ctx.state.extra.buffer("x", str).append("y"))
    assert thing.do(lambda ctx: list(ctx.state.extra.buffer("x", str))) == ["y"]


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (lambda extra: extra.value("", int, default=0), "expected a name of 1 to 255 bytes, got ''"),
        (lambda extra: extra.value("a\0b", int, default=0), "expected a name of 1 to 255 bytes"),
        (lambda extra: extra.value("x" * 256, int, default=0), "expected a name of 1 to 255 bytes"),
        (lambda extra: extra.map(5, str, int), "expected a name of 1 to 255 bytes, got 5"),
        (lambda extra: extra.value("x", int), "expected a default or a default_factory"),
        (lambda extra: extra.value("x", int, default="0"), "state field 'extra.x': expected int, got str"),
        (lambda extra: extra.value("x", object, default=object()), "state field 'extra.x': the value cannot be encoded"),
        (lambda extra: extra.value("x", int, default=0).set("1"), "state field 'extra.x': expected int, got str"),
        (lambda extra: extra.map("x", list[int], int), "state field 'extra.x': key: .* cannot be the type of keys"),
        (lambda extra: extra.map("x", str, int).update({"a": "b"}), "state field 'extra.x': expected int, got str"),
        (lambda extra: extra.map("x", str, int).get(5), "state field 'extra.x': key: expected str, got int"),
        (lambda extra: extra.buffer("x", TypeError), "registered state 'extra.x': .* is not a supported type"),
    ],
)
def test_mistakes_are_named(thing: Invoking, action: Any, expected: str) -> None:
    with pytest.raises(FailedError, match=expected):
        thing.do(lambda ctx: action(ctx.state.extra))
    assert thing.everything_stored() == {}


def test_delete_instance_forgets_names_and_what_is_stored_under_them(thing: Invoking) -> None:
    def make(ctx: Context[Thing]) -> None:
        ctx.state.extra.value("v", int, default=0).set(1)
        ctx.state.extra.map("m", str, int).update({"a": 1, "b": 2})
        ctx.state.extra.buffer("b", int).append_all([1, 2])
        ctx.state.more.map("m", str, int)["a"] = 3

    def start_again(ctx: Context[Thing]) -> None:
        opened = ctx.state.extra.map("m", str, int)
        ctx.delete_instance()
        assert ctx.state.extra.names() == []
        with pytest.raises(ContextClosedError):
            opened["a"] = 5
        ctx.state.extra.buffer("m", str).append("a map no more")
        ctx.state.extra.buffer("b", int).append(9)

    thing.do(make)
    thing.checkpoint()
    thing.do(start_again)
    assert thing.do(lambda ctx: (ctx.state.extra.names(), ctx.state.more.names())) == (["b", "m"], [])
    assert thing.do(lambda ctx: list(ctx.state.extra.buffer("b", int))) == [9]
    kinds = sorted(key[2:3] for key in thing.everything_stored())
    assert kinds == [b"b", b"b", b"r", b"r", b"s"]
    thing.do(make, "z")
    thing.do(lambda ctx: delattr(ctx.state, "extra"), "z")
    assert thing.do(lambda ctx: (ctx.state.extra.names(), ctx.state.more.names()), "z") == ([], ["m"])
    for id in "az":
        thing.do(lambda ctx: ctx.delete_instance(), id)
    assert thing.everything_stored() == {}


def test_a_registered_state_ends_with_its_invocation(thing: Invoking) -> None:
    kept, extra = thing.do(lambda ctx: (ctx.state.extra.value("x", int, default=0), ctx.state.extra))
    for use in (kept.get, lambda: kept.set(1), kept.delete, extra.names, extra.clear, lambda: extra.map("m", str, int)):
        with pytest.raises(ContextClosedError):
            use()


def test_many_types_are_remembered_only_so_far(thing: Invoking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardfun.core.registry.DESCRIPTIONS_MAX", 2)
    for number, types in enumerate([int, str, float, bool, bytes]):
        thing.do(lambda ctx, number=number, types=types: ctx.state.extra.map(f"m{number}", types, types).count())
    copies = thing.core.dispatcher.types["t/f"].copies
    assert copies is not None
    assert len(copies.descriptions._items) <= 2
    assert len(copies.descriptions._keys) <= 2
