"""A whole node in one process, in virtual time, under a seed.

The shards are real cores with real checkpoints; between them frames travel as bytes. What is simulated is the world around them: the
clock, the store, the supervisor's process. A seed decides in which order everything happens. Functions see only orders that can
happen in production, so a test that passes under many seeds has seen many of them.

Sources of records do not run here, neither those of a configuration nor ``@app.ingress``: give their records to ``ingest``. (What a
generator gives can be seen with ``shardfun.testing.read_ingress``.)

Time stands still while messages are processed. It moves when the test says so, from each due thing to the next: delayed messages,
attempts after a pause, expiry, whatever a coroutine sleeps for.
"""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace, TracebackType
from typing import Any, Self

from shardfun.core.limits import Limits
from shardfun.model.address import Address
from shardfun.model.keyspace import owner_of
from shardfun.model.letters import DeadLetter
from shardfun.sdk.app import App, Message
from shardfun.testing.engine import Engine
from shardfun.testing.inputs import SENDS
from shardfun.testing.looking import addresses_of, dead_letters_of, state_of
from shardfun.testing.moments import START, duration_ms, to_datetime, to_ms
from shardfun.testing.program import Encoder, names
from shardfun.testing.shard import LocalShard
from shardfun.testing.trace import Trace

STEPS_MAX = 1_000_000
SETTLE_MAX = dt.timedelta(days=400)
END_ROUNDS_MAX = 1000
STUCK_ROUNDS_MAX = 3
SHARDS_MAX = 64


class LocalNode:
    """See the module. Use it as a context manager, or ``close`` it.

    Args:
        app: the application.
        shards: their number.
        seed: decides the order of everything, and the randomness of functions.
        start: the time at the beginning, with a time zone.
        retries: further attempts before a message that fails is parked, unless its function says otherwise.
        checkpoint_interval: between checkpoints (timedelta or seconds; a step of work counts as a millisecond); ``None``: only
            when ``checkpoint`` is called.
        limits: instead of those drawn from the seed, which are small.
        encode: what encodes a record of an egress; by default as for files and stdout.

    Raises:
        DefinitionError: the application is not defined correctly.
    """

    def __init__(
        self,
        app: App,
        *,
        shards: int = 2,
        seed: int = 0,
        start: dt.datetime = START,
        retries: int = 3,
        checkpoint_interval: dt.timedelta | float | None = 0.2,
        limits: Limits | None = None,
        encode: Encoder | None = None,
    ) -> None:
        if not 1 <= shards <= SHARDS_MAX:
            msg = f"shards: expected 1 to {SHARDS_MAX}, got {shards!r}"
            raise ValueError(msg)
        self.app = app
        self.seed = seed
        self._closed = False
        self._engine = Engine(
            app,
            shards=shards,
            seed=seed,
            started_ms=to_ms(start),
            retries=retries,
            interval_s=None if checkpoint_interval is None else duration_ms(checkpoint_interval) / 1000,
            limits=limits,
            encode=encode,
        )
        self._around = self._engine.around

    @property
    def trace(self) -> Trace:
        """What has happened: its ``digest`` is the same in every run of one seed."""
        return self._around.trace

    @property
    def _shards(self) -> list[LocalShard]:
        return self._engine.shards

    # ---- input ----------------------------------------------------------------------------------------------------------
    def send(self, typename: str, id: str, value: Any) -> None:
        """Send a message, as an ingress does: it has no caller. It is processed by ``run`` or ``advance``.

        Raises:
            UnknownTargetError: there is no such function.
            PayloadTypeError: the function does not take such a value.
        """
        self._check_open()
        dispatcher = self._shards[0].core.dispatcher
        target = dispatcher.resolve(typename)
        dispatcher.admit(id)
        if type(value) in target.shared:
            target.payloads.by_class[type(value)].validate(value)
        else:
            value = target.payloads.prepare(value)
        self._around.inputs.add(SENDS, Message(typename, id, value), id)

    def ingest(self, ingress: str, record: Any, *, key: str | None = None) -> None:
        """Give a record to an ingress; its routers turn it into messages. It is processed by ``run`` or ``advance``.

        Args:
            key: records of one key stay in order, those of different keys go to different shards. Without it one shard reads
                all records of the ingress, in order.

        Raises:
            ValueError: the application has no router for such an ingress, and no ``@app.ingress``.
        """
        self._check_open()
        if ingress not in self._around.program.routes or ingress == SENDS:
            known = names(list(dict.fromkeys([*self.app.routed_ingresses, *self.app.ingresses])))
            msg = f"ingress {ingress!r}: expected a router in the application (@app.router({ingress!r})); routers exist for: {known}"
            raise ValueError(msg)
        self._around.inputs.add(ingress, record, key)

    # ---- time and work --------------------------------------------------------------------------------------------------
    @property
    def now(self) -> dt.datetime:
        """The virtual time."""
        return to_datetime(self._around.now_ms)

    def step(self, count: int = 1) -> bool:
        """Do up to ``count`` of the steps that ``run`` does; whether there was so much to do. For a ``crash`` in the middle."""
        self._check_open()
        return all(self._engine.step() for _ in range(count))

    def run(self, *, steps_max: int = STEPS_MAX) -> None:
        """Process what waits, until nothing is left to do at this time.

        Raises:
            NotQuietError: that is not so after ``steps_max`` steps.
        """
        self._check_open()
        self._engine.run(steps_max)

    def advance(self, duration: dt.timedelta | float, *, steps_max: int = STEPS_MAX) -> None:
        """Let time pass, and do on the way what is due, each at its time.

        Args:
            duration: a timedelta, or seconds.

        Raises:
            NotQuietError: the node does not come to rest at some time.
        """
        until_ms = self._around.now_ms + duration_ms(duration)
        self._run_until(until_ms, steps_max)
        self._around.now_ms = until_ms
        self.run(steps_max=steps_max)

    def settle(self, limit: dt.timedelta | float = SETTLE_MAX, *, steps_max: int = STEPS_MAX) -> None:
        """Let time pass until nothing is due any more: no delayed message, no attempt, no sleeping coroutine.

        Raises:
            NotQuietError: something is still due after ``limit``, or code waits for something that does not come.
        """
        self._run_until(self._around.now_ms + duration_ms(limit), steps_max)
        if self._engine.next_due_ms() is not None:
            raise self._engine.not_quiet(
                f"something is still due after {limit}: perhaps a delayed message that is sent again and again"
            )
        if self._around.calls.under_way():
            raise self._engine.not_quiet("nothing is due, but code waits for something that does not come")

    def _run_until(self, until_ms: int, steps_max: int) -> None:
        self.run(steps_max=steps_max)
        while self._engine.move_on(until_ms):
            self.run(steps_max=steps_max)

    # ---- checkpoints and failures ---------------------------------------------------------------------------------------
    def checkpoint(self, *, steps_max: int = STEPS_MAX) -> None:
        """Complete a checkpoint of what has happened so far, and publish what it holds. Messages may be processed meanwhile.

        Raises:
            NotQuietError: it is not complete after ``steps_max`` steps.
        """
        self._check_open()
        self._engine.checkpoint(steps_max)

    @property
    def checkpoints(self) -> int:
        """How many checkpoints are complete."""
        return self._engine.supervision.completed

    def crash(self, shard: int | None = None) -> None:
        """Kill a shard, or all of them: the node falls back to the last complete checkpoint. What came after runs again."""
        self._check_open()
        self._engine.kill(self._shards if shard is None else [self._shards[shard]], "killed by the test")

    # ---- the end --------------------------------------------------------------------------------------------------------
    def end(self) -> None:
        """The input is used up: run ``on_end`` as at the end of a bounded run, until everything is published.

        Messages that are delayed stay where they are.

        Raises:
            NotQuietError: that does not come to an end.
        """
        self._check_open()
        self._around.inputs.ended = True
        engine, stuck = self._engine, 0
        for _ in range(END_ROUNDS_MAX):
            self.run()
            self.checkpoint()
            if engine.supervision.finished:
                return
            waits = engine.busy and not engine.move_on(self._around.now_ms + duration_ms(SETTLE_MAX))
            stuck = stuck + 1 if waits else 0
            if stuck == STUCK_ROUNDS_MAX:
                break
        raise engine.not_quiet("the input is used up, but the node does not come to its end")

    def close(self) -> None:
        """End what still runs. Safe to call twice."""
        if not self._closed:
            self._closed = True
            self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            msg = "the local node is closed"
            raise ValueError(msg)

    # ---- looking --------------------------------------------------------------------------------------------------------
    def state(self, typename: str, id: str) -> SimpleNamespace:
        """The state of an address now: values as they are, maps as dicts, buffers as lists."""
        shard = self._shards[owner_of(id, len(self._shards))]
        return state_of(shard.core, shard.store, typename, id)

    def addresses(self, typename: str) -> list[Address]:
        """The addresses of a function type that have state now, in the order of their ids."""
        found = [id for shard in self._shards for id in addresses_of(shard.core, shard.store, typename)]
        return [Address(typename, id) for id in sorted(found)]

    def emitted(self, egress: str) -> list[Any]:
        """The records emitted so far, as they were given to ``emit``, in that order; some may not be published yet."""
        return self._around.outputs.emitted(egress)

    def published(self, egress: str) -> list[Any]:
        """The records published so far: those of complete checkpoints, which no failure takes back."""
        return self._around.outputs.published(egress)

    def dead_letters(self) -> list[DeadLetter]:
        """The messages and records that could not be processed, shard by shard."""
        return [letter for shard in self._shards for letter in dead_letters_of(shard.core, shard.store)]
