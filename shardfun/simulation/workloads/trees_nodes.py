"""Command trees, the nodes and how they get to each other: what a tree is, and the messages it becomes.

A *tree* is an ingress record: a node for an address, with commands. Performing a node changes the state of its address, and
sends further nodes on.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from itertools import chain

import msgspec

from shardfun.errors import TokenPendingError
from shardfun.simulation.workloads.trees_collections import Append, Delete, Drain, Fade, Look, Note, Put, Register, Take
from shardfun.simulation.workloads.trees_values import (
    Cancel,
    Command,
    Emit,
    Fail,
    Increment,
    Mutate,
    Operate,
    Pause,
    Stage,
    Stamp,
    place_of,
)

Amounts = Iterator[tuple[tuple[str, str], int]]
"""``((place, what), how much)``"""


class Send(Command, frozen=True):
    """Send a node to its address; ``packed``: in a message of a mutable type."""

    node: Node
    packed: bool = False

    def perform(self, stage: Stage) -> None:
        """See the class."""
        node = self.node
        step = Step(stage.place, stage.next_number(node.place), node)
        stage.ctx.send(node.typename, node.id, Parcel(step, []) if self.packed else step)


class Later(Command, frozen=True):
    """Send a node some time later."""

    node: Node
    delay_ms: int

    def perform(self, stage: Stage) -> None:
        """See the class."""
        _send_later(stage, self.node, self.delay_ms)


class Arm(Command, frozen=True):
    """Send a node later, with a token: it may be cancelled, replaced, or refused since another one is pending.

    So the node is *optional*: what it adds counts only if it has come, or will.
    """

    node: Node
    delay_ms: int
    token: str
    replace: bool

    def perform(self, stage: Stage) -> None:
        """See the class."""
        alarms, tag = stage.state.alarms, self.node.tag
        try:
            _send_later(stage, self.node, self.delay_ms, self.token, replace=self.replace)
        except TokenPendingError:
            stage.expect("refused although it replaces", self.replace, expected=False)
            alarms.refused.append(tag)
            return
        earlier = alarms.armed.setdefault(self.token, [])
        if self.replace:
            alarms.cancelled += earlier
        earlier.append(tag)

    def amounts(self) -> Iterator[tuple[str, int]]:
        """See ``Command``."""
        yield "arms", 1


def _send_later(stage: Stage, node: Node, delay_ms: int, token: str = "", *, replace: bool = False) -> None:
    now_ms, rounded_ms = stage.now_ms, stage.around.rounded_ms
    if rounded_ms:
        delay_ms = -(-(now_ms + delay_ms) // rounded_ms) * rounded_ms - now_ms
    step = Step(stage.place, 0, node, now_ms + delay_ms, armed=bool(token))
    delay = dt.timedelta(milliseconds=delay_ms)
    stage.ctx.send_after(delay, node.typename, node.id, step, token=token, replace=replace)


class Ask(Command, frozen=True):
    """Send a question, whose receiver only reads, and answers."""

    typename: str
    id: str

    def perform(self, stage: Stage) -> None:
        """See the class."""
        number = stage.next_number(place_of(self.typename, self.id))
        stage.ctx.send(self.typename, self.id, Question(stage.place, number))

    def amounts(self) -> Iterator[tuple[str, int]]:
        """See ``Command``."""
        yield "answers", 1


ForValues = Increment | Stamp | Mutate | Emit | Operate | Pause | Cancel | Fail
ForCollections = Put | Take | Note | Look | Append | Drain | Register | Fade | Delete
AnyCommand = ForValues | ForCollections | Send | Later | Arm | Ask


class Node(msgspec.Struct, frozen=True):
    """Commands for an address. ``tag`` is unique in a run."""

    tag: int
    typename: str
    id: str
    commands: tuple[AnyCommand, ...]

    @property
    def place(self) -> str:
        """Where it is performed."""
        return place_of(self.typename, self.id)

    @property
    def fate(self) -> Fail | None:
        """How it fails, if it does."""
        return next((command for command in self.commands if isinstance(command, Fail)), None)

    @property
    def dies(self) -> bool:
        """Whether it always fails."""
        return self.fate is not None and self.fate.when == "always"

    def children(self) -> Iterator[Node]:
        """The nodes that certainly follow from it, if it is performed."""
        return (command.node for command in self.commands if isinstance(command, Send | Later))

    def optional(self) -> Iterator[Node]:
        """The nodes that perhaps follow from it."""
        return (command.node for command in self.commands if isinstance(command, Arm))

    def below(self) -> Iterator[Node]:
        """The node and all nodes of its tree."""
        yield self
        for child in chain(self.children(), self.optional()):
            yield from child.below()

    def amounts(self) -> Amounts:
        """What it and all that certainly follows from it add. If it always fails: a dead letter, and nothing follows."""
        if self.dies:
            yield ("dead letters", str(self.tag)), 1
            return
        yield (self.place, "nodes"), 1
        for command in self.commands:
            for what, n in command.amounts():
                yield (self.place, what), n
        for child in self.children():
            yield from child.amounts()


# ---- messages --------------------------------------------------------------------------------------------------------------
class Step(msgspec.Struct, frozen=True):
    """A node on its way.

    Args:
        origin: the place that sent it, or an ingress partition.
        number: counts what ``origin`` has sent to this address; 0: not counted.
        due_ms: not before then (unix milliseconds).
        armed: the node is optional.
    """

    origin: str
    number: int
    node: Node
    due_ms: int = 0
    armed: bool = False


class Parcel(msgspec.Struct):
    """The same in a mutable message: each attempt has to begin with a fresh one."""

    step: Step
    stamps: list[int]


class Question(msgspec.Struct, frozen=True):
    """Changes nothing where it arrives. ``origin``, ``number``: as in ``Step``."""

    origin: str
    number: int


class Visit(msgspec.Struct, frozen=True):
    """A node was performed at ``place``, which lives as long as messages come: the ``count``-th in this life, at ``at_ms``."""

    place: str
    at_ms: int
    count: int


class Answer(msgspec.Struct, frozen=True):
    """To the question of that number; ``origin`` answers."""

    origin: str
    number: int
