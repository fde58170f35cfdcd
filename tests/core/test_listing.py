"""Ids are listed each once, in an order that stays, whatever of an address is stored and however small the pages are."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardfun import App, Buffer, Context, Map, Registry, State, Value, buffer, mapping, registry, value
from shardfun.core import listing
from shardfun.core.cell_keys import BUFFER_KIND, MAP_KIND, REGISTERED_KIND, cells_prefix
from shardfun.core.function import CompiledFunction, state_key
from shardfun.core.listing import list_ids
from shardfun.model.address import Address
from shardfun.model.keyspace import SLOTS, slot_of

TYPENAME = "shop/cart"


class Full(State):
    n: Value[int] = value(0)
    m: Map[str, int] = mapping()
    b: Buffer[int] = buffer()
    r: Registry = registry()


class Plain(State):
    n: Value[int] = value(0)


def function_with(state: type[State]) -> CompiledFunction:
    app = App("listing")

    def cart(ctx: Context[State], message: int) -> None:
        pass

    cart.__annotations__["ctx"] = Context[state]  # type: ignore[valid-type]
    cart.__annotations__["message"] = int
    app.function(TYPENAME)(cart)
    (function,) = app.compile()
    return function


FULL, PLAIN = function_with(Full), function_with(Plain)


class Keys:
    """Stored keys in order."""

    def __init__(self, keys: set[bytes]) -> None:
        self.keys = sorted(keys)
        self.seeks = 0

    def seek(self, key: bytes) -> bytes | None:
        self.seeks += 1
        position = bisect_left(self.keys, key)
        return self.keys[position] if position < len(self.keys) else None


def cells(id: str, kind: bytes, name: str, count: int, typename: str = TYPENAME) -> set[bytes]:
    prefix = cells_prefix(slot_of(id).to_bytes(2, "big"), kind, Address(typename, id), name)
    return {prefix + n.to_bytes(2, "big") for n in range(count)}


def listed(keys: Keys, limit: int, function: CompiledFunction = FULL, end: int = SLOTS) -> list[str]:
    found: list[str] = []
    place = (0, b"")
    while place[0] < end:
        ids, following = list_ids(keys.seek, function, place, end, limit)
        assert len(ids) <= limit
        assert following > place
        found += ids
        place = following
    return found


def in_order(ids: set[str]) -> list[str]:
    return sorted(ids, key=lambda each: (slot_of(each), each.encode()))


IDS = st.text(st.sampled_from("ab\0\xffé"), min_size=1, max_size=3)


@settings(deadline=None, max_examples=80)
@given(st.sets(IDS), st.sets(IDS), st.sets(IDS), st.sets(IDS), st.integers(1, 5), st.integers(1, 30))
def test_every_id_comes_once(
    recorded: set[str], mapped: set[str], registered: set[str], others: set[str], limit: int, seeks: int
) -> None:
    keys = {state_key(TYPENAME, id) for id in recorded}
    keys |= {key for id in mapped for key in cells(id, MAP_KIND, "m", 3)}
    keys |= {key for id in registered for key in cells(id, REGISTERED_KIND, "r", 2) | cells(id, MAP_KIND, "r.x", 2)}
    keys |= {key for id in recorded for key in cells(id, BUFFER_KIND, "b", 2)}
    for typename in ("shop/car", "shop/carts", "shop/caru", "a/a", "z/z"):
        keys |= {state_key(typename, id) for id in others}
        keys |= {key for id in others for key in cells(id, MAP_KIND, "m", 2, typename)}
    keys |= {slot_of(id).to_bytes(2, "big") + b"d" + bytes(14) for id in others}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "SEEKS_MAX", seeks)
        assert listed(Keys(keys), limit) == in_order(recorded | mapped | registered)
        assert listed(Keys(keys), limit, PLAIN) == in_order(recorded)


def test_pages_go_on_where_they_ended_although_ids_come_and_go() -> None:
    ids = {f"id-{n}" for n in range(100)}
    keys = Keys({state_key(TYPENAME, id) for id in ids})
    first, place = list_ids(keys.seek, FULL, (0, b""), SLOTS, 40)
    gone = set(first[:10]) | set(in_order(ids)[50:55])
    new = {f"new-{n}" for n in range(50)}
    keys = Keys({state_key(TYPENAME, id) for id in (ids - gone) | new})
    rest, end = list_ids(keys.seek, FULL, place, SLOTS, 1000)
    assert end[0] == SLOTS
    assert len({*first, *rest}) == len(first) + len(rest), "none twice"
    assert set(in_order(ids)) - gone <= {*first, *rest}, "none of those that were there all the time is missing"


def test_a_shard_lists_its_own_slots_only() -> None:
    ids = {f"id-{n}" for n in range(200)}
    keys = Keys({state_key(TYPENAME, id) for id in ids} | {b"\x80t" + bytes(20), b"\xff\xff"})
    half = SLOTS // 2
    assert listed(keys, 7, end=half) == in_order({id for id in ids if slot_of(id) < half})
    found, place = list_ids(keys.seek, FULL, (half, b""), SLOTS, 1000)
    assert (found, place) == (in_order({id for id in ids if slot_of(id) >= half}), (SLOTS, b""))


def test_many_entries_and_other_types_are_jumped_over() -> None:
    keys = Keys(
        {*cells("a", MAP_KIND, "m", 5000), *cells("b", MAP_KIND, "other", 5000, "shop/other"), state_key(TYPENAME, "c")}
    )
    assert listed(keys, 100) == in_order({"a", "c"})
    assert keys.seeks < 50
    keys = Keys({state_key("shop/other", f"id-{n}") for n in range(1000)})
    assert listed(keys, 100) == []
    slots = len({slot_of(f"id-{n}") for n in range(1000)})
    assert keys.seeks <= 2 * (slots + 1), "one in each slot, and one to the next that has any key"
