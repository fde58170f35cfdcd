"""Stored values that are equal compare as equal."""

from __future__ import annotations

from typing import Any

import msgspec

from shardfun import App, Context, Map, State, Value, mapping, value
from shardfun.testing.declared import Declared


class Seen(msgspec.Struct):
    names: set[str]


class Shelf(State):
    tags: Value[set[str]] = value(default_factory=set)
    rows: Value[list[str]] = value(default_factory=list)
    seen: Map[str, Seen] = mapping()


app = App("shelves")


@app.function("shop/*")
def shelf(ctx: Context[Shelf], message: int) -> None:
    """Does nothing."""


def test_the_order_of_a_set_is_no_difference() -> None:
    """It depends on hashes. That of a list counts, also below a name that is no field any more."""
    declared = Declared(app)

    def same(name: str, one: Any, other: Any) -> bool:
        return declared.comparable("shop/a", name, one) == declared.comparable("shop/a", name, other)

    assert same("tags", ["b", "a"], ["a", "b"])
    assert not same("tags", ["b", "a"], ["a", "c"])
    assert not same("rows", ["b", "a"], ["a", "b"])
    assert same("seen", {"names": ["b", "a"]}, {"names": ["a", "b"]})
    assert not same("gone", ["b", "a"], ["a", "b"])
    assert not same("tags", ["b", 1], [1, "b"]), "no set[str]: as it is"
