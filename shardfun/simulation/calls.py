"""The calls of a simulated shard process: asynchronous and blocking code, which the world lets go on step by step.

A coroutine goes on to its next ``await`` when it is picked, blocking code runs to its end; what is awaited may fail, and a call
with a time limit may be over it. The end of a call is heard of in a step of its own. A reset ends all of them, as in production:
coroutines are closed, and of the threads some still run afterwards, when nobody waits for them any more.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Generator
from contextlib import suppress
from typing import Any, Protocol

from shardfun.core.effects import StartCall
from shardfun.core.shard import ShardCore
from shardfun.errors import FunctionTimeoutError
from shardfun.simulation.faults import Faults

RUNS_ON = 0.5  # of the threads that were given up


class Broken(Exception):  # noqa: N818 - the word for what it stands for
    """What user code waited for has failed."""


class Turn:
    """An awaitable that is there when the world says so."""

    def __await__(self) -> Generator[None, None, None]:
        """Wait for one turn."""
        yield


class CallsOfShard(Protocol):
    """What runs the calls of one shard."""

    def start(self, effect: StartCall) -> None:
        """The core asks for a call."""

    def step(self, faults: Faults, now: float) -> str:
        """Some call goes on; what has happened, empty if nothing has."""

    def report(self, core: ShardCore) -> bool:
        """The loop hears of the end of a call; whether there was one."""

    def reset(self) -> None:
        """The incarnation is over, or the process."""


class Beside(Protocol):
    """What runs the calls of all shards."""

    def of_shard(self, shard: int) -> CallsOfShard:
        """For a new process of a shard."""

    @property
    def wake_at(self) -> float:
        """When user code wants to go on, in virtual seconds."""

    def close(self) -> None:
        """The run is over."""


class InTurns:
    """Runs all calls in turns that the world picks: see the module. Their code awaits only ``Turn``."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def of_shard(self, shard: int) -> CallsOfShard:  # noqa: ARG002 - all alike
        """For a new process of a shard."""
        return Calls(self._chance)

    @property
    def wake_at(self) -> float:
        """Never: what is awaited is there whenever the world says so."""
        return math.inf

    def close(self) -> None:
        """Nothing is left."""


class _Call:
    """A call under way. ``coroutine``: once it has begun."""

    __slots__ = ("coroutine", "effect")

    def __init__(self, effect: StartCall) -> None:
        self.effect = effect
        self.coroutine: Any = None


class Calls:
    """See the module.

    Args:
        chance: of the world.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._calls: list[_Call] = []
        self._done: deque[tuple[int, Any, BaseException | None]] = deque()

    def start(self, effect: StartCall) -> None:
        """The core asks for a call."""
        self._calls.append(_Call(effect))

    def step(self, faults: Faults, now: float) -> str:  # noqa: ARG002 - these do not wait for a time
        """One of the calls goes on; what has happened, empty if there is none. It may break or time out."""
        if not self._calls:
            return ""
        chance = self._chance
        position = int(chance.random() * len(self._calls))
        call = self._calls[position]
        effect = call.effect
        value: Any = None
        error: BaseException | None = None
        if effect.timeout_ms is not None and faults.call_times_out:
            self._give_up(call)
            error = FunctionTimeoutError(f"{effect.what} took longer than {effect.timeout_ms} ms")
        else:
            try:
                ended, value = self._go_on(call, breaks=call.coroutine is not None and faults.call_breaks)
            except Exception as raised:  # noqa: BLE001 - user code
                error = raised
            else:
                if not ended:
                    return f"{effect.what} goes on"
        del self._calls[position]
        self._done.append((effect.number, value, error))
        return f"{effect.what} ends" + ("" if error is None else f" with {type(error).__name__}")

    @staticmethod
    def _go_on(call: _Call, *, breaks: bool) -> tuple[bool, Any]:
        """Whether it has ended, and with what."""
        if call.coroutine is None:
            found = call.effect.run()
            if not hasattr(found, "__await__"):
                return True, found
            call.coroutine = found
        try:
            if breaks:
                call.coroutine.throw(Broken("what was awaited has failed"))
            else:
                call.coroutine.send(None)
        except StopIteration as stop:
            return True, stop.value
        return False, None

    def report(self, core: ShardCore) -> bool:
        """The loop hears of the end of a call; whether there was one.

        Raises:
            FunctionRestartError: as the policy of its function says.
        """
        if not self._done:
            return False
        core.call_done(*self._done.popleft())
        return True

    def reset(self) -> None:
        """The incarnation is over, or the process."""
        calls, self._calls = self._calls, []
        self._done.clear()
        for call in calls:
            self._give_up(call)

    def _give_up(self, call: _Call) -> None:
        if call.coroutine is not None:
            call.coroutine.close()
        elif call.effect.style == "blocking" and self._chance.random() < RUNS_ON:
            with suppress(Exception):  # a thread that nobody waits for: whatever it does has no effect
                call.effect.run()
