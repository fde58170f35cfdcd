"""Command trees, the application: one function type for each way in which functions run and fail.

It knows nothing of the simulator: real nodes run it, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from shardfun.sdk.app import App, Message
from shardfun.sdk.context import Context
from shardfun.sdk.policies import dead_letter, retry
from shardfun.simulation.workloads.trees_nodes import Answer, Node, Parcel, Question, Step
from shardfun.simulation.workloads.trees_values import Base, Plain, Stage, Surroundings

FAST = "trees/fast"
PLAIN = "trees/plain"
FRAIL = "trees/frail"
STUBBORN = "trees/stubborn"

POLICIES = {PLAIN: None, FRAIL: dead_letter(), STUBBORN: retry(attempts=3)}
"""Of the types with single values."""


def declare_trees(app: App, around: Surroundings, ingress: str) -> None:
    """Declare functions and a router.

    Args:
        ingress: its records are steps, or objects that can become steps.
    """
    for typename, policy in POLICIES.items():

        @app.function(typename, on_failure=policy)
        def plain(ctx: Context[Plain], message: Step | Parcel | Question | Answer) -> None:
            perform(Stage(ctx, around), message)

    @app.function(FAST)
    def fast(ctx: Context[Base], message: Step | Question | Answer) -> None:
        perform(Stage(ctx, around), message)

    @app.router(ingress)
    def route(record: Any) -> Iterable[Message]:
        step = record if type(record) is Step else msgspec.convert(record, Step)
        yield Message(step.node.typename, step.node.id, step)


def perform(stage: Stage, message: Step | Parcel | Question | Answer) -> None:
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


def all_nodes(steps: Iterable[Step]) -> dict[int, Node]:
    """The nodes of all trees, by tag."""
    return {node.tag: node for step in steps for node in step.node.below()}
