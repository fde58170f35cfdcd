"""Command trees, drawn at random: everything a run will do is decided here."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

from shardfun.simulation.workloads.trees_app import (
    BRITTLE,
    FADING,
    FAST,
    FRAIL,
    HURRIED,
    LEAF,
    MORTAL,
    PASSING,
    PATIENT,
    PLAIN,
    RICH,
    SLOW,
    THREAD,
    UNCOUNTED,
)
from shardfun.simulation.workloads.trees_collections import Append, Delete, Drain, Fade, Look, Note, Put, Register, Take
from shardfun.simulation.workloads.trees_nodes import Arm, Ask, Later, Node, Send, Step
from shardfun.simulation.workloads.trees_values import Cancel, Command, Emit, Fail, Increment, Mutate, Operate, Pause, Stamp

TYPES = (PLAIN, FRAIL, PATIENT, BRITTLE, LEAF, SLOW, HURRIED, THREAD, FAST, RICH, RICH, FADING, MORTAL, PASSING)
TYPES_MAX = 6
"""In one run: different runs mix different ways to run and fail."""

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
WORDS = ("", "a", "ab", "b", "\u00e9", "z")
AMOUNT_MAX = 9


def draw_types(chance: random.Random) -> list[str]:
    """The types of a run; the first one is hot."""
    return list(dict.fromkeys(chance.sample(TYPES, TYPES_MAX)))


def draw_steps(chance: random.Random, types: Sequence[str], partition: int, count: int) -> list[Step]:
    """The records of one ingress partition: trees, numbered by address as every sender does."""
    drawing = _Drawing(chance, types, partition)
    numbers = Counter[str]()
    steps = []
    for _ in range(count):
        node = drawing.tree()
        numbers[node.place] += 1
        number = 0 if node.typename in UNCOUNTED else numbers[node.place]
        steps.append(Step(f"in-{partition}", number, node))
    return steps


class _Drawing:
    """Draws trees; their tags are unique in all partitions."""

    def __init__(self, chance: random.Random, types: Sequence[str], partition: int) -> None:
        self._chance = chance
        self._types = types
        self._asked = [typename for typename in types if typename != PASSING] or [PLAIN]
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
        commands: list[Command] = []
        if typename != PASSING:
            commands += [self._command(typename) for _ in range(chance.randint(1, COMMANDS_MAX))]
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
        if kind < LATER + ARMED and UNCOUNTED.isdisjoint((typename, child.typename)):
            return Arm(child, chance.choice(DELAYS_MS), self._token(typename), replace=chance.random() < 0.3)
        return Send(child, packed=child.typename not in UNCOUNTED and chance.random() < 0.15)

    def _token(self, typename: str) -> str:
        """Tokens belong to ids. Here each function type has its own, so that each state knows what became of them."""
        return f"{typename} {self._chance.choice(TOKENS)}"

    def _address(self) -> tuple[str, str]:
        chance = self._chance
        if chance.random() < HOT:
            return self._types[0], IDS[0]
        return chance.choice(self._types), chance.choice(IDS)

    def _command(self, typename: str) -> Command:
        chance = self._chance
        makers: list[Callable[[], Command]] = [self._increment, Stamp, Emit, self._ask]
        if typename not in UNCOUNTED:
            makers += [self._mutate, self._mutate, self._operate, lambda: Cancel(self._token(typename))]
        if typename in {SLOW, HURRIED}:
            makers += [Pause, Pause, Pause]
        if typename == RICH:
            makers += [self._note, self._note, self._register]
        if typename in {RICH, MORTAL}:
            makers += [self._put, self._put, Take, Look, self._append, self._append, self._drain]
        if typename == MORTAL:
            makers += [Delete]
        if typename == FADING:
            makers += [self._fade] * 8
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
        return Ask(self._chance.choice(self._asked), self._chance.choice(IDS))

    def _put(self) -> Command:
        return Put(self._chance.choice(WORDS), self._amount())

    def _note(self) -> Command:
        return Note(self._chance.randrange(3), self._amount())

    def _append(self) -> Command:
        return Append(self._amount())

    def _drain(self) -> Command:
        return Drain(self._chance.choice(("clear", "replace")))

    def _register(self) -> Command:
        return Register(self._chance.choice(KEYS), self._amount())

    def _fade(self) -> Command:
        return Fade(self._chance.choice(KEYS))
