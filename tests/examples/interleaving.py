"""A world of functions in one thread: every legal interleaving, none of the runtime.

Legal is what the runtime promises: first in, first out between one sender and one target, and in order from the ingress for each
key. A seed picks which of the waiting channels goes next.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import msgspec

from shardfun import Address, App, Message, State, Value


def first_state(cls: type[State]) -> SimpleNamespace:
    """The state of an address that was never touched."""
    return SimpleNamespace(**{name: declared.default for name, declared in vars(cls).items() if isinstance(declared, Value)})


class RecordingContext:
    """What a function sees; effects go straight to the world, which is enough when functions do not raise."""

    def __init__(self, world: World, address: Address, caller: Address | None) -> None:
        self.world = world
        self.self = address
        self.caller = caller
        self.state = world.states.setdefault(address, first_state(world.state_classes[address.typename]))

    def send(self, typename: str, id: str, value: Any) -> None:
        self.world.push(self.self, Address(typename, id), value)

    def emit(self, egress: str, value: Any) -> None:
        self.world.published.setdefault(egress, []).append(msgspec.to_builtins(value))


class World:
    def __init__(self, app: App, state_classes: dict[str, type[State]], seed: int) -> None:
        compiled = app.compile()
        self.handlers: dict[str, Callable[..., None]] = {item.spec.typename: item.spec.handler for item in compiled}
        self.at_end: dict[str, Any] = {item.spec.typename: item.spec.on_end for item in compiled}
        self.state_classes = state_classes
        self.states: dict[Address, SimpleNamespace] = {}
        self.published: dict[str, list[dict[str, Any]]] = {}
        self.channels: dict[tuple[Address | None, Address], deque[Any]] = {}
        self.waiting: list[tuple[Address | None, Address]] = []
        self.chance = random.Random(seed)

    def push(self, sender: Address | None, target: Address, value: Any) -> None:
        channel = self.channels.setdefault((sender, target), deque())
        if not channel:
            self.waiting.append((sender, target))
        channel.append(value)

    def run(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self.push(None, Address(message.typename, message.id), message.value)
        while self.waiting:
            self._step()
        for address in list(self.states):
            self.at_end[address.typename](RecordingContext(self, address, None))

    def _step(self) -> None:
        pick = self.chance.randrange(len(self.waiting))
        sender, target = self.waiting[pick]
        channel = self.channels[sender, target]
        value = channel.popleft()
        if not channel:
            self.waiting[pick] = self.waiting[-1]
            self.waiting.pop()
        self.handlers[target.typename](RecordingContext(self, target, sender), value)
