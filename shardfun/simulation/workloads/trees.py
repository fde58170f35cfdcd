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

from shardfun.core.cell_keys import REGISTERED_KIND, parse_cell_key, value_in
from shardfun.core.function import HIDDEN
from shardfun.core.hidden import DEADLINES
from shardfun.core.operations import OPERATIONS
from shardfun.core.timer_cells import StoredTimer
from shardfun.core.timer_index import TIMER_PREFIX
from shardfun.model.address import Address
from shardfun.model.doors import IngressBatch
from shardfun.model.operations import OperationResult, OperationStatus
from shardfun.sdk.app import App
from shardfun.simulation.calls import Turn
from shardfun.simulation.options import Options
from shardfun.simulation.view import CheckpointView, Waiting
from shardfun.simulation.violation import wrong
from shardfun.simulation.workloads.trees_app import FADING, MORTAL, PASSING, RICH, all_nodes, declare_trees
from shardfun.simulation.workloads.trees_collections import NOTARY, Estate, hoard_amounts
from shardfun.simulation.workloads.trees_draw import draw_steps, draw_types
from shardfun.simulation.workloads.trees_nodes import Answer, Node, Parcel, Question, Step, Visit
from shardfun.simulation.workloads.trees_values import EGRESS, Emit, Surroundings, amounts_of, place_of
from shardfun.simulation.workloads.workload import MAIN, Ball, Workload, same, share

EXCUSES = ("FunctionTimeoutError:", "Broken:")
"""What may happen to a call."""

Sum = Counter[tuple[str, str]]
"""By place and what."""


class _Found:
    """What a checkpoint adds up to.

    ``emitted``: records of invocations that are in the state. ``arrived``: by tag, optional nodes that have come or will; ``pending``: nodes whose timers have not fired.
    """

    __slots__ = ("amounts", "arrived", "emitted", "pending")

    def __init__(self) -> None:
        self.amounts = Sum()
        self.emitted = 0
        self.arrived = Counter[int]()
        self.pending: set[int] = set()

    def add_estate(self, place: str, amounts: Iterable[tuple[str, int]]) -> None:
        """What an instance had when it was deleted."""
        for what, n in amounts:
            self.amounts[place, what] += n
            if what == "emitted":
                self.emitted += n


class Trees(Workload):
    """See the module."""

    egress = EGRESS

    def __init__(self, options: Options) -> None:
        self._fires_at_end = options.limits.timers_at_end == "fire"
        self._lost: set[tuple[int, bytes]] = set()
        """Operations that were pending when a shard restored: how each has ended nobody knows."""
        self._rounded_ms = options.rounded_ms
        self._replayed: set[tuple[str, int]] = set()
        self._waits_for_timers = options.ping_pong or options.orders > 0 or options.limits.timers_at_end != "keep"
        chance = random.Random(options.seed)
        self._types = draw_types(chance)
        super().__init__(options)
        self._steps = [
            draw_steps(chance, self._types, partition, share(options.records, partition, options.shards))
            for partition in range(options.shards)
        ]
        self._used_up = not all(self._steps)
        """Whether a shard may have had its whole input, in whatever incarnation: it may fire its timers early then."""
        self._nodes = all_nodes(step for steps in self._steps for step in steps)
        self._amounts = {tag: _sum(node.amounts()) for tag, node in self._nodes.items()}
        self._admitted = [0] * options.shards
        self._expected = Sum()

    def declare(self, app: App) -> None:
        """See ``trees_app``."""
        around = Surroundings(
            self.violations,
            Turn,
            clock_ms=lambda: self.clock.highest_ms,
            went_back=lambda: self.clock.went_back,
            replayed=self._replayed,
            rounded_ms=self._rounded_ms,
            punctual=lambda: not (self._fires_at_end and self._used_up),
        )
        declare_trees(app, around, MAIN, self._types)

    def replayed(self, letter: dict[str, Any]) -> None:
        """See ``Workload``."""
        payload = letter.get("payload")
        payload = payload.get("step", payload) if isinstance(payload, dict) else {}
        if "origin" in payload:
            self._replayed.add((payload["origin"], payload["number"]))
            self._replayed.add((f"answer {payload['origin']}", payload["number"]))
            self._replayed.add((f"answer {place_of(*letter['target'])}", payload["number"]))  # to a question that was parked

    def total(self, partition: int) -> int:
        """See ``Workload``."""
        return len(self._steps[partition])

    def batch(self, partition: int, start: int, stop: int) -> IngressBatch:
        """See ``Workload``."""
        self._used_up |= stop >= self.total(partition)
        return IngressBatch(position=stop, records=list(self._steps[partition][start:stop]))

    def restored(self, shard: int, pending: Iterable[bytes]) -> None:
        """See ``Workload``."""
        self._lost.update((shard, key) for key in pending)

    # ---- checks ---------------------------------------------------------------------------------------------------------
    def check(self, view: CheckpointView) -> None:
        """See ``Workload``."""
        self.check_balls(view)
        found = self._found(view)
        self._admit(view)
        _compare(found.amounts, self._expected + self._optional(view, found))
        self._check_unknown(view)
        same("emitted", view.emitted[EGRESS], found.emitted)

    def _check_unknown(self, view: CheckpointView) -> None:
        """An operation ends as unknown only if it was pending when its shard restored."""
        results = (item.value for item in view.waiting if type(item.value) is OperationResult)
        unknown = sum(1 for result in results if result.status is OperationStatus.UNKNOWN)
        unknown += sum(fields.get("outcomes", {}).get("unknown", 0) for fields in view.states.values())
        if unknown > len(self._lost):
            wrong(f"{unknown} operations have ended as unknown, and {len(self._lost)} were pending when a shard restored")

    def _found(self, view: CheckpointView) -> _Found:
        """Everything that the checkpoint adds up to."""
        found = _Found()
        for address, fields in view.states.items():
            place = place_of(*address)
            for what, n in amounts_of(fields).items():
                found.amounts[place, what] += n
            if address.typename == NOTARY:
                self._add_books(found, fields)
            found.emitted += fields.get("emitted", 0)
            found.arrived.update(fields.get("alarms", {}).get("fired", ()))
        for item in view.waiting:
            self._add_message(found, item)
        for letter in view.letters:
            self._add_letter(found, letter)
        for cells in view.cells:
            self._add_cells(found, cells)
        self._add_collections(found, view)
        return found

    @staticmethod
    def _add_books(found: _Found, fields: dict[str, Any]) -> None:
        for place, amounts in fields.get("estates", {}).items():
            found.add_estate(place, amounts.items())
        for place, n in fields.get("visited", {}).items():
            found.amounts[place, "nodes"] += n

    @staticmethod
    def _add_collections(found: _Found, view: CheckpointView) -> None:
        """What maps, buffers and registries hold, which single values of the same address have to agree with."""
        parts = stored_collections(view)
        for address, fields in view.states.items():
            place, held = place_of(*address), parts.pop(address, {})
            if address.typename not in {RICH, MORTAL}:
                continue
            prices, recent = held.get("prices", []), [item["n"] for item in held.get("recent", [])]
            sums = (sum(prices), sum(recent))
            same(f"sums of map and buffer of {place}", sums, (fields.get("price_sum", 0), fields.get("recent_sum", 0)))
            for what, n in hoard_amounts(fields, prices, recent).items():
                found.amounts[place, what] += n
            found.amounts[place, "notes"] += sum(map(sum, held.get("notes", ()))) + fields.get("noted_away", 0)
            found.amounts[place, "extra"] += sum(held.get("extra", ()))
        strays = [address for address in parts if address.typename != FADING]
        if strays:
            wrong(f"parts of collections are stored for addresses without a record: {strays[:3]}")

    def _optional(self, view: CheckpointView, found: _Found) -> Sum:
        """What nodes add that were sent with a token, if they have arrived or still can. Each does, unless it was cancelled."""
        expected = Sum()
        known = Counter[int]()
        for fields in view.states.values():
            alarms = fields.get("alarms", {})
            cancelled = {*alarms.get("cancelled", ())}
            for token, tags in alarms.get("armed", {}).items():
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
        """See ``Workload``. Operations will send messages, and timers, too, if the run waits for them.

        A run that goes on has to remove all that expires from the store.
        """
        awaited = (OPERATIONS, TIMER_PREFIX) if self._waits_for_timers else OPERATIONS
        if any(key.startswith(awaited) for cells in view.cells for key in cells):
            return False
        return super().settled(view) and not (self.endless and _expires(view))

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
            case Visit(place):
                found.amounts[place, "nodes"] += 1
            case Estate(place, amounts):
                found.add_estate(place, amounts)
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

    def check_end(self, view: CheckpointView, published: list[Any], *, ended: bool) -> None:  # noqa: ARG002 - nothing is told at the end
        """See ``Workload``."""
        same("published records", len(published), self._found(view).emitted)
        for (place, tag), count in Counter(map(tuple, published)).items():
            node = self._nodes[tag]
            if place != node.place or count > sum(type(command) is Emit for command in node.commands):
                wrong(f"node {tag} has published {count} records at {place}")


def _expires(view: CheckpointView) -> bool:
    """Whether anything is stored that is going to expire, or has."""
    if any(address.typename == FADING for address in stored_collections(view)):
        return True
    return any(
        address.typename == PASSING or (address.typename == FADING and DEADLINES in (fields.get(HIDDEN) or {}))
        for address, fields in view.states.items()
    )


def stored_collections(view: CheckpointView) -> dict[Address, dict[str, list[Any]]]:
    """By address and name, the values in maps and buffers; what is registered counts for its registry."""
    found: dict[Address, dict[str, list[Any]]] = {}
    for cells in view.cells:
        for key, raw in cells.items():
            parsed = parse_cell_key(key)
            if parsed is None:
                continue
            value = cbor2.loads(value_in(raw))
            if parsed.kind == REGISTERED_KIND:
                if "value" not in value:
                    continue
                value = value["value"]
            found.setdefault(parsed.address, {}).setdefault(parsed.name.partition(".")[0], []).append(value)
    return found


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
