"""One function type whose invocations do what a test says, on a shard whose store, clock and recoveries the test moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import cbor2
from single_core import core_of, letters_of, put, run_all

from shardfun import App, Context, State
from shardfun.core.limits import Limits
from shardfun.core.shard import ShardCore

T = TypeVar("T")
TYPENAME = "t/f"
START_MS = 1_700_000_000_000


class FailedError(Exception):
    """An invocation was parked; the reason."""


class Invoking:
    """See the module.

    Args:
        state: of the function.
        options: of ``@app.function``.
    """

    def __init__(self, state: type[State], *, limits: Limits | None = None, plain: bool = False, **options: Any) -> None:
        self.stored: dict[bytes, bytes] = {}
        self.now_ms = START_MS
        self._actions: list[Callable[[Any], Any]] = []
        self._result: Any = None
        self._limits = limits or Limits(retries=0)
        self._plain = plain
        self.app = App("invoking")

        def handler(ctx: Context[Any], number: int) -> None:
            self._result = self._actions[number](ctx)

        handler.__annotations__["ctx"] = Context[state]  # type: ignore[valid-type]
        handler.__annotations__["number"] = int
        self.app.function(TYPENAME, **options)(handler)
        self.core = self._core(None)

    def _core(self, previous: ShardCore | None) -> ShardCore:
        core = core_of(self.app, plain=self._plain, stored=self.stored, limits=self._limits, previous=previous)
        core.advance(self.now_ms / 1000)
        return core

    def do(self, action: Callable[[Any], T], id: str = "a") -> T:
        """Run an action as an invocation of an address; what it returned.

        Raises:
            FailedError: it raised, and was parked.
        """
        letters = self.core.dispatcher.letters.count
        self._actions.append(action)
        self._result = None
        number = len(self._actions) - 1
        put(self.core, TYPENAME, (id, number))
        run_all(self.core)
        if self.core.dispatcher.letters.count > letters:
            found = letters_of(self.core.table.cells.unapplied())
            raise FailedError(next(letter["reason"] for letter in found if letter["payload"] == number))
        return self._result  # type: ignore[no-any-return]

    def cut(self) -> dict[bytes, bytes | None]:
        """Cut and encode; what a checkpoint would write."""
        table = self.core.table
        table.freeze()
        written: dict[bytes, bytes | None] = {}
        for keys, values in table.encode_frozen(3):
            written.update(zip(keys, values, strict=True))
        table.encoding_done()
        return written

    def apply(self, written: dict[bytes, bytes | None]) -> None:
        """The checkpoint is complete."""
        for key, value in written.items():
            if value is None:
                self.stored.pop(key, None)
            else:
                self.stored[key] = value
        self.core.table.drop_frozen()

    def checkpoint(self) -> None:
        """One whole checkpoint."""
        self.apply(self.cut())

    def recover(self) -> None:
        """Everything since the last complete checkpoint is gone."""
        self.core = self._core(self.core)

    def restart(self) -> None:
        """The same in a new process: nothing is in memory."""
        self.core = self._core(None)

    def pass_ms(self, duration_ms: int) -> None:
        """Time goes on."""
        self.now_ms += duration_ms
        self.core.advance(self.now_ms / 1000)

    def everything_stored(self) -> dict[bytes, bytes]:
        """All keys, as of now, without dead letters."""
        self.checkpoint()
        return {key: value for key, value in self.stored.items() if key[2:3] != b"d"}

    def stored_record(self, id: str = "a") -> dict[str, Any] | None:
        """The record of an address as a checkpoint would have it now."""
        self.checkpoint()
        found = [value for key, value in self.stored.items() if key[2:] == b"s" + TYPENAME.encode() + b"\0" + id.encode()]
        return cbor2.loads(found[0]) if found else None
