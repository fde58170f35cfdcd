"""User code beside the loop, in a test: coroutines in virtual time, blocking code at once, in the test's own thread."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shardfun.core.effects import StartCall

if TYPE_CHECKING:
    from shardfun.testing.trio_thread import TrioThread

Done = Callable[[int, Any, BaseException | None], None]


class LocalCalls:
    """The calls of all shards of a node.

    Args:
        asyncio: some function needs an asyncio event loop.
        chance: decides which of several blocking calls comes first.
    """

    def __init__(self, shards: int, chance: random.Random, *, asyncio: bool) -> None:
        self.results: list[deque[Callable[[], None]]] = [deque() for _ in range(shards)]
        """What the shards have still to hear."""
        self._asyncio = asyncio
        self._chance = chance
        self._blocking: list[list[tuple[StartCall, Done]]] = [[] for _ in range(shards)]
        self._under_way: list[dict[int, str]] = [{} for _ in range(shards)]
        self._thread: TrioThread | None = None
        self._due = False

    def start(self, shard: int, call: StartCall, done: Done) -> None:
        """Begin a call; ``done`` is put among the results when it has ended."""
        under_way = self._under_way[shard]
        under_way[call.number] = call.what

        def ended(number: int, value: Any, error: BaseException | None) -> None:
            under_way.pop(number, None)
            done(number, value, error)

        if call.style == "blocking":
            self._blocking[shard].append((call, ended))
            return
        if self._thread is None:
            from shardfun.testing.trio_thread import TrioThread

            self._thread = TrioThread(self.results, asyncio=self._asyncio, seed=self._chance.getrandbits(32))
        self._thread.start(shard, call, ended)
        self._due = True

    def reset(self, shard: int) -> None:
        """A shard has died or fallen back: end its calls. Nobody hears of them."""
        self._blocking[shard].clear()
        self._under_way[shard] = {}
        if self._thread is not None:
            self._thread.reset(shard)
            self._thread.pump(0.0)
        self.results[shard].clear()

    def run_blocking(self, shard: int) -> bool:
        """Run one of the blocking calls of a shard; whether there was one."""
        waiting = self._blocking[shard]
        if not waiting:
            return False
        call, done = waiting.pop(self._chance.randrange(len(waiting)))
        value, error = None, None
        try:
            value = call.run()
        except Exception as raised:  # noqa: BLE001 - it fails the invocation
            error = raised
        self.results[shard].append(lambda: done(call.number, value, error))
        return True

    def run_async(self, now_s: float) -> bool:
        """Let coroutines run until all of them wait; whether there was anything to do.

        Args:
            now_s: seconds since the start of the node.
        """
        if self._thread is None or not (self._due or self._thread.next_deadline_s <= now_s):
            return False
        self._due = False
        self._thread.pump(now_s)
        return True

    @property
    def next_deadline_s(self) -> float:
        """When a coroutine wants to go on: seconds since the start of the node."""
        return math.inf if self._thread is None else self._thread.next_deadline_s

    @property
    def waits_for_io(self) -> bool:
        """Whether a coroutine waits for a socket, a pipe or a process."""
        return self._thread is not None and self._thread.waits_for_io

    def under_way(self) -> list[str]:
        """Whose code has begun and not ended."""
        return [what for calls in self._under_way for what in calls.values()]

    def close(self) -> None:
        """End everything."""
        if self._thread is not None:
            self._thread.close()
            self._thread = None
