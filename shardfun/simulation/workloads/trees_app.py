"""Command trees, the application: one function type for each way in which functions run and fail.

It knows nothing of the simulator: real nodes run it, too.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any, TypeVar, assert_never

import msgspec

from shardfun.model.operations import OperationResult
from shardfun.sdk.app import App, Message
from shardfun.sdk.context import Context
from shardfun.sdk.policies import dead_letter, restart, retry
from shardfun.simulation.workloads.trees_collections import (
    LIFE_MS,
    NOTARY,
    Books,
    Estate,
    Fading,
    Mortal,
    Passing,
    Rich,
    take_estate,
    take_visit,
)
from shardfun.simulation.workloads.trees_nodes import Answer, Node, Parcel, Question, Step, Visit
from shardfun.simulation.workloads.trees_values import Base, Job, Pause, Plain, Stage, Surroundings, take_result

F = TypeVar("F", bound=Callable[..., Awaitable[None] | None])

FAST = "trees/fast"
PLAIN = "trees/plain"
FRAIL = "trees/frail"
PATIENT = "trees/patient"
BRITTLE = "trees/brittle"
LEAF = "leaves/oak"
LEAVES = frozenset((LEAF,))
RICH = "trees/rich"
FADING = "trees/fading"
MORTAL = "trees/mortal"
PASSING = "trees/passing"
SLOW = "trees/slow"
HURRIED = "trees/hurried"
THREAD = "trees/thread"

POLICIES = {
    PLAIN: None,
    FRAIL: dead_letter(),
    PATIENT: retry(attempts=3, backoff=0.02, backoff_max=0.03),
    BRITTLE: restart(),
    "leaves/*": None,
}
"""Of the types with single values that run at once."""

UNCOUNTED = frozenset((FAST, MORTAL, PASSING))
"""Types that number no messages."""

SLOW_POLICY = retry(attempts=4, backoff=0.01)
AnyMessage = Step | Parcel | Question | Answer | OperationResult[Job, int]


class _Declaring:
    """Declares the functions of a run, and no others: each type costs time, whether it is used or not."""

    def __init__(self, app: App, types: Collection[str]) -> None:
        self._app = app
        self._types = {"leaves/*" if typename in LEAVES else typename for typename in types}
        if not self._types.isdisjoint((MORTAL, PASSING)):
            self._types.add(NOTARY)

    def function(self, typename: str, **options: Any) -> Callable[[F], F]:
        """As ``App.function``, if the type is wanted."""
        return self._app.function(typename, **options) if typename in self._types else _as_it_is

    def handler(self, typename: str) -> Callable[[F], F]:
        """As ``App.handler``, likewise."""
        return self._app.handler(typename) if typename in self._types else _as_it_is


def _as_it_is(function: F) -> F:
    return function


def declare_trees(app: App, around: Surroundings, ingress: str, types: Collection[str]) -> None:
    """Declare functions and a router.

    Args:
        ingress: its records are steps, or objects that can become steps.
        types: those that occur in the trees.
    """
    declaring = _Declaring(app, types)
    for typename, policy in POLICIES.items():

        @declaring.function(typename, on_failure=policy)
        def plain(ctx: Context[Plain], message: Step | Parcel | Question | OperationResult[Job, int]) -> None:
            perform(Stage(ctx, around), message)

        @declaring.handler(typename)
        def answered(ctx: Context[Plain], message: Answer) -> None:
            perform(Stage(ctx, around), message)

    @declaring.function(FAST)
    def fast(ctx: Context[Base], message: Step | Question | Answer) -> None:
        perform(Stage(ctx, around), message)

    _declare_collections(declaring, around)
    _declare_calls(declaring, around)

    @app.router(ingress)
    def route(record: Any) -> Iterable[Message]:
        step = record if type(record) is Step else msgspec.convert(record, Step)
        yield Message(step.node.typename, step.node.id, step)


def _declare_collections(declaring: _Declaring, around: Surroundings) -> None:
    @declaring.function(RICH, on_failure=retry(attempts=2))
    def rich(ctx: Context[Rich], message: AnyMessage) -> None:
        perform(Stage(ctx, around), message)

    @declaring.function(FADING)
    def fading(ctx: Context[Fading], message: AnyMessage) -> None:
        perform(Stage(ctx, around), message)

    @declaring.function(MORTAL)
    def mortal(ctx: Context[Mortal], message: Step | Question | Answer) -> None:
        perform(Stage(ctx, around), message)

    @declaring.function(PASSING, expire_idle=dt.timedelta(milliseconds=LIFE_MS))
    def passing(ctx: Context[Passing], message: Step) -> None:
        stage = Stage(ctx, around, message.node.tag)
        ctx.state.count += 1
        ctx.send(NOTARY, ctx.self.id, Visit(stage.place, stage.now_ms, ctx.state.count))
        for command in message.node.commands:
            command.perform(stage)

    @declaring.function(NOTARY)
    def notary(ctx: Context[Books], message: Estate | Visit) -> None:
        stage = Stage(ctx, around)
        if isinstance(message, Visit):
            take_visit(stage, message.place, message.at_ms, message.count)
        else:
            take_estate(stage, message)


def _declare_calls(declaring: _Declaring, around: Surroundings) -> None:
    @declaring.function(SLOW, on_failure=SLOW_POLICY)
    async def slow(ctx: Context[Plain], message: AnyMessage) -> None:
        await perform_slowly(Stage(ctx, around), message)

    @declaring.function(HURRIED, timeout=around.timeout_s, concurrency=2)
    async def hurried(ctx: Context[Plain], message: AnyMessage) -> None:
        await perform_slowly(Stage(ctx, around), message)

    @declaring.function(THREAD, blocking=True, timeout=around.timeout_s)
    def thread(ctx: Context[Plain], message: AnyMessage) -> None:
        around.block()
        perform(Stage(ctx, around), message)


def perform(stage: Stage, message: AnyMessage) -> None:
    """What every function does with a message."""
    match message:
        case Question(origin, number):
            stage.check_number(origin, number, keep=False)
            stage.ctx.reply(Answer(stage.place, number))
        case Answer(origin, number):
            stage.check_number(f"answer {origin}", number)
            stage.state.answers += 1
        case Parcel(step, stamps):
            stage.expect("stamps on the parcel", stamps, [])
            stamps.append(step.node.tag)
            perform_step(stage, step)
        case Step():
            perform_step(stage, message)
        case OperationResult():
            take_result(stage, message)
        case _:
            assert_never(message)


async def perform_slowly(stage: Stage, message: AnyMessage) -> None:
    """The same, where functions may wait. Nobody else is at this address meanwhile, as far as this process can tell."""
    around, inside = stage.around, stage.place
    stage.expect("invocation under way", inside in around.inside, expected=False)
    around.inside.add(inside)
    try:
        if isinstance(message, Parcel):
            stage.expect("stamps on the parcel", message.stamps, [])
            message.stamps.append(message.step.node.tag)
            message = message.step
        if not isinstance(message, Step):
            perform(stage, message)
            return
        begin(stage, message)
        for command in message.node.commands:
            if isinstance(command, Pause):
                await around.pause()
            else:
                command.perform(stage)
    finally:
        around.inside.discard(inside)


def perform_step(stage: Stage, step: Step) -> None:
    """A node that never waits."""
    begin(stage, step)
    for command in step.node.commands:
        command.perform(stage)


def begin(stage: Stage, step: Step) -> None:
    """Before the first command."""
    stage.tag = step.node.tag
    stage.check_number(step.origin, step.number)
    stage.state.nodes += 1
    if step.due_ms and stage.around.punctual():
        now_ms = stage.now_ms if stage.around.clock_ms is None else stage.around.clock_ms()
        if now_ms < step.due_ms:
            stage.expect("message before its time", now_ms, f"{step.due_ms} or later")
    if step.armed:
        stage.expect("fired before", step.node.tag in stage.state.alarms.fired, expected=False)
        stage.state.alarms.fired.append(step.node.tag)


def all_nodes(steps: Iterable[Step]) -> dict[int, Node]:
    """The nodes of all trees, by tag."""
    return {node.tag: node for step in steps for node in step.node.below()}
