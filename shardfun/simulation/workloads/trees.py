"""Command trees: random trees of commands that exercise the whole function model, with an oracle for every checkpoint.

What the trees are is told in ``trees_values`` (commands, and the equation that holds in each checkpoint) and ``trees_nodes``;
the application is in ``trees_app``. Here is what judges it: each command of each admitted tree is exactly once in state, in a
message that waits, or in a dead letter.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

import cbor2
import msgspec

from shardfun.core.operations import OPERATIONS
from shardfun.core.timer_index import TIMER_PREFIX
from shardfun.core.timers import StoredTimer
from shardfun.model.doors import IngressBatch
from shardfun.model.operations import OperationResult
from shardfun.sdk.app import App
from shardfun.simulation.calls import Turn
from shardfun.simulation.options import Options
from shardfun.simulation.view import CheckpointView, Waiting
from shardfun.simulation.violation import wrong
from shardfun.simulation.workloads.trees_app import all_nodes, declare_trees
from shardfun.simulation.workloads.trees_draw import draw_steps
from shardfun.simulation.workloads.trees_nodes import Answer, Node, Parcel, Question, Step
from shardfun.simulation.workloads.trees_values import EGRESS, Emit, Surroundings, amounts_of, place_of
from shardfun.simulation.workloads.workload import MAIN, Ball, Workload, same, share

EXCUSES = ("FunctionTimeoutError:", "Broken:")
"""What may happen to a call."""

Sum = Counter[tuple[str, str]]
"""By place and what."""


class _Found:
    """What a checkpoint adds up to.

    ``arrived``: by tag, optional nodes that have come or will; ``pending``: nodes whose timers have not fired.
    """

    __slots__ = ("amounts", "arrived", "pending")

    def __init__(self) -> None:
        self.amounts = Sum()
        self.arrived = Counter[int]()
        self.pending: set[int] = set()


class Trees(Workload):
    """See the module."""

    egress = EGRESS

    def __init__(self, options: Options) -> None:
        self._punctual = options.limits.timers_at_end != "fire"
        self._waits_for_timers = options.ping_pong or options.limits.timers_at_end != "keep"
        super().__init__(options)
        chance = random.Random(options.seed)
        self._steps = [
            draw_steps(chance, partition, share(options.records, partition, options.shards))
            for partition in range(options.shards)
        ]
        self._nodes = all_nodes(step for steps in self._steps for step in steps)
        self._amounts = {tag: _sum(node.amounts()) for tag, node in self._nodes.items()}
        self._admitted = [0] * options.shards
        self._expected = Sum()

    def declare(self, app: App) -> None:
        """See ``trees_app``."""
        declare_trees(app, Surroundings(self.violations, Turn, punctual=self._punctual), MAIN)

    def total(self, partition: int) -> int:
        """See ``Workload``."""
        return len(self._steps[partition])

    def batch(self, partition: int, start: int, stop: int) -> IngressBatch:
        """See ``Workload``."""
        return IngressBatch(position=stop, records=list(self._steps[partition][start:stop]))

    # ---- checks ---------------------------------------------------------------------------------------------------------
    def check(self, view: CheckpointView) -> None:
        """See ``Workload``."""
        self.check_balls(view)
        found = self._found(view)
        self._admit(view)
        _compare(found.amounts, self._expected + self._optional(view, found))
        unknown = sum(fields.get("outcomes", {}).get("unknown", 0) for fields in view.states.values())
        if unknown and view.checkpoint >> 32 == 1:
            wrong(f"{unknown} operations have ended as unknown, without any recovery")
        same("emitted", view.emitted[EGRESS], sum(fields.get("emitted", 0) for fields in view.states.values()))

    def _found(self, view: CheckpointView) -> _Found:
        """Everything that the checkpoint adds up to."""
        found = _Found()
        for address, fields in view.states.items():
            place = place_of(*address)
            for what, n in amounts_of(fields).items():
                found.amounts[place, what] += n
            found.arrived.update(fields.get("fired", ()))
        for item in view.waiting:
            self._add_message(found, item)
        for letter in view.letters:
            self._add_letter(found, letter)
        for cells in view.cells:
            self._add_cells(found, cells)
        return found

    def _optional(self, view: CheckpointView, found: _Found) -> Sum:
        """What nodes add that were sent with a token, if they have arrived or still can. Each does, unless it was cancelled."""
        expected = Sum()
        known = Counter[int]()
        for fields in view.states.values():
            cancelled = {*fields.get("cancelled", ())}
            for token, tags in fields.get("armed", {}).items():
                pending = [tag for tag in tags if tag in found.pending]
                if len(pending) > 1:
                    wrong(f"token {token!r} has {len(pending)} pending timers: for the nodes {pending}")
                for tag in tags:
                    known[tag] += 1
                    count = found.arrived[tag]
                    if count != 1 and not (tag in cancelled and count == 0):
                        wrong(f"node {tag}, sent later with token {token!r}, is there {count} times; {tag in cancelled=}")
                    if tag in cancelled and tag in found.pending:
                        wrong(f"node {tag} was cancelled, and its timer is still pending")
        for tag, count in found.arrived.items():
            if known[tag] != 1:
                wrong(f"node {tag} was sent later {known[tag]} times, and is there {count} times")
            for amount, n in self._amounts[tag].items():
                expected[amount] += n * count
        return expected

    def settled(self, view: CheckpointView) -> bool:
        """See ``Workload``. Operations will send messages, and timers, too, if the run waits for them."""
        awaited = (OPERATIONS, TIMER_PREFIX) if self._waits_for_timers else OPERATIONS
        return super().settled(view) and not any(key.startswith(awaited) for cells in view.cells for key in cells)

    def _admit(self, view: CheckpointView) -> None:
        """Positions of complete checkpoints only grow: so what is expected grows with them."""
        for partition, steps in enumerate(self._steps):
            position = view.position(MAIN, partition)
            for step in steps[self._admitted[partition] : position]:
                self._expected.update(self._amounts[step.node.tag])
            self._admitted[partition] = position

    def _add_message(self, found: _Found, item: Waiting) -> None:
        match item.value:
            case (Step() as step) | Parcel(step):
                self._add_step(found, step, place_of(*item.target))
            case Question(origin):
                found.amounts[origin, "answers"] += 1
            case Answer():
                found.amounts[place_of(*item.target), "answers"] += 1
            case OperationResult():
                found.amounts[place_of(*item.target), "operations"] += 1
            case Ball():
                pass
            case _:
                wrong(f"nobody has sent {item}")

    def _add_step(self, found: _Found, step: Step, place: str, *, parked: bool = False) -> Node:
        """A node on its way to ``place``; ``parked``: it has got there, and failed."""
        node = step.node
        if self._nodes.get(node.tag) != node or node.place != place:
            wrong(f"for {place} waits {node}, drawn was {self._nodes.get(node.tag)}")
        if parked and node.dies:
            found.amounts["dead letters", str(node.tag)] += 1
        else:
            found.amounts.update(self._amounts[node.tag])
        if step.armed:
            found.arrived[node.tag] += 1
        return node

    def _add_cells(self, found: _Found, cells: dict[bytes, bytes]) -> None:
        for key, value in cells.items():
            if key.startswith(OPERATIONS):
                found.amounts[place_of(*cbor2.loads(value)[0]), "operations"] += 1
            elif key.startswith(TIMER_PREFIX):
                timer = StoredTimer(key[len(TIMER_PREFIX) :], value)
                step = msgspec.convert(timer.payload, Step)
                self._add_step(found, step, place_of(timer.typename, timer.id))
                if timer.due_ms < step.due_ms:
                    wrong(f"node {step.node.tag} would fire at {timer.due_ms}, and shall not before {step.due_ms}")
                found.pending.add(step.node.tag)

    def _add_letter(self, found: _Found, letter: dict[str, Any]) -> None:
        """A message that failed for good: what it would have added. A node that always fails adds the letter itself."""
        payload, place = letter["payload"], place_of(*letter["target"])
        excused = letter["reason"].startswith(EXCUSES)
        match letter["payload_type"].partition("[")[0].rpartition(".")[2]:
            case "Step" | "Parcel":
                node = self._add_step(found, msgspec.convert(payload.get("step", payload), Step), place, parked=True)
                excused = excused or node.fate is not None
            case "Question":
                found.amounts[payload["origin"], "answers"] += 1
            case "Answer":
                found.amounts[place, "answers"] += 1
            case "OperationResult":
                found.amounts[place, "operations"] += 1
            case other:
                wrong(f"nobody has sent a {other}")
        if not excused:
            wrong(f"a message to {place} is a dead letter, and should not fail: {letter['reason']}")

    def check_end(self, view: CheckpointView, published: list[Any]) -> None:
        """See ``Workload``."""
        places = Counter(place for place, _ in published)
        emitted = {place_of(*address): fields["emitted"] for address, fields in view.states.items() if fields.get("emitted")}
        same("published records by place", dict(places), emitted)
        for (place, tag), count in Counter(map(tuple, published)).items():
            node = self._nodes[tag]
            if place != node.place or count > sum(type(command) is Emit for command in node.commands):
                wrong(f"node {tag} has published {count} records at {place}")


def _sum(amounts: Iterable[tuple[tuple[str, str], int]]) -> Sum:
    found = Sum()
    for amount, n in amounts:
        found[amount] += n
    return found


def _compare(found: Sum, expected: Sum) -> None:
    if found == expected:  # counters: what is 0 counts as not there
        return
    differences = [
        (amount, found[amount], expected[amount]) for amount in found | expected if found[amount] != expected[amount]
    ]
    lines = [f"{what} of {place}: found {n}, expected {right}" for (place, what), n, right in sorted(differences)[:8]]
    wrong("; ".join(lines))
