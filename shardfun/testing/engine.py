"""What drives a local node: picks which shard does what next, moves time, brings the shards back when one has died.

A step is one thing that one shard does. Time stands still during steps; it is moved from one due thing to the next.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Sequence

from shardfun.core.dispatch import Router
from shardfun.core.limits import Limits
from shardfun.core.shard import Program
from shardfun.errors import FunctionRestartError
from shardfun.model.address import Address
from shardfun.model.control import ToShard
from shardfun.sdk.app import App
from shardfun.testing.calls import LocalCalls
from shardfun.testing.inputs import SENDS, Inputs, route_sends
from shardfun.testing.moments import to_datetime
from shardfun.testing.outputs import Outputs
from shardfun.testing.program import Encoder, compile_program, names
from shardfun.testing.results import NotQuietError
from shardfun.testing.shard import LocalShard, Surroundings
from shardfun.testing.supervision import Supervision
from shardfun.testing.trace import Trace

STEP_S = 0.001  # what a step counts against the interval of checkpoints, since time itself stands still
EXPIRY_ROUND_MS = 86_400_000  # a test that lets months pass shall not wait for it
RESTARTS_MAX = 10  # that functions ask for, without a checkpoint in between
BUSY_SHOWN_MAX = 20


class Engine:
    """See the module.

    Args:
        interval_s: between checkpoints; ``None``: only when ``checkpoint`` is called.
        limits: ``None``: drawn from the seed, with ``retries``.
    """

    def __init__(
        self,
        app: App,
        *,
        shards: int,
        seed: int,
        started_ms: int,
        retries: int,
        interval_s: float | None,
        limits: Limits | None,
        encode: Encoder | None,
    ) -> None:
        chance = random.Random(seed)  # noqa: S311 - a seed is the point
        routers: dict[str, Router] = {SENDS: route_sends}
        program = compile_program(app, routers, encode)
        self.around = Surroundings(
            program=program,
            limits=limits or _drawn_limits(chance, retries),
            chance=chance,
            trace=Trace(),
            inputs=Inputs(program.routes, shards),
            outputs=Outputs(),
            calls=LocalCalls(shards, chance, asyncio=_needs_asyncio(program)),
            frames={(a, b): deque() for a in range(shards) for b in range(shards) if a != b},
            open_egresses=app.egresses is None,
            encode=encode,
            seed=seed,
            started_ms=started_ms,
            now_ms=started_ms,
        )
        self.supervision = Supervision(shards, interval_s, self._send_control, self.around.trace)
        self.shards = [LocalShard(self.around, shard, shards, self.supervision.hear) for shard in range(shards)]
        self._steps = 0
        self._restarts = 0
        self._completed_at_restart = 0
        self.supervision.start()
        self._recover()

    def _send_control(self, shard: int, message: ToShard) -> None:
        self.shards[shard].controls.append(message)

    # ---- steps ----------------------------------------------------------------------------------------------------------
    def step(self) -> bool:
        """One thing that happens somewhere; false if nothing is left to do now.

        Raises:
            FunctionRestartError: a function asks for a restart again and again.
            BacklogLimitError: too many messages wait.
        """
        self._steps += 1
        self.supervision.now_s = self._clock_s
        self.supervision.tick()
        count = len(self.shards)
        first = int(self.around.chance.random() * count)
        for turn in range(count):
            if self._step_of(self.shards[(first + turn) % count]):
                return True
        return self.around.calls.run_async(self.around.elapsed_s)

    def _step_of(self, shard: LocalShard) -> bool:
        if not shard.running:
            return shard.take_control()
        steps = shard.steps
        first = int(self.around.chance.random() * len(steps))
        try:
            done = any(steps[(first + turn) % len(steps)]() for turn in range(len(steps))) or shard.publish()
        except FunctionRestartError as error:
            self._restart(shard, error)
            return True
        if done:
            shard.report_changed()
        return done

    def run(self, steps_max: int) -> None:
        """Steps, until nothing is left to do now.

        Raises:
            NotQuietError: that is not so after ``steps_max``.
        """
        for _ in range(steps_max):
            if not self.step():
                return
        raise self.not_quiet(
            f"the node is not quiet after {steps_max} steps: its functions may be sending messages to each other for ever"
        )

    @property
    def _clock_s(self) -> float:
        """The clock of the supervisor: passing time, and work."""
        return self.around.elapsed_s + self._steps * STEP_S

    # ---- time -----------------------------------------------------------------------------------------------------------
    def move_on(self, until_ms: int) -> bool:
        """Move time to the next due thing, if that is not later than ``until_ms``."""
        due = self.next_due_ms()
        if due is None or due > until_ms:
            return False
        self.around.now_ms = due
        self.around.trace.note(f"time {due}")
        return True

    def next_due_ms(self) -> int | None:
        """When something is due: unix milliseconds."""
        around = self.around
        times = [due for shard in self.shards if (due := shard.core.wake_at_ms) is not None]
        sleeper_s = around.calls.next_deadline_s
        if sleeper_s != math.inf:
            times.append(around.started_ms + math.ceil(sleeper_s * 1000))
        return min((time for time in times if time > around.now_ms), default=None)  # all else was done, or has to wait

    @property
    def busy(self) -> bool:
        """Whether something under way has to come to its end before that of a bounded run."""
        found = [shard.core.dispatcher for shard in self.shards]
        return any(one.calls.waiting or one.calls.running or one.timers.awaited for one in found)

    # ---- checkpoints and failures ---------------------------------------------------------------------------------------
    def checkpoint(self, steps_max: int) -> None:
        """Complete a checkpoint, and publish what it holds.

        Raises:
            NotQuietError: it is not complete after ``steps_max`` steps.
        """
        supervision = self.supervision
        if supervision.finished:
            return
        left = self._step_until(lambda: supervision.idle, steps_max)
        completed = supervision.completed
        supervision.now_s = self._clock_s
        supervision.trigger()
        self._step_until(lambda: supervision.idle and supervision.completed > completed, left)
        for shard in self.shards:
            shard.publish()
            shard.report_changed()

    def _step_until(self, reached: Callable[[], bool], steps_max: int) -> int:
        for step in range(steps_max):
            if reached() or self.supervision.finished:
                return steps_max - step
            if not self.step():
                raise self.not_quiet("a checkpoint does not go on")
        raise self.not_quiet(f"no checkpoint is complete after {steps_max} steps")

    def kill(self, shards: Sequence[LocalShard], reason: str) -> None:
        """Kill shards, and let all of them fall back to the last complete checkpoint."""
        for shard in shards:
            shard.kill()
        for shard in shards:
            self.supervision.died(shard.shard, reason)
        self._recover()

    def _restart(self, shard: LocalShard, error: FunctionRestartError) -> None:
        """The failure policy of a function says so."""
        if self.supervision.completed > self._completed_at_restart:
            self._restarts = 0
        self._completed_at_restart = self.supervision.completed
        self._restarts += 1
        if self._restarts > RESTARTS_MAX:
            raise error
        self.around.trace.note(f"restart {error}")
        self.kill([shard], str(error))

    def _recover(self) -> None:
        """Until all shards run."""
        while not (self.supervision.recovered and all(shard.running and not shard.controls for shard in self.shards)):
            took = [shard.take_control() for shard in self.shards]
            assert any(took), "a recovery does not go on"

    # ---- the end --------------------------------------------------------------------------------------------------------
    def close(self) -> None:
        """End what still runs."""
        self.around.calls.close()
        for shard in self.shards:
            shard.close()

    def not_quiet(self, what: str) -> NotQuietError:
        """The error, with all that helps to find out why."""
        around = self.around
        lines = [what]
        under_way = around.calls.under_way()
        if under_way:
            lines.append(f"code that has begun and not ended: {names(under_way[:BUSY_SHOWN_MAX])}")
        lines.append(f"now {to_datetime(around.now_ms).isoformat()}, seed {around.seed}")
        for shard in self.shards:
            order = shard.core.dispatcher.order
            waiting = [f"{count} for {target.typename}" for target in order if (count := sum(map(len, target.queues)))]
            busy = [str(Address(target.typename, id)) for target in order for id in target.blocked]
            lines.append(f"shard {shard.shard}: messages: {names(waiting)}; busy addresses: {names(busy[:BUSY_SHOWN_MAX])}")
        return NotQuietError("\n".join([*lines, "last events:", *(f"  {line}" for line in around.trace.last)]))


def _drawn_limits(chance: random.Random, retries: int) -> Limits:
    """Small ones: whoever sends ten messages shall see more than one frame, now and then."""
    return Limits(
        frame_messages=chance.choice((1, 3, 10, 100)),
        window_frames=chance.choice((2, 4, 24)),
        mailbox_refill=chance.choice((4, 40, 400)),
        cache_bytes=chance.choice((1 << 14, 1 << 20, 1 << 28)),
        encode_records=chance.choice((2, 500)),
        retries=retries,
        expiry_round_ms=EXPIRY_ROUND_MS,
        validate_sends=True,
    )


def _needs_asyncio(program: Program) -> bool:
    return any(function.spec.options.asyncio for function in program.functions)
