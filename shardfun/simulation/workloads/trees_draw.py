"""Command trees, drawn at random: everything a run will do is decided here."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from shardfun.simulation.workloads.trees_app import FAST, POLICIES
from shardfun.simulation.workloads.trees_nodes import Ask, Node, Send, Step
from shardfun.simulation.workloads.trees_values import Command, Emit, Fail, Increment, Mutate, Stamp

TYPES = (*POLICIES, FAST)
IDS = ("a", "b", "c", "d")
HOT = 0.4
"""The share of nodes for the first id of the first type."""

NODES_MAX = 9
CHILD = 0.8
COMMANDS_MAX = 3
ALWAYS_FAILS = 0.03
SOMETIMES_FAILS = 0.06
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
            child = self._node()
            commands.append(Send(child, packed=child.typename != FAST and chance.random() < 0.15))
        chance.shuffle(commands)
        kind = chance.random()
        if kind < ALWAYS_FAILS + SOMETIMES_FAILS:
            commands.append(Fail(always=kind < ALWAYS_FAILS))
        return Node(tag, typename, id, tuple(commands))  # type: ignore[arg-type]  # of the classes it names

    def _address(self) -> tuple[str, str]:
        chance = self._chance
        if chance.random() < HOT:
            return TYPES[0], IDS[0]
        return chance.choice(TYPES), chance.choice(IDS)

    def _command(self, typename: str) -> Command:
        chance = self._chance
        makers: list[Callable[[], Command]] = [self._increment, Stamp, Emit, self._ask]
        if typename in POLICIES:
            makers += [self._mutate, self._mutate]
        return chance.choice(makers)()

    # ---- one for each kind ----------------------------------------------------------------------------------------------
    def _amount(self) -> int:
        return self._chance.randint(1, AMOUNT_MAX)

    def _increment(self) -> Command:
        return Increment(self._amount())

    def _mutate(self) -> Command:
        return Mutate(self._chance.choice(KEYS), self._amount())

    def _ask(self) -> Command:
        return Ask(*self._address())
