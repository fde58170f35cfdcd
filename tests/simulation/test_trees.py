"""Command trees: what is drawn covers everything, and the oracle finds what is lost, doubled or half done."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import msgspec
import pytest

from shardfun.core.effects import StartCall
from shardfun.model.address import Address
from shardfun.simulation.calls import Calls, Turn
from shardfun.simulation.faults import Faults
from shardfun.simulation.options import draw
from shardfun.simulation.view import CheckpointView, Waiting
from shardfun.simulation.violation import Violation
from shardfun.simulation.workloads import trees_real
from shardfun.simulation.workloads.trees import Trees
from shardfun.simulation.workloads.trees_app import PLAIN, all_nodes
from shardfun.simulation.workloads.trees_draw import TYPES, draw_steps, draw_types
from shardfun.simulation.workloads.trees_nodes import AnyCommand, Node, Send, Step
from shardfun.simulation.workloads.trees_values import Emit, Fail, Increment


def test_what_is_drawn_has_every_command_and_every_type() -> None:
    """Over a few runs; tags are unique, and the input survives its way through a file."""
    commands: Counter[str] = Counter()
    types: Counter[str] = Counter()
    for seed in range(40):
        chance = random.Random(seed)
        chosen = draw_types(chance)
        steps = draw_steps(chance, chosen, 0, 30)
        nodes = [node for step in steps for node in step.node.below()]
        assert len(all_nodes(steps)) == len(nodes)
        commands.update(type(command).__name__ for node in nodes for command in node.commands)
        types.update(node.typename for node in nodes)
        assert set(types) <= set(TYPES)
        lines = trees_real.encode_steps(steps).splitlines()
        assert [msgspec.json.decode(line, type=Step) for line in lines] == steps
    assert set(commands) == {cls.__name__ for cls in AnyCommand.__args__}
    assert set(types) == set(TYPES)


def test_a_node_that_always_fails_adds_a_dead_letter_and_nothing_else() -> None:
    """Also nothing of what would have followed."""
    child = Node(2, PLAIN, "b", (Increment(5),))
    assert dict(Node(1, PLAIN, "a", (Increment(3), Send(child), Fail("always"))).amounts()) == {("dead letters", "1"): 1}
    assert dict(Node(1, PLAIN, "a", (Increment(3), Send(child), Fail("odd"))).amounts()) == {
        (f"{PLAIN}:a", "nodes"): 1,
        (f"{PLAIN}:a", "total"): 3,
        (f"{PLAIN}:b", "nodes"): 1,
        (f"{PLAIN}:b", "total"): 5,
    }


# ---- the oracle ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def trees() -> Trees:
    return Trees(draw(2, "trees"))


def view(trees: Trees, *, admitted: int, waiting: list[Waiting], states: dict[Address, dict[str, Any]]) -> CheckpointView:
    """A checkpoint that has taken in so many records of the first partition, all of which wait unless said otherwise."""
    positions: list[dict[str, Any]] = [{"main": 0} for _ in range(trees.shards)]
    positions[0]["main"] = admitted
    return CheckpointView(1, states, waiting, positions, [], [{}] * trees.shards, {"log": 0}, [False] * trees.shards)


def waiting_step(step: Step) -> Waiting:
    return Waiting("mailbox", 0, Address(step.node.typename, step.node.id), None, step)


def test_what_waits_and_what_was_admitted_are_the_same(trees: Trees) -> None:
    """The equation holds, and one message more or less is found."""
    steps: list[Step] = trees.batch(0, 0, 2).records
    waiting = [waiting_step(step) for step in steps]
    trees.check(view(trees, admitted=2, waiting=waiting, states={}))
    for wrong in (waiting[:1], [*waiting, waiting[1]]):
        with pytest.raises(Violation, match="expected"):
            Trees(draw(2, "trees")).check(view(trees, admitted=2, waiting=wrong, states={}))


def test_half_an_invocation_is_found(trees: Trees) -> None:
    """A node that was counted without its other effects."""
    steps: list[Step] = trees.batch(0, 0, 1).records
    node = steps[0].node
    states = {Address(node.typename, node.id): {"nodes": 1}}
    with pytest.raises(Violation, match="expected"):
        trees.check(view(trees, admitted=1, waiting=[], states=states))


def test_a_message_that_nobody_has_drawn_is_found(trees: Trees) -> None:
    """A payload that was damaged on its way."""
    steps: list[Step] = trees.batch(0, 0, 1).records
    strange = msgspec.structs.replace(steps[0], node=msgspec.structs.replace(steps[0].node, commands=()))
    with pytest.raises(Violation, match="drawn was"):
        trees.check(view(trees, admitted=1, waiting=[waiting_step(strange)], states={}))


def test_the_verdict_over_a_real_node_finds_what_is_missing_and_what_is_too_much() -> None:
    """The plain computation knows every amount and every record."""
    node = Node(1, PLAIN, "a", (Increment(3), Emit()))
    final = ["final", f"{PLAIN}:a", {"nodes": 1, "total": 3, "emitted": 1}, None]
    record = [f"{PLAIN}:a", 1]
    steps = [Step("in-0", 1, node)]
    assert trees_real.differences(steps, [final, record]) == []
    assert trees_real.differences(steps, [final]) == [f"{PLAIN}:a has emitted 1 records, 0 are published"]
    assert trees_real.differences(steps, [["final", f"{PLAIN}:a", {"nodes": 1, "total": 6, "emitted": 1}, None], record]) == [
        f"total of {PLAIN}:a: expected 3, found 6"
    ]
    alarms = {"armed": {"t": [7]}, "refused": [], "cancelled": [], "fired": []}
    armed = ["final", f"{PLAIN}:a", {"nodes": 1, "total": 3, "emitted": 1}, alarms]
    nodes = [*steps, Step("in-0", 2, Node(7, PLAIN, "b", ()))]
    assert "node 7 was not cancelled, and has not come" in trees_real.differences(nodes, [armed, record])


# ---- calls ---------------------------------------------------------------------------------------------------------------
def started(*codes: Any) -> tuple[Calls, list[tuple[int, Any, BaseException | None]]]:
    """Calls of these functions, and a list for what the core hears of their ends."""
    calls = Calls(random.Random(1))
    for number, code in enumerate(codes, 1):
        style = "async" if number == 1 else "blocking"
        calls.start(StartCall(number, f"call {number}", style, code, None, asyncio=False))  # type: ignore[arg-type]
    return calls, []


NO_FAULTS = Faults(draw(1).rates, 1, only=())


class Core:
    """Hears of the ends of calls."""

    def __init__(self, heard: list[tuple[int, Any, BaseException | None]]) -> None:
        self._heard = heard

    def call_done(self, number: int, value: Any, error: BaseException | None) -> None:
        self._heard.append((number, value, error))


def test_calls_go_on_one_await_at_a_time_and_their_ends_are_heard_of_later() -> None:
    """As tasks and threads of a real process, whose results come through a queue."""
    reached = []

    async def waits() -> str:
        reached.append(1)
        await Turn()
        reached.append(2)
        return "done"

    calls, heard = started(waits, lambda: 1 // 0)
    core: Any = Core(heard)
    while calls.step(NO_FAULTS, 0.0):
        assert heard == []
    assert reached == [1, 2]
    while calls.report(core):
        pass
    assert sorted((number, value, type(error)) for number, value, error in heard) == [
        (1, "done", type(None)),
        (2, None, ZeroDivisionError),
    ]


def test_a_reset_ends_calls_and_nobody_hears_of_them() -> None:
    """Coroutines are closed where they are."""
    closed = []

    async def waits() -> None:
        try:
            await Turn()
        finally:
            closed.append(1)

    calls, heard = started(waits)
    core: Any = Core(heard)
    assert calls.step(NO_FAULTS, 0.0) == "call 1 goes on"
    calls.reset()
    assert closed == [1]
    assert not calls.step(NO_FAULTS, 0.0)
    assert not calls.report(core)
