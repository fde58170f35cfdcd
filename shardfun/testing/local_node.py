"""A whole node in one process, in virtual time, under a seed.

The shards are real cores with real checkpoints; between them frames travel as bytes. What is simulated is the world around them: the
clock, the store, the supervisor's process. A seed decides in which order everything happens. Functions see only orders that can
happen in production, so a test that passes under many seeds has seen many of them.

Time stands still while messages are processed. It moves when the test says so, from each due thing to the next: delayed messages,
attempts after a pause, expiry, whatever a coroutine sleeps for.
"""

from __future__ import annotations

import datetime as dt
import math
import random
from collections import deque
from types import SimpleNamespace, TracebackType
from typing import Any, Self

from shardfun.core.dispatch import Router
from shardfun.core.limits import Limits
from shardfun.core.shard import Program
from shardfun.errors import FunctionRestartError
from shardfun.model.address import Address
from shardfun.model.control import ToShard
from shardfun.model.keyspace import owner_of
from shardfun.model.letters import DeadLetter
from shardfun.sdk.app import App, Message
from shardfun.testing.calls import LocalCalls
from shardfun.testing.inputs import SENDS, Inputs, route_sends
from shardfun.testing.looking import addresses_of, dead_letters_of, state_of
from shardfun.testing.moments import START, duration_ms, to_datetime, to_ms
from shardfun.testing.outputs import Outputs
from shardfun.testing.program import Encoder, compile_program, names
from shardfun.testing.results import NotQuietError
from shardfun.testing.shard import LocalShard, Surroundings
from shardfun.testing.supervision import Supervision
from shardfun.testing.trace import Trace

STEPS_MAX = 1_000_000
STEP_S = 0.001  # what a step counts against the interval of checkpoints, since time itself stands still
SETTLE_MAX = dt.timedelta(days=400)
RESTARTS_MAX = 10  # without a checkpoint in between
END_ROUNDS_MAX = 1000
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
        self.trace = Trace()
        """What has happened: its ``digest`` is the same in every run of one seed."""
        chance = random.Random(seed)  # noqa: S311 - a seed is the point
        routers: dict[str, Router] = {SENDS: route_sends}
        program = compile_program(app, routers, encode)
        self._chance = chance
        self._around = Surroundings(
            program=program,
            limits=limits or _drawn_limits(chance, retries),
            chance=chance,
            trace=self.trace,
            inputs=Inputs(program.routes, shards),
            outputs=Outputs(),
            calls=LocalCalls(shards, chance, asyncio=_needs_asyncio(program)),
            frames={(a, b): deque() for a in range(shards) for b in range(shards) if a != b},
            open_egresses=app.egresses is None,
            encode=encode,
            seed=seed,
            started_ms=to_ms(start),
            now_ms=to_ms(start),
        )
        self._steps = 0
        self._restarts = 0
        self._completed_at_restart = 0
        self._closed = False
        interval_s = None if checkpoint_interval is None else duration_ms(checkpoint_interval) / 1000
        self._supervision = Supervision(shards, interval_s, self._send_control, self.trace)
        self._shards = [LocalShard(self._around, shard, shards, self._supervision.hear) for shard in range(shards)]
        self._supervision.start()
        self._recover()

    def _send_control(self, shard: int, message: ToShard) -> None:
        self._shards[shard].controls.append(message)

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
            ValueError: the application has no router for such an ingress.
        """
        self._check_open()
        if ingress not in self._around.program.routes or ingress == SENDS:
            known = names(self.app.routed_ingresses)
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
        return all(self._step() for _ in range(count))

    def run(self, *, steps_max: int = STEPS_MAX) -> None:
        """Process what waits, until nothing is left to do at this time.

        Raises:
            NotQuietError: that is not so after ``steps_max`` steps.
        """
        self._check_open()
        for _ in range(steps_max):
            if not self._step():
                return
        msg = f"the node is not quiet after {steps_max} steps: its functions may be sending messages to each other for ever"
        raise NotQuietError(f"{msg}\n{self._describe()}")

    def advance(self, duration: dt.timedelta | float, *, steps_max: int = STEPS_MAX) -> None:
        """Let time pass, and do on the way what is due, each at its time.

        Args:
            duration: a timedelta, or seconds.

        Raises:
            NotQuietError: the node does not come to rest at some time.
        """
        until_ms = self._around.now_ms + duration_ms(duration)
        self.run(steps_max=steps_max)
        while self._move_on(until_ms):
            self.run(steps_max=steps_max)
        self._around.now_ms = until_ms
        self._around.calls.run_async(self._around.elapsed_s)
        self.run(steps_max=steps_max)

    def settle(self, limit: dt.timedelta | float = SETTLE_MAX, *, steps_max: int = STEPS_MAX) -> None:
        """Let time pass until nothing is due any more: no delayed message, no attempt, no sleeping coroutine.

        Raises:
            NotQuietError: something is still due after ``limit``, or a call waits for what does not come.
        """
        until_ms = self._around.now_ms + duration_ms(limit)
        self.run(steps_max=steps_max)
        while self._move_on(until_ms):
            self.run(steps_max=steps_max)
        if self._next_due_ms() is not None:
            msg = f"something is still due after {limit}: a delayed message that is sent again and again, perhaps"
            raise NotQuietError(f"{msg}\n{self._describe()}")
        under_way = self._around.calls.under_way()
        if under_way:
            msg = f"nothing is due, but code waits for something that does not come: {names(under_way)}"
            raise NotQuietError(f"{msg}\n{self._describe()}")

    def _move_on(self, until_ms: int) -> bool:
        """Move time to the next due thing, if that is not later than ``until_ms``."""
        due = self._next_due_ms()
        if due is None or due > until_ms:
            return False
        self._around.now_ms = due
        self.trace.note(f"time {due}")
        return True

    def _next_due_ms(self) -> int | None:
        around = self._around
        times = [due for shard in self._shards if (due := shard.core.wake_at_ms) is not None]
        sleeper_s = around.calls.next_deadline_s
        if sleeper_s != math.inf:
            times.append(around.started_ms + math.ceil(sleeper_s * 1000))
        return min((time for time in times if time > around.now_ms), default=None)  # all else was done, or has to wait

    @property
    def _clock_s(self) -> float:
        """The clock of the supervisor: passing time, and work."""
        return self._around.elapsed_s + self._steps * STEP_S

    def _step(self) -> bool:
        """One thing that happens somewhere; false if nothing is left to do now."""
        self._steps += 1
        supervision = self._supervision
        supervision.now_s = self._clock_s
        supervision.tick()
        chance = self._chance
        count = len(self._shards)
        first = int(chance.random() * count)
        for turn in range(count):
            if self._step_of(self._shards[(first + turn) % count]):
                return True
        return self._around.calls.run_async(self._around.elapsed_s)

    def _step_of(self, shard: LocalShard) -> bool:
        if not shard.running:
            return shard.take_control()
        steps = shard.steps
        first = int(self._chance.random() * len(steps))
        try:
            for turn in range(len(steps)):
                if steps[(first + turn) % len(steps)]():
                    shard.report_changed()
                    return True
        except FunctionRestartError as error:
            self._restart(shard, error)
            return True
        if shard.publish():
            shard.report_changed()
            return True
        return False

    # ---- checkpoints and failures ---------------------------------------------------------------------------------------
    def checkpoint(self, *, steps_max: int = STEPS_MAX) -> None:
        """Complete a checkpoint of what has happened so far, and publish what it holds. Messages may be processed meanwhile.

        Raises:
            NotQuietError: it is not complete after ``steps_max`` steps.
        """
        self._check_open()
        supervision = self._supervision
        steps = self._step_until(lambda: supervision.idle, steps_max)
        completed = supervision.completed
        supervision.now_s = self._clock_s
        supervision.trigger()
        self._step_until(lambda: supervision.idle and supervision.completed > completed, steps)
        for shard in self._shards:
            shard.publish()
            shard.report_changed()

    def _step_until(self, reached: Any, steps_max: int) -> int:
        for step in range(steps_max):
            if reached() or self._supervision.finished:
                return steps_max - step
            assert self._step(), f"a checkpoint does not go on\n{self._describe()}"
        msg = f"no checkpoint is complete after {steps_max} steps"
        raise NotQuietError(f"{msg}\n{self._describe()}")

    @property
    def checkpoints(self) -> int:
        """How many checkpoints are complete."""
        return self._supervision.completed

    def crash(self, shard: int | None = None) -> None:
        """Kill a shard, or all of them: the node falls back to the last complete checkpoint. What came after runs again."""
        self._check_open()
        died = self._shards if shard is None else [self._shards[shard]]
        for one in died:
            one.kill()
        for one in died:
            self._supervision.died(one.shard, "killed by the test")
        self._recover()

    def _restart(self, shard: LocalShard, error: FunctionRestartError) -> None:
        """The failure policy of a function says so."""
        if self._supervision.completed > self._completed_at_restart:
            self._restarts = 0
        self._completed_at_restart = self._supervision.completed
        self._restarts += 1
        if self._restarts > RESTARTS_MAX:
            raise error
        self.trace.note(f"restart {error}")
        shard.kill()
        self._supervision.died(shard.shard, str(error))
        self._recover()

    def _recover(self) -> None:
        """Until all shards run."""
        while not (self._supervision.recovered and all(shard.running and not shard.controls for shard in self._shards)):
            took = [shard.take_control() for shard in self._shards]
            assert any(took), "a recovery does not go on"

    # ---- the end --------------------------------------------------------------------------------------------------------
    def end(self) -> None:
        """The input is used up: run ``on_end`` as at the end of a bounded run, until everything is published.

        Messages that are delayed stay where they are.

        Raises:
            NotQuietError: that does not come to an end.
        """
        self._check_open()
        self._around.inputs.ended = True
        for _ in range(END_ROUNDS_MAX):
            self.run()
            if self._supervision.finished:
                return
            self.checkpoint()
            busy = any(shard.core.dispatcher.calls.waiting for shard in self._shards)
            if busy and not self._supervision.finished:
                self._move_on(self._around.now_ms + duration_ms(SETTLE_MAX))
        msg = f"the input is used up, but the node is not at its end after {END_ROUNDS_MAX} checkpoints"
        raise NotQuietError(f"{msg}\n{self._describe()}")

    def close(self) -> None:
        """End what still runs. Safe to call twice."""
        if not self._closed:
            self._closed = True
            self._around.calls.close()
            for shard in self._shards:
                shard.close()

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

    def _describe(self) -> str:
        lines = [f"now {self.now.isoformat()}, seed {self.seed}"]
        for shard in self._shards:
            dispatcher = shard.core.dispatcher
            waiting = {target.typename: sum(map(len, target.queues)) for target in dispatcher.order}
            found = [f"{count} for {name}" for name, count in waiting.items() if count]
            busy = [str(Address(target.typename, id)) for target in dispatcher.order for id in target.blocked]
            lines.append(f"shard {shard.shard}: messages waiting: {names(found)}; busy addresses: {names(busy[:20])}")
        lines.append("last events:")
        lines += [f"  {line}" for line in self.trace.last]
        return "\n".join(lines)


def _drawn_limits(chance: random.Random, retries: int) -> Limits:
    """Small ones: whoever sends ten messages shall see more than one frame, now and then."""
    return Limits(
        frame_messages=chance.choice((1, 3, 10, 100)),
        window_frames=chance.choice((2, 4, 24)),
        mailbox_refill=chance.choice((4, 40, 400)),
        cache_bytes=chance.choice((1 << 14, 1 << 20, 1 << 28)),
        encode_records=chance.choice((2, 500)),
        retries=retries,
        validate_sends=True,
    )


def _needs_asyncio(program: Program) -> bool:
    return any(function.spec.options.asyncio for function in program.functions)
