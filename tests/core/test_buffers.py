"""Buffers: as a list, whatever is in the store; appending reads nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from invoking import FailedError, Invoking

from shardfun import Buffer, Context, State, Value, buffer, value
from shardfun.errors import ContextClosedError, DefinitionError


class Order(msgspec.Struct, frozen=True):
    number: int


class Shop(State):
    n: Value[int] = value(0)
    recent: Buffer[int] = buffer()
    orders: Buffer[Order | None] = buffer()
    lists: Buffer[list[int]] = buffer()


@pytest.fixture
def shop() -> Invoking:
    return Invoking(Shop)


def recent(ctx: Context[Shop]) -> list[int]:
    return list(ctx.state.recent.view())


@pytest.mark.parametrize("stored", [False, True])
def test_as_a_list(shop: Invoking, *, stored: bool) -> None:
    def keep(action: Any) -> None:
        shop.do(action)
        if stored:
            shop.checkpoint()
            shop.restart()

    assert shop.do(lambda ctx: (recent(ctx), len(ctx.state.recent), bool(ctx.state.recent))) == ([], 0, False)
    keep(lambda ctx: ctx.state.recent.append(1))
    keep(lambda ctx: ctx.state.recent.append_all([2, 3]))
    keep(lambda ctx: ctx.state.recent.append_all([]))
    assert shop.do(lambda ctx: (recent(ctx), len(ctx.state.recent), "recent" in ctx.state)) == ([1, 2, 3], 3, True)
    keep(lambda ctx: ctx.state.recent.replace(number for number in (7, 8)))
    assert shop.do(recent) == [7, 8]
    keep(lambda ctx: [ctx.state.recent.append(9), ctx.state.recent.clear(), ctx.state.recent.append(10)])
    assert shop.do(lambda ctx: list(ctx.state.recent)) == [10]
    keep(lambda ctx: ctx.state.recent.replace([]))
    assert shop.do(lambda ctx: ("recent" in ctx.state, recent(ctx))) == (False, [])
    assert shop.everything_stored() == {}, "an empty buffer is as one that was never used"


def test_an_invocation_sees_what_it_appends(shop: Invoking) -> None:
    def use(ctx: Context[Shop]) -> None:
        ctx.state.recent.append(2)
        before = ctx.state.recent.view()
        assert recent(ctx) == [1, 2]
        ctx.state.recent.append(3)
        ctx.state.recent.replace([*ctx.state.recent.view(), 4])
        assert recent(ctx) == [1, 2, 3, 4]
        assert len(ctx.state.recent) == 4
        assert list(before) == [1, 2], "as it was when the view was made"

    shop.do(lambda ctx: ctx.state.recent.append(1))
    shop.checkpoint()
    shop.do(use)
    shop.checkpoint()
    assert shop.do(recent) == [1, 2, 3, 4]


def test_appending_reads_nothing(shop: Invoking) -> None:
    class Unreadable:
        def get(self, key: bytes) -> bytes | None:
            raise AssertionError(key)

        def scan(self, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
            raise AssertionError(prefix)

    shop.do(lambda ctx: ctx.state.recent.append_all(range(10)))
    shop.checkpoint()
    store = shop.core.table.cells._store
    shop.core.table.cells._store = Unreadable()
    shop.do(lambda ctx: ctx.state.recent.append(10))
    assert shop.do(lambda ctx: len(ctx.state.recent)) == 11, "nor does len"
    shop.core.table.cells._store = store
    assert shop.do(recent) == list(range(11))


def test_elements_are_as_they_were_when_they_were_appended(shop: Invoking) -> None:
    def use(ctx: Context[Shop]) -> None:
        mine = [1]
        ctx.state.lists.append(mine)
        mine.append(2)
        for numbers in ctx.state.lists.view():
            numbers.append(3)
        assert list(ctx.state.lists.view()) == [[1]]

    shop.do(use)
    assert shop.do(lambda ctx: list(ctx.state.lists.view())) == [[1]]


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (lambda ctx: ctx.state.recent.append("x"), "state field 'recent': expected int, got str: 'x'"),
        (lambda ctx: ctx.state.recent.append_all([1, None]), "state field 'recent': expected int, got NoneType"),
        (lambda ctx: ctx.state.recent.replace([True]), "state field 'recent': expected int, got bool"),
        (lambda ctx: ctx.state.orders.append(Order("x")), "state field 'orders': the value is not of the declared type"),
        (lambda ctx: setattr(ctx.state, "recent", [1]), "state field 'recent' is a buffer and cannot be assigned: use replace"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_of_it_stays(shop: Invoking, action: Any, expected: str) -> None:
    def attempt(ctx: Context[Shop]) -> str:
        try:
            action(ctx)
        except Exception as error:
            return str(error)
        return ""

    shop.do(lambda ctx: ctx.state.recent.append(5))
    assert expected in shop.do(attempt)
    assert shop.do(recent) == [5]


def test_a_buffer_needs_its_annotation() -> None:
    class Wrong(State):
        recent: list[int] = buffer()  # type: ignore[assignment]

    with pytest.raises(DefinitionError, match=r"Wrong.recent: expected the annotation 'Buffer\[T\]' for buffer"):
        Invoking(Wrong)


def test_a_buffer_ends_with_its_invocation(shop: Invoking) -> None:
    kept = shop.do(lambda ctx: ctx.state.recent)
    for use in (
        lambda: kept.append(1),
        lambda: kept.append_all([1]),
        lambda: kept.replace([]),
        kept.clear,
        lambda: list(kept),
        lambda: len(kept),
    ):
        with pytest.raises(ContextClosedError, match="outside of its invocation"):
            use()


def test_delete_instance_empties_buffers_and_starts_again(shop: Invoking) -> None:
    shop.do(lambda ctx: [ctx.state.recent.append_all([1, 2, 3]), ctx.state.orders.append(None)])
    shop.checkpoint()
    shop.do(lambda ctx: [ctx.delete_instance(), ctx.state.recent.append(9)])
    assert shop.do(lambda ctx: (recent(ctx), list(ctx.state.orders))) == ([9], [])
    shop.do(lambda ctx: ctx.delete_instance())
    assert shop.everything_stored() == {}


class Life(RuleBasedStateMachine):
    """Against a list, with cuts, aborts, applies, failures and recoveries."""

    values = st.lists(st.integers(0, 9), max_size=3)

    def __init__(self) -> None:
        super().__init__()
        self.shop = Invoking(Shop)
        self.now: list[int] = []
        self.at_cut: list[int] = []
        self.stored: list[int] = []
        self.written: dict[bytes, bytes | None] | None = None

    @rule(
        first=values,
        second=values,
        steps=st.lists(st.sampled_from(["append", "replace", "clear", "look"])),
        fails=st.booleans(),
    )
    def use(self, first: list[int], second: list[int], steps: list[str], *, fails: bool) -> None:
        model = list(self.now)
        seen: list[list[int]] = []
        expected: list[list[int]] = []

        def invocation(ctx: Context[Shop]) -> None:
            for step, values in zip(steps, [first, second] * len(steps), strict=False):
                match step:
                    case "append":
                        ctx.state.recent.append_all(values)
                    case "replace":
                        ctx.state.recent.replace(values)
                    case "clear":
                        ctx.state.recent.clear()
                    case "look":
                        seen.append(recent(ctx))
            if fails:
                raise ValueError

        for step, values in zip(steps, [first, second] * len(steps), strict=False):
            match step:
                case "append":
                    model += values
                case "replace":
                    model = list(values)
                case "clear":
                    model = []
                case "look":
                    expected.append(list(model))
        if fails:
            with pytest.raises(FailedError):
                self.shop.do(invocation)
        else:
            self.shop.do(invocation)
            self.now = model
        assert seen == expected

    @precondition(lambda self: self.written is None)
    @rule()
    def cut(self) -> None:
        self.written = self.shop.cut()
        self.at_cut = self.now

    @precondition(lambda self: self.written is not None)
    @rule()
    def apply(self) -> None:
        self.shop.apply(self.written)
        self.stored, self.written = self.at_cut, None
        elements = [key for key in self.shop.stored if key[2:3] == b"b"]
        assert len(elements) == len(self.stored), "no element is left behind"

    @precondition(lambda self: self.written is not None)
    @rule()
    def abort(self) -> None:
        self.shop.core.table.merge_frozen()
        self.written = None

    @rule()
    def recover(self) -> None:
        self.shop.recover()
        self.now, self.written = self.stored, None

    @invariant()
    def is_as_the_model(self) -> None:
        assert self.shop.do(lambda ctx: (recent(ctx), len(ctx.state.recent))) == (self.now, len(self.now))


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
