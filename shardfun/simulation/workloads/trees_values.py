"""Command trees, the commands for an address alone: what each does, and which amounts it adds to the world.

Amounts of different commands commute. Everything is drawn before the run, so what a tree adds up to is known without running it,
and in every complete checkpoint

    amounts in state + amounts of what waits, is pending or parked = amounts of all trees that were admitted

whatever happened in which order. What does not commute (a value that is set, the order of a buffer, when something ends) is
checked in place, against another part of the same state that has to agree with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from shardfun.sdk.context import Context
from shardfun.sdk.state import State, Value, value

LOG_MAX = 4
EGRESS = "log"


class Mark(msgspec.Struct, frozen=True):
    """What ``Stamp`` sets: how many there were with this one."""

    number: int
    tag: int


class Ledger(msgspec.Struct):
    """Changed in place."""

    sum: int = 0
    last: list[int] = []


class Base(State):
    """What every address has.

    ``sent``, ``received``: the last number by place. ``drained``: what went out of ``log`` again.
    """

    nodes: Value[int] = value(0)
    total: Value[int] = value(0)
    stamps: Value[int] = value(0)
    stamp: Value[Mark | None] = value(None)
    answers: Value[int] = value(0)
    emitted: Value[int] = value(0)


class Plain(Base):
    """Single values, some of them mutable."""

    log: Value[list[int]] = value(default_factory=list)
    drained: Value[int] = value(0)
    book: Value[dict[str, int]] = value(default_factory=dict)
    ledger: Value[Ledger] = value(default_factory=Ledger)
    sent: Value[dict[str, int]] = value(default_factory=dict)
    received: Value[dict[str, int]] = value(default_factory=dict)


class Surroundings:
    """What the application shares in one process, and does not store.

    Args:
        violations: what the functions themselves find wrong.
    """

    def __init__(self, violations: list[str]) -> None:
        self.violations = violations
        self.attempts = Counter[int]()
        """By tag: for what fails at every other attempt."""


class Failing(Exception):  # noqa: N818 - raised by the application on purpose
    """What ``Fail`` raises."""


class Stage:
    """One invocation.

    Args:
        place: ``typename:id`` of the address.
        tag: of what is performed.
    """

    __slots__ = ("around", "ctx", "place", "tag")

    def __init__(self, ctx: Context[Any], around: Surroundings, tag: int = 0) -> None:
        self.ctx = ctx
        self.around = around
        self.place = place_of(*ctx.self)
        self.tag = tag

    @property
    def state(self) -> Any:
        """Of the address: each command is only drawn for types that have what it needs."""
        return self.ctx.state

    def expect(self, what: str, found: Any, expected: Any) -> None:
        """Find a violation unless both are equal."""
        if found != expected:
            self.around.violations.append(f"{self.place}, node {self.tag}: {what}: expected {expected!r}, found {found!r}")

    # ---- order ----------------------------------------------------------------------------------------------------------
    @property
    def counts(self) -> bool:
        """Whether this address numbers its messages and looks at the numbers of others."""
        return isinstance(self.ctx.state, Plain)

    def next_number(self, target: str) -> int:
        """The number of the next message to a place; 0: it has none."""
        if not self.counts:
            return 0
        sent = self.state.sent
        sent[target] = sent.get(target, 0) + 1
        return int(sent[target])

    def check_number(self, origin: str, number: int, *, keep: bool = True) -> None:
        """A message has come: behind all that were sent before it.

        Args:
            keep: write it down; not if the invocation only reads.
        """
        if not number or not self.counts:
            return
        last = self.state.received.get(origin, 0)
        if number <= last:
            self.expect(f"message from {origin}", number, f"more than {last}")
        if keep:
            self.state.received[origin] = number


class Command(msgspec.Struct, frozen=True, tag=True):
    """Something for an address to do. Its class name is stored with it."""

    def perform(self, stage: Stage) -> None:
        """Do it."""
        raise NotImplementedError

    def amounts(self) -> Iterator[tuple[str, int]]:
        """What it adds to its address."""
        return iter(())


class Increment(Command, frozen=True):
    """Add to an immutable value."""

    n: int

    def perform(self, stage: Stage) -> None:
        """See the class."""
        stage.state.total += self.n

    def amounts(self) -> Iterator[tuple[str, int]]:
        """See ``Command``."""
        yield "total", self.n


class Stamp(Command, frozen=True):
    """Set a value to something new. It holds how often it was set, which is counted beside it, too."""

    def perform(self, stage: Stage) -> None:
        """See the class."""
        state = stage.state
        before = 0 if state.stamp is None else state.stamp.number
        stage.expect("number in the stamp", before, state.stamps)
        state.stamps += 1
        state.stamp = Mark(state.stamps, stage.tag)

    def amounts(self) -> Iterator[tuple[str, int]]:
        """See ``Command``."""
        yield "stamps", 1


class Mutate(Command, frozen=True):
    """Change a list, a dictionary and a struct in place."""

    key: str
    n: int

    def perform(self, stage: Stage) -> None:
        """See the class."""
        state = stage.state
        state.log.append(self.n)
        if len(state.log) > LOG_MAX:
            state.drained += sum(state.log[:-1])
            del state.log[:-1]
        state.book[self.key] = state.book.get(self.key, 0) + self.n
        state.ledger.sum += self.n
        state.ledger.last = [stage.tag, *state.ledger.last[:2]]

    def amounts(self) -> Iterator[tuple[str, int]]:
        """See ``Command``."""
        yield "log", self.n
        yield f"book {self.key}", self.n
        yield "ledger", self.n


class Emit(Command, frozen=True):
    """Emit a record."""

    def perform(self, stage: Stage) -> None:
        """See the class."""
        stage.state.emitted += 1
        stage.ctx.emit(EGRESS, [stage.place, stage.tag])

    def amounts(self) -> Iterator[tuple[str, int]]:
        """See ``Command``."""
        yield "emitted", 1


class Fail(Command, frozen=True):
    """Raise, after everything else: always, or at every other attempt."""

    always: bool

    def perform(self, stage: Stage) -> None:
        """See the class.

        Raises:
            Failing: mostly.
        """
        stage.around.attempts[stage.tag] += 1
        if self.always or stage.around.attempts[stage.tag] % 2:
            raise Failing(stage.tag)


def place_of(typename: str, id: str) -> str:
    """The name of an address in amounts."""
    return f"{typename}:{id}"


def amounts_of(fields: dict[str, Any]) -> dict[str, int]:
    """The amounts that single values hold.

    Args:
        fields: as stored; what is missing is at its default.
    """
    found = {name: fields.get(name, 0) for name in ("nodes", "total", "stamps", "answers", "emitted")}
    found["log"] = sum(fields.get("log", ())) + fields.get("drained", 0)
    found["ledger"] = fields.get("ledger", {}).get("sum", 0)
    found |= {f"book {key}": n for key, n in fields.get("book", {}).items()}
    return {name: n for name, n in found.items() if n}
