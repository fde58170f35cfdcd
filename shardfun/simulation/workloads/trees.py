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

import msgspec

from shardfun.model.doors import IngressBatch
from shardfun.sdk.app import App
from shardfun.simulation.options import Options
from shardfun.simulation.view import CheckpointView, Waiting
from shardfun.simulation.violation import wrong
from shardfun.simulation.workloads.trees_app import all_nodes, declare_trees
from shardfun.simulation.workloads.trees_draw import draw_steps
from shardfun.simulation.workloads.trees_nodes import Answer, Node, Parcel, Question, Step
from shardfun.simulation.workloads.trees_values import EGRESS, Emit, Surroundings, amounts_of, place_of
from shardfun.simulation.workloads.workload import MAIN, Ball, Workload, same, share

Sum = Counter[tuple[str, str]]
"""By place and what."""


class Trees(Workload):
    """See the module."""

    egress = EGRESS

    def __init__(self, options: Options) -> None:
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
        declare_trees(app, Surroundings(self.violations), MAIN)

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
        found = Sum()
        for address, fields in view.states.items():
            place = place_of(*address)
            for what, n in amounts_of(fields).items():
                found[place, what] += n
        for item in view.waiting:
            self._add_message(found, item)
        for letter in view.letters:
            self._add_letter(found, letter)
        self._admit(view)
        _compare(found, self._expected)
        emitted = sum(n for (_, what), n in found.items() if what == "emitted")
        waiting = emitted - sum(fields["emitted"] for fields in view.states.values() if "emitted" in fields)
        same("emitted", view.emitted[EGRESS], emitted - waiting)

    def _admit(self, view: CheckpointView) -> None:
        """Positions of complete checkpoints only grow: so what is expected grows with them."""
        for partition, steps in enumerate(self._steps):
            position = view.position(MAIN, partition)
            for step in steps[self._admitted[partition] : position]:
                self._expected.update(self._amounts[step.node.tag])
            self._admitted[partition] = position

    def _add_message(self, found: Sum, item: Waiting) -> None:
        match item.value:
            case Step(_, _, node) | Parcel(Step(_, _, node)):
                self._is_drawn(node, place_of(*item.target))
                found.update(self._amounts[node.tag])
            case Question(origin):
                found[origin, "answers"] += 1
            case Answer():
                found[place_of(*item.target), "answers"] += 1
            case Ball():
                pass
            case _:
                wrong(f"nobody has sent {item}")

    def _is_drawn(self, node: Node, place: str) -> None:
        if self._nodes.get(node.tag) != node or node.place != place:
            wrong(f"for {place} waits {node}, drawn was {self._nodes.get(node.tag)}")

    def _add_letter(self, found: Sum, letter: dict[str, Any]) -> None:
        payload = letter["payload"]
        node = msgspec.convert(payload.get("step", payload)["node"], Node)
        self._is_drawn(node, place_of(*letter["target"]))
        if node.fate is None:
            wrong(f"node {node.tag} is a dead letter, and does not fail: {letter['reason']}")
        if node.dies:
            found["dead letters", str(node.tag)] += 1
        else:
            found.update(self._amounts[node.tag])

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
