"""Command trees, the application: one function type for each way in which functions run and fail.

It knows nothing of the simulator: real nodes run it, too.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any, assert_never

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

FAST = "trees/fast"
PLAIN = "trees/plain"
FRAIL = "trees/frail"
PATIENT = "trees/patient"
BRITTLE = "trees/brittle"
LEAF = "leaves/oak"
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


def declare_trees(app: App, around: Surroundings, ingress: str) -> None:
    """Declare functions and a router.

    Args:
        ingress: its records are steps, or objects that can become steps.
    """
    for typename, policy in POLICIES.items():

        @app.function(typename, on_failure=policy)
        def plain(ctx: Context[Plain], message: AnyMessage) -> None:
            perform(Stage(ctx, around), message)

    @app.function(FAST)
    def fast(ctx: Context[Base], message: Step | Question | Answer) -> None:
        perform(Stage(ctx, around), message)

    _declare_collections(app, around)
    _declare_calls(app, around)

    @app.router(ingress)
    def route(record: Any) -> Iterable[Message]:
        step = record if type(record) is Step else msgspec.convert(record, Step)
        yield Message(step.node.typename, step.node.id, step)


def _declare_collections(app: App, around: Surroundings) -> None:
    @app.function(RICH, on_failure=retry(attempts=2))
    def rich(ctx: Context[Rich], message: AnyMessage) -> None:
        perform(Stage(ctx, around), message)

    @app.function(FADING)
    def fading(ctx: Context[Fading], message: AnyMessage) -> None:
        perform(Stage(ctx, around), message)

    @app.function(MORTAL)
    def mortal(ctx: Context[Mortal], message: Step | Question | Answer) -> None:
        perform(Stage(ctx, around), message)

    @app.function(PASSING, expire_idle=dt.timedelta(milliseconds=LIFE_MS))
    def passing(ctx: Context[Passing], message: Step) -> None:
        stage = Stage(ctx, around, message.node.tag)
        ctx.state.count += 1
        ctx.send(NOTARY, ctx.self.id, Visit(stage.place, stage.now_ms, ctx.state.count))
        for command in message.node.commands:
            command.perform(stage)

    @app.function(NOTARY)
    def notary(ctx: Context[Books], message: Estate | Visit) -> None:
        stage = Stage(ctx, around)
        if isinstance(message, Visit):
            take_visit(stage, message.place, message.at_ms, message.count)
        else:
            take_estate(stage, message)


def _declare_calls(app: App, around: Surroundings) -> None:
    @app.function(SLOW, on_failure=SLOW_POLICY)
    async def slow(ctx: Context[Plain], message: AnyMessage) -> None:
        await perform_slowly(Stage(ctx, around), message)

    @app.function(HURRIED, timeout=around.timeout_s, concurrency=2)
    async def hurried(ctx: Context[Plain], message: AnyMessage) -> None:
        await perform_slowly(Stage(ctx, around), message)

    @app.function(THREAD, blocking=True, timeout=around.timeout_s)
    def thread(ctx: Context[Plain], message: AnyMessage) -> None:
        around.block()
        perform(Stage(ctx, around), message)


def perform(stage: Stage, message: AnyMessage) -> None:
    """What every function does with a message."""
    match message:
        case Question(origin, number):
            assert stage.ctx.caller is not None
            stage.check_number(origin, number, keep=False)
            stage.ctx.send(*stage.ctx.caller, Answer(stage.place, number))
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
    if step.due_ms and stage.around.punctual:
        now_ms = stage.now_ms if stage.around.clock_ms is None else stage.around.clock_ms()
        if now_ms < step.due_ms:
            stage.expect("message before its time", now_ms, f"{step.due_ms} or later")
    if step.armed:
        stage.expect("fired before", step.node.tag in stage.state.alarms.fired, expected=False)
        stage.state.alarms.fired.append(step.node.tag)


def all_nodes(steps: Iterable[Step]) -> dict[int, Node]:
    """The nodes of all trees, by tag."""
    return {node.tag: node for step in steps for node in step.node.below()}
