"""Command trees, drawn at random: everything a run will do is decided here."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from shardfun.simulation.workloads.trees_app import (
    BRITTLE,
    FAST,
    FRAIL,
    HURRIED,
    LEAVES,
    PATIENT,
    PLAIN,
    SLOW,
    STUBBORN,
    THREAD,
)
from shardfun.simulation.workloads.trees_nodes import Arm, Ask, Later, Node, Send, Step
from shardfun.simulation.workloads.trees_values import Cancel, Command, Emit, Fail, Increment, Mutate, Operate, Pause, Stamp

TYPES = (PLAIN, FRAIL, STUBBORN, PATIENT, BRITTLE, *LEAVES, SLOW, SLOW, HURRIED, THREAD, FAST)
IDS = ("a", "b", "c", "d")
HOT = 0.4
"""The share of nodes for the first id of the first type."""

NODES_MAX = 9
CHILD = 0.8
COMMANDS_MAX = 3
ALWAYS_FAILS = 0.03
SOMETIMES_FAILS = 0.06
ONCE_FAILS = 0.01
LATER = 0.15
ARMED = 0.25
DELAYS_MS = (0, 1, 30, 300, 1500, 1500)
TOKENS = ("first", "second", "third")
KEYS = ("x", "y")
AMOUNT_MAX = 9


def draw_steps(chance: random.Random, partition: int, count: int) -> list[Step]:
    """The records of one ingress partition: trees, numbered by address as every sender does."""
    drawing = _Drawing(chance, partition)
    numbers = Counter[str]()
    steps = []
    for _ in range(count):
        node = drawing.tree()
        numbers[node.place] += 1
        number = 0 if node.typename == FAST else numbers[node.place]
        steps.append(Step(f"in-{partition}", number, node))
    return steps


class _Drawing:
    """Draws trees; their tags are unique in all partitions."""

    def __init__(self, chance: random.Random, partition: int) -> None:
        self._chance = chance
        self._tag = partition * 1_000_000
        self._left = 0

    def tree(self) -> Node:
        """A tree of a random size."""
        self._left = self._chance.randint(1, NODES_MAX) - 1
        return self._node()

    def _node(self) -> Node:
        chance = self._chance
        self._tag += 1
        tag = self._tag
        typename, id = self._address()
        commands: list[Command] = [self._command(typename) for _ in range(chance.randint(1, COMMANDS_MAX))]
        while self._left and chance.random() < CHILD:
            self._left -= 1
            commands.append(self._send(typename, self._node()))
        chance.shuffle(commands)
        kind = chance.random()
        if kind < ONCE_FAILS and typename == BRITTLE:
            commands.append(Fail("once"))
        elif kind < ALWAYS_FAILS + SOMETIMES_FAILS and typename != BRITTLE:
            commands.append(Fail("always" if kind < ALWAYS_FAILS else "odd"))
        return Node(tag, typename, id, tuple(commands))  # type: ignore[arg-type]  # of the classes it names

    def _send(self, typename: str, child: Node) -> Command:
        """One of the ways in which a node can get where it goes."""
        chance = self._chance
        kind = chance.random()
        if kind < LATER:
            return Later(child, chance.choice(DELAYS_MS))
        if kind < LATER + ARMED and FAST not in {typename, child.typename}:
            return Arm(child, chance.choice(DELAYS_MS), self._token(typename), replace=chance.random() < 0.3)
        return Send(child, packed=child.typename != FAST and chance.random() < 0.15)

    def _token(self, typename: str) -> str:
        """Tokens belong to ids. Here each function type has its own, so that each state knows what became of them."""
        return f"{typename} {self._chance.choice(TOKENS)}"

    def _address(self) -> tuple[str, str]:
        chance = self._chance
        if chance.random() < HOT:
            return TYPES[0], IDS[0]
        return chance.choice(TYPES), chance.choice(IDS)

    def _command(self, typename: str) -> Command:
        chance = self._chance
        makers: list[Callable[[], Command]] = [self._increment, Stamp, Emit, self._ask]
        if typename != FAST:
            makers += [self._mutate, self._mutate, self._operate, lambda: Cancel(self._token(typename))]
        if typename in {SLOW, HURRIED}:
            makers += [Pause, Pause, Pause]
        return chance.choice(makers)()

    # ---- one for each kind ----------------------------------------------------------------------------------------------
    def _amount(self) -> int:
        return self._chance.randint(1, AMOUNT_MAX)

    def _increment(self) -> Command:
        return Increment(self._amount())

    def _mutate(self) -> Command:
        return Mutate(self._chance.choice(KEYS), self._amount())

    def _operate(self) -> Command:
        return Operate(self._amount(), fails=self._chance.random() < 0.2, waits=self._chance.random() < 0.5)

    def _ask(self) -> Command:
        return Ask(*self._address())
