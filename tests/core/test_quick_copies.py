"""What is written out for speed (``ScalarMap``, ``MapCopies``, short keys) does what its specification does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from invoking import TYPENAME, FailedError, Invoking

from shardfun import Context, Map, State, Value, after_write, mapping, value
from shardfun.core.maps import Map as PlainMap
from shardfun.core.scalar_maps import ScalarMap
from shardfun.core.working import Copies, MapCopies
from shardfun.errors import ContextClosedError, PayloadTypeError
from shardfun.model.ordered_keys import key_type


class Maps(State):
    numbers: Map[int, int] = mapping()
    texts: Map[str, str | float | None] = mapping()
    lists: Map[str, list[int]] = mapping()
    brief: Map[str, int] = mapping(expire=after_write(seconds=100))


class Mixed(State):
    n: Value[int] = value(0)
    numbers: Map[int, int] = mapping()
    texts: Map[str, str | float | None] = mapping()
    lists: Map[str, list[int]] = mapping()
    brief: Map[str, int] = mapping(expire=after_write(seconds=100))


KEYS = {
    "numbers": st.sampled_from([0] * 8 + [1, 255, 256, 2**63 - 1, 2**63, 2**70, -1, True, "a"]),
    "texts": st.sampled_from(["a"] * 8 + ["", "ä", "a\0b", "x" * 1000, "x" * 1001, "x" * 5000, "\ud800", 1]),
    "lists": st.sampled_from(["a", "b"]),
    "brief": st.sampled_from(["a", "b"]),
}
VALUES = {
    "numbers": st.sampled_from([0, 1, 2, 3, 2**64, -1, True, 1.5, None]),
    "texts": st.sampled_from(["", "a", "\ud800", 1.5, None, 1, b"a"]),
    "lists": st.sampled_from([[], [1], ["a"], 1]),
    "brief": st.sampled_from([0, 1, "a"]),
}
NAMES = ["numbers"] * 3 + ["texts"] * 3 + ["lists", "brief"]
ACTIONS = [
    "get",
    "default",
    "item",
    "set",
    "set",
    "set",
    "del",
    "pop",
    "in",
    "setdefault",
    "clear",
    "items",
    "append",
    "delete",
    "fail",
]
Step = tuple[str, str, Any, Any]


@st.composite
def steps(draw: Callable[[Any], Any]) -> Step:
    name = draw(st.sampled_from(NAMES))
    return draw(st.sampled_from(ACTIONS)), name, draw(KEYS[name]), draw(VALUES[name])


def act(ctx: Context[Any], step: Step) -> Any:
    action, name, key, new = step
    if type(new) is list:
        new = list(new)  # both shards change what they are given
    entries = getattr(ctx.state, name)
    match action:
        case "get":
            return entries.get(key)
        case "default":
            return entries.get(key, "missing")
        case "item":
            return entries[key]
        case "set":
            entries[key] = new
        case "del":
            del entries[key]
        case "pop":
            return entries.pop(key, None)
        case "in":
            return key in entries
        case "setdefault":
            return entries.setdefault(key, new)
        case "clear":
            entries.clear()
        case "items":
            return list(entries.items())
        case "append":
            for found in ctx.state.lists.values():
                found.append(1)
        case "delete":
            ctx.delete_instance()
        case "fail":
            raise ValueError
    return None


def outcome_of(action: Callable[[], Any]) -> Any:
    try:
        result = action()
    except (PayloadTypeError, KeyError, FailedError) as error:
        return type(error), str(error)
    return [(item, type(item)) for item in result] if type(result) is list else (result, type(result))


def run(shard: Invoking, invocation: list[Step]) -> list[Any]:
    """What each step gave, and the invocation as a whole. Steps that raise are caught, but for "fail"."""
    seen: list[Any] = []

    def handler(ctx: Context[Any]) -> None:
        seen.extend(outcome_of(lambda step=step: act(ctx, step)) for step in invocation)  # type: ignore[misc]

    seen.append(outcome_of(lambda: shard.do(handler)))
    return seen


@pytest.mark.parametrize("state", [Maps, Mixed])
@settings(max_examples=200, deadline=None)
@given(invocations=st.lists(st.tuples(st.lists(steps(), max_size=8), st.sampled_from(["", "checkpoint", "time"])), max_size=8))
def test_quick_and_plain_copies_agree(state: type[State], invocations: list[tuple[list[Step], str]]) -> None:
    quick, plain = Invoking(state), Invoking(state, plain=True)
    for invocation, then in invocations:
        assert run(quick, invocation) == run(plain, invocation)
        assert living_cells(quick) == living_cells(plain)
        for shard in (quick, plain):
            if then == "checkpoint":
                shard.checkpoint()
            elif then == "time":
                shard.pass_ms(60_000)
        if not quick.core.dispatcher.letters.count:  # whose tracebacks are not the same
            assert quick.core.table.cells.changed_bytes == plain.core.table.cells.changed_bytes
    assert without_letters(quick.stored) == without_letters(plain.stored)


def living_cells(shard: Invoking) -> dict[bytes, bytes | None]:
    return without_letters(shard.core.table.cells.unapplied())


def without_letters(cells: dict[bytes, Any]) -> dict[bytes, Any]:
    """Dead letters hold tracebacks, which name other lines."""
    return {key: cell for key, cell in cells.items() if key[2:3] != b"d"}


def test_each_runner_has_its_own() -> None:
    copies = {plain: Invoking(Maps, plain=plain).core.dispatcher.types[TYPENAME].copies for plain in (False, True)}
    assert type(copies[False]) is MapCopies
    assert type(copies[True]) is Copies
    assert type(Invoking(Mixed).core.dispatcher.types[TYPENAME].copies) is Copies

    def classes(ctx: Context[Any]) -> list[type]:
        return [type(getattr(ctx.state, name)) for name in KEYS]

    for state in (Maps, Mixed):
        assert Invoking(state).do(classes) == [ScalarMap, ScalarMap, PlainMap, PlainMap]
        assert Invoking(state, plain=True).do(classes) == [PlainMap] * 4


def test_an_expiring_entry_of_an_earlier_declaration_ends_in_a_scalar_map() -> None:
    class Before(State):
        m: Map[str, int] = mapping(expire=after_write(seconds=100))

    class After(State):
        m: Map[str, int] = mapping()

    old, new = Invoking(Before), Invoking(After)
    old.do(lambda ctx: ctx.state.m.update({"a": 1}))
    old.checkpoint()
    new.stored.update(old.stored)
    assert new.do(lambda ctx: ctx.state.m.get("a")) == 1
    new.pass_ms(200_000)
    assert new.do(lambda ctx: ctx.state.m.get("a")) is None


@pytest.mark.parametrize("leave", [False, True])
def test_all_maps_end_with_an_invocation_that_fails_at_its_end(leave: bool) -> None:  # noqa: FBT001
    shard = Invoking(Maps)
    kept: list[Any] = []

    def handler(ctx: Context[Maps]) -> None:
        state = ctx.state
        kept.extend([state.numbers, state.lists, state.texts])
        state.numbers[1] = 1
        state.lists["a"] = [1]
        if leave:
            state.lists["a"].append("x")  # type: ignore[arg-type]
        state.texts["a"] = "a"

    if leave:
        with pytest.raises(FailedError, match="not of the declared type"):
            shard.do(handler)
    else:
        shard.do(handler)
    for entries, key, new in zip(kept, (1, "a", "a"), (1, [1], "a"), strict=True):
        uses: list[Callable[[], Any]] = [
            lambda entries=entries, key=key: entries.get(key),  # type: ignore[misc]
            lambda entries=entries, key=key: entries[key],  # type: ignore[misc]
            lambda entries=entries: list(entries),  # type: ignore[misc]
            lambda entries=entries, key=key, new=new: entries.__setitem__(key, new),  # type: ignore[misc]
        ]
        for use in uses:
            with pytest.raises(ContextClosedError):
                use()
    assert bool(living_cells(shard)) is not leave


@given(
    st.one_of(st.integers(), st.sampled_from([2**63 - 1, 2**63, 2**64, -(2**63), True])),
    st.one_of(st.text(), st.sampled_from(["x" * 1000, "x" * 1001, "a\0"])),
)
def test_short_keys_are_encoded_as_all_are(number: int, text: str) -> None:
    for cls, key in ((int, number), (str, text)):
        keys = key_type(cls, "key")
        assert outcome_of(lambda keys=keys, key=key: keys.encode(key)) == outcome_of(  # type: ignore[misc]
            lambda keys=keys, key=key: keys._encode(key)  # type: ignore[misc]
        )
