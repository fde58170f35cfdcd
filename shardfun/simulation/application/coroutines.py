"""User code that awaits or blocks, in a simulated world: coroutines in a Trio of their own whose clock is the world's.

They may sleep, wait for each other, use nurseries and limits of time. They may not wait for sockets, pipes or processes: nobody
is there who could answer in virtual time.
"""

from __future__ import annotations

import math
import random

from shardfun.core.effects import StartCall
from shardfun.core.shard import ShardCore
from shardfun.simulation.faults import Faults
from shardfun.simulation.violation import Violation
from shardfun.testing.calls import LocalCalls

UNSUITABLE = "unsuitable"
"""The kind of outcome of an application that cannot be simulated."""


class Coroutines:
    """The calls of all shards.

    Args:
        asyncio: some function needs an asyncio event loop.
    """

    def __init__(self, shards: int, chance: random.Random, *, asyncio: bool) -> None:
        self._calls = LocalCalls(shards, random.Random(chance.getrandbits(32)), asyncio=asyncio)

    def of_shard(self, shard: int) -> _OfShard:
        """For a new process of a shard."""
        return _OfShard(self._calls, shard)

    @property
    def wake_at(self) -> float:
        """When a coroutine wants to go on, in virtual seconds."""
        deadline = self._calls.next_deadline_s
        return deadline if deadline < NEVER_S else math.inf

    def close(self) -> None:
        """The run is over."""
        self._calls.close()


NEVER_S = 1e8


class _OfShard:
    """The calls of one process of a shard."""

    def __init__(self, calls: LocalCalls, shard: int) -> None:
        self._calls = calls
        self._shard = shard
        self._core: ShardCore | None = None

    def start(self, effect: StartCall) -> None:
        """The core asks for a call."""
        self._calls.start(self._shard, effect, self._done)

    def step(self, faults: Faults, now: float) -> str:  # noqa: ARG002 - what users await does not fail by itself
        """A blocking call runs, or coroutines go on until each of them waits.

        Raises:
            Violation: one of them waits for the world outside.
        """
        if self._calls.run_blocking(self._shard):
            return "a blocking call ends"
        if not self._calls.run_async(now):
            return ""
        if self._calls.waits_for_io:
            doing = ", ".join(self._calls.under_way()[:3])
            raise Violation(
                UNSUITABLE,
                f"a coroutine waits for a socket, a pipe or a process ({doing}): that cannot be simulated, since nobody answers in "
                "virtual time. Put what talks to the outside behind a function or object that a simulation can replace by a fake",
            )
        return "coroutines go on"

    def report(self, core: ShardCore) -> bool:
        """The loop hears of the end of a call; whether there was one."""
        results = self._calls.results[self._shard]
        if not results:
            return False
        self._core = core
        results.popleft()()
        return True

    def _done(self, number: int, value: object, error: BaseException | None) -> None:
        assert self._core is not None
        self._core.call_done(number, value, error)

    def reset(self) -> None:
        """The incarnation is over, or the process."""
        self._calls.reset(self._shard)
