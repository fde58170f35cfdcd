"""Command trees, the commands for an address alone: what each does, and which amounts it adds to the world.

Amounts of different commands commute. Everything is drawn before the run, so what a tree adds up to is known without running it,
and in every complete checkpoint

    amounts in state + amounts of what waits, is pending or parked = amounts of all trees that were admitted

whatever happened in which order. What does not commute (a value that is set, the order of a buffer, when something ends) is
checked in place, against another part of the same state that has to agree with it.

A little long: the state, and a small class for each command.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator
from typing import Any, Literal

import msgspec

from shardfun.model.operations import OperationResult, OperationStatus
from shardfun.sdk.context import Context
from shardfun.sdk.state import State, Value, value

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
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
    """What every address has. All of it immutable."""

    nodes: Value[int] = value(0)
    total: Value[int] = value(0)
    stamps: Value[int] = value(0)
    stamp: Value[Mark | None] = value(None)
    answers: Value[int] = value(0)
    emitted: Value[int] = value(0)


class Alarms(msgspec.Struct):
    """What became of nodes that were sent later with a token.

    Args:
        armed: their tags by token.
        refused: tags of those that were not sent, since the token was pending.
        cancelled: tags, perhaps cancelled too late.
        fired: tags of those that have come here.
    """

    armed: dict[str, list[int]] = {}
    refused: list[int] = []
    cancelled: list[int] = []
    fired: list[int] = []


class Plain(Base):
    """Single values, some of them mutable.

    ``drained``: what went out of ``log`` again. ``sent``, ``received``: the last number by place. ``outcomes``: of operations,
    how often each status came.
    """

    log: Value[list[int]] = value(default_factory=list)
    drained: Value[int] = value(0)
    book: Value[dict[str, int]] = value(default_factory=dict)
    ledger: Value[Ledger] = value(default_factory=Ledger)
    outcomes: Value[dict[str, int]] = value(default_factory=dict)
    alarms: Value[Alarms] = value(default_factory=Alarms)
    cancels: Value[int] = value(0)
    sent: Value[dict[str, int]] = value(default_factory=dict)
    received: Value[dict[str, int]] = value(default_factory=dict)


class Surroundings:
    """What the application shares in one process, and does not store.

    Args:
        violations: what the functions themselves find wrong; ``None``: it is emitted.
        pause: what asynchronous code awaits; ``block``: what blocking code does.
        clock_ms: by which delayed messages are punctual, and what it says that it is over may be over; ``None``: that of the runtime.
        went_back: whether the clock of the runtime was ever set back.
        rounded_ms: what is sent later is due at multiples of this.
        replayed: origin and number of messages that were parked, and may come late. Never iterated.
        punctual: whether delayed messages never come early now (a run may be asked to fire them all at its end).
        timeout_s: of the calls that have one.
    """

    def __init__(
        self,
        violations: list[str] | None,
        pause: Callable[[], Awaitable[None]],
        block: Callable[[], None] = lambda: None,
        clock_ms: Callable[[], int] | None = None,
        went_back: Callable[[], bool] = lambda: False,
        replayed: Collection[tuple[str, int]] = frozenset(),
        rounded_ms: int = 0,
        *,
        punctual: Callable[[], bool] = lambda: True,
        timeout_s: float = 2.0,
    ) -> None:
        self.violations = violations
        self.pause = pause
        self.block = block
        self.clock_ms = clock_ms
        self.went_back = went_back
        self.replayed = replayed
        self.rounded_ms = rounded_ms
        self.punctual = punctual
        self.timeout_s = timeout_s
        self.attempts = Counter[int]()
        """By tag: for what fails at every other attempt."""
        self.inside: set[str] = set()
        """Places that an asynchronous invocation is in. Never iterated."""

    async def work(self, n: int, fails: bool) -> int:  # noqa: FBT001 - called through ``start_operation``
        """An operation that waits.

        Raises:
            Failing: if it shall.
        """
        await self.pause()
        return _result(n, fails)

    def work_in_thread(self, n: int, fails: bool) -> int:  # noqa: FBT001 - as above
        """An operation that blocks.

        Raises:
            Failing: if it shall.
        """
        self.block()
        return _result(n, fails)


def _result(n: int, fails: bool) -> int:  # noqa: FBT001 - as above
    if fails:
        raise Failing(n)
    return 2 * n


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
        if found == expected:
            return
        text = f"{self.place}, node {self.tag}: {what}: expected {expected!r}, found {found!r}"
        if self.around.violations is None:
            self.ctx.emit(EGRESS, ["violation", text])
        else:
            self.around.violations.append(text)

    @property
    def now_ms(self) -> int:
        """Unix milliseconds."""
        return (self.ctx.now() - EPOCH) // dt.timedelta(milliseconds=1)

    def may_be_over(self, until_ms: int) -> bool:
        """Whether what lives until then may be gone: it was that late, even if the clock was set back since."""
        if not self.around.went_back():
            return self.now_ms >= until_ms
        assert self.around.clock_ms is not None
        return self.around.clock_ms() >= until_ms

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
        if number <= last and (origin, number) in self.around.replayed:
            return
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


class Pause(Command, frozen=True):
    """Wait. Only for addresses whose functions may."""

    def perform(self, stage: Stage) -> None:
        """Nothing: whoever can wait does so instead."""


class Job(msgspec.Struct, frozen=True):
    """The metadata of an operation. ``caller``: the place that had sent the node, which is the caller of the result, too."""

    tag: int
    n: int
    caller: str


class Operate(Command, frozen=True):
    """Start an operation.

    Args:
        waits: as a coroutine; else in a thread.
    """

    n: int
    fails: bool
    waits: bool

    def perform(self, stage: Stage) -> None:
        """See the class."""
        caller = stage.ctx.caller
        work = stage.around.work if self.waits else stage.around.work_in_thread
        job = Job(stage.tag, self.n, "" if caller is None else place_of(*caller))
        stage.ctx.start_operation(work, self.n, self.fails, metadata=job)

    def amounts(self) -> Iterator[tuple[str, int]]:
        """See ``Command``."""
        yield "operations", 1


def take_result(stage: Stage, result: OperationResult[Job, int]) -> None:
    """The result of an operation has come."""
    job, outcomes = result.metadata, stage.state.outcomes
    stage.tag = job.tag
    caller = stage.ctx.caller
    stage.expect("caller of the result", "" if caller is None else place_of(*caller), job.caller)
    match result.status:
        case OperationStatus.SUCCESS:
            stage.expect("result", (result.value, result.error), (2 * job.n, None))
        case OperationStatus.FAILURE:
            stage.expect("result of a failure", (result.value, type(result.error)), (None, str))
        case OperationStatus.UNKNOWN:
            stage.expect("unknown result", (result.value, result.error), (None, None))
    outcomes[result.status.value] = outcomes.get(result.status.value, 0) + 1


class Cancel(Command, frozen=True):
    """Cancel what was armed with a token. It may have fired."""

    token: str

    def perform(self, stage: Stage) -> None:
        """See the class."""
        stage.ctx.cancel(self.token)
        stage.state.cancels += 1
        alarms = stage.state.alarms
        alarms.cancelled += alarms.armed.get(self.token, ())

    def amounts(self) -> Iterator[tuple[str, int]]:
        """See ``Command``."""
        yield "cancels", 1


class Fail(Command, frozen=True):
    """Raise, after everything else.

    Args:
        when: ``always``; ``odd``: at every other attempt; ``once``: in each process, at the first one.
    """

    when: Literal["always", "odd", "once"]

    def perform(self, stage: Stage) -> None:
        """See the class.

        Raises:
            Failing: mostly.
        """
        stage.around.attempts[stage.tag] += 1
        attempt = stage.around.attempts[stage.tag]
        if self.when == "always" or (attempt % 2 if self.when == "odd" else attempt == 1):
            raise Failing(stage.tag)


def place_of(typename: str, id: str) -> str:
    """The name of an address in amounts."""
    return f"{typename}:{id}"


def amounts_of(fields: dict[str, Any]) -> dict[str, int]:
    """The amounts that single values hold.

    Args:
        fields: as stored; what is missing is at its default.
    """
    found = {name: fields.get(name, 0) for name in ("nodes", "total", "stamps", "answers", "emitted", "cancels", "fades")}
    found["log"] = sum(fields.get("log", ())) + fields.get("drained", 0)
    found["ledger"] = fields.get("ledger", {}).get("sum", 0)
    alarms = fields.get("alarms", {})
    found["arms"] = sum(map(len, alarms.get("armed", {}).values())) + len(alarms.get("refused", ()))
    found["operations"] = sum(fields.get("outcomes", {}).values())
    found |= {f"book {key}": n for key, n in fields.get("book", {}).items()}
    return {name: n for name, n in found.items() if n}
