"""Timers beside a plain model of them, through checkpoints, aborts and recoveries, with almost nothing kept in memory."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import Phase as HypothesisPhase
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from single_core import core_of, put, run_all, waiting_of

from shardfun import App, Context, State
from shardfun.core.effects import ApplyDelta, WriteDelta
from shardfun.core.limits import Limits
from shardfun.core.participant import Phase
from shardfun.core.shard import ShardCore, StartPoint
from shardfun.core.snapshot import EMPTY_QUEUES, decode_queues
from shardfun.core.timer_index import TIMER_PREFIX
from shardfun.errors import TokenPendingError
from shardfun.model.control import Abort, Complete, Trigger
from shardfun.model.delta import DeltaSummary, checkpoint_id

LIMITS = Limits(retries=1, timers_near=4, timers_load=3, timers_fire=2, encode_records=3)
BEGIN_MS = 1_700_000_000_000

ids = st.sampled_from(["a", "b"])
tokens = st.sampled_from(["", "t", "u"])
delays = st.one_of(st.integers(0, 30), st.integers(0, 400))


class Model:
    """Pending timers as ``(due, made, message)``, and the timer of each token."""

    def __init__(self) -> None:
        self.made = 0
        self.timers: dict[int, tuple[int, int, int]] = {}
        self.tokens: dict[tuple[str, str], int] = {}

    def create(self, id: str, due: int, message: int, token: str, *, replace: bool) -> None:
        if token and (id, token) in self.tokens:
            if not replace:
                raise TokenPendingError
            self.cancel(id, token)
        self.made += 1
        self.timers[self.made] = (due, self.made, message)
        if token:
            self.tokens[id, token] = self.made

    def cancel(self, id: str, token: str) -> None:
        made = self.tokens.pop((id, token), None)
        if made is not None:
            del self.timers[made]

    def fire(self, until: int, limit: int) -> list[int]:
        due = sorted(timer for timer in self.timers.values() if timer[0] <= until)[:limit]
        for _, made, _ in due:
            del self.timers[made]
        self.tokens = {key: made for key, made in self.tokens.items() if made in self.timers}
        return [message for _, _, message in due]


Call = tuple[str, int, int, str, bool]
"""``(create or cancel, delay, message, token, replace)``."""


class TimersBesideAModel(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.now = BEGIN_MS
        self.model = Model()
        self.messages = 0
        self.stored: dict[bytes, bytes] = {}
        self.incarnation = 1
        self.sequence = 0
        self.at_cut: Model | None = None
        self.complete: tuple[int, bytes | None, Model] = (0, None, Model())
        self.write: WriteDelta | None = None
        self.apply: ApplyDelta | None = None
        self.steps: list[tuple[list[Call], bool]] = []
        self.said: list[list[str]] = []
        self.core = self.new_core()

    def new_core(self) -> ShardCore:
        app = App("model")

        @app.function("t/do")
        def do(ctx: Context[State], step: int) -> None:
            calls, fails = self.steps[step]
            said: list[str] = []
            self.said.append(said)
            for kind, delay, message, token, replace in calls:
                try:
                    if kind == "cancel":
                        ctx.cancel(token)
                    else:
                        ctx.send_after(delay / 1000, "t/hear", f"h{message}", message, token=token, replace=replace)
                    said.append("ok")
                except TokenPendingError:
                    said.append("pending")
            if fails:
                msg = "as asked"
                raise ValueError(msg)

        @app.function("t/hear")
        def hear(ctx: Context[State], message: int) -> None: ...

        checkpoint, queues, _ = self.complete
        start = StartPoint(self.incarnation, checkpoint, b"d", EMPTY_QUEUES if queues is None else decode_queues(queues))
        core = core_of(app, stored=self.stored, start=start, limits=LIMITS)
        core.advance(0)
        core.dispatcher.now_ms = self.now
        return core

    # ---- functions ------------------------------------------------------------------------------------------------------
    def run(self, id: str, batch: list[tuple[list[tuple[str, int, str, bool]], bool]]) -> None:
        """Some invocations in one batch; each makes some calls, and may fail then."""
        expected: list[list[str]] = []
        begun = len(self.said)
        numbers = []
        for raw, fails in batch:
            calls: list[Call] = []
            for kind, delay, token, replace in raw:
                self.messages += 1
                calls.append((kind, delay, self.messages, token, replace))
            numbers.append(len(self.steps))
            self.steps.append((calls, fails))
            for _ in range(LIMITS.retries + 1 if fails else 1):
                trial = copy.deepcopy(self.model)
                said = []
                for kind, delay, message, token, replace in calls:
                    try:
                        if kind == "cancel":
                            trial.cancel(id, token)
                        else:
                            trial.create(id, self.now + delay, message, token, replace=replace)
                        said.append("ok")
                    except TokenPendingError:
                        said.append("pending")
                expected.append(said)
            if not fails:
                self.model = trial
        put(self.core, "t/do", *((id, number) for number in numbers))
        run_all(self.core)
        assert self.said[begun:] == expected

    @rule(
        id=ids,
        batch=st.lists(
            st.tuples(
                st.lists(
                    st.one_of(
                        st.tuples(st.just("create"), delays, tokens, st.booleans()),
                        st.tuples(st.just("cancel"), st.just(0), st.sampled_from(["t", "u"]), st.just(value=False)),
                    ),
                    max_size=4,
                ),
                st.booleans(),
            ),
            min_size=1,
            max_size=4,
        ),
    )
    def invoke(self, id: str, batch: Any) -> None:
        self.run(id, batch)

    @rule(id=ids, delays=st.lists(delays, min_size=8, max_size=20), token=st.sampled_from(["t", "u"]))
    def make_many(self, id: str, delays: list[int], token: str) -> None:
        """The last one can be cancelled; often it is a far one."""
        calls = [("create", delay, "", False) for delay in delays]
        self.run(id, [([*calls, ("create", max(delays), token, True)], False)])

    @rule(id=ids, token=st.sampled_from(["t", "u"]))
    def cancel(self, id: str, token: str) -> None:
        self.run(id, [([("cancel", 0, token, False)], False)])

    # ---- time -----------------------------------------------------------------------------------------------------------
    def advance(self) -> list[int]:
        before = self.core.dispatcher.timers.count
        self.core.advance(self.now / 1000 + 0.0001)
        fired = [row[3] for row in waiting_of(self.core, 0)]
        assert [row[1] for row in waiting_of(self.core, 0)] == [f"h{message}" for message in fired]
        for target in self.core.dispatcher.order:
            while len(target.mailbox):
                target.mailbox.take(100)
        assert len(fired) == before - self.core.dispatcher.timers.count <= LIMITS.timers_fire
        assert fired == self.model.fire(self.now, len(fired))
        return fired

    @rule(ms=st.integers(0, 6))
    def advance_once(self, ms: int) -> None:
        self.now += ms
        self.advance()

    @rule(ms=st.integers(0, 40))
    def advance_until_nothing_is_due(self, ms: int) -> None:
        self.now += ms
        self.advance()
        turns = 0
        while (at := self.core.wake_at_ms) is not None and at <= self.now:
            turns += 1
            assert turns < 1000, "always something to do, and nothing is done"
            self.advance()
        assert not [timer for timer in self.model.timers.values() if timer[0] <= self.now]
        if self.model.timers and at is not None:
            assert at == min(self.model.timers.values())[0]

    # ---- checkpoints ----------------------------------------------------------------------------------------------------
    @property
    def checkpoint(self) -> int:
        return checkpoint_id(self.incarnation, self.sequence)

    @precondition(lambda self: self.core.participant.phase is Phase.IDLE)
    @rule(aborted=st.booleans())
    def cut(self, *, aborted: bool) -> None:
        if aborted:
            self._cut()
            self.abort()
        self._cut()

    def _cut(self) -> None:
        self.sequence += 1
        self.at_cut = copy.deepcopy(self.model)
        self.core.on_control(Trigger(self.incarnation, self.checkpoint))

    @precondition(lambda self: self.core.participant.phase in {Phase.ALIGNING, Phase.ENCODING})
    @rule(pieces=st.integers(1, 20))
    def encode(self, pieces: int) -> None:
        for _ in range(pieces):
            self.core.checkpoint_work()
        for effect in self.core.take_effects():
            if isinstance(effect, WriteDelta):
                self.write = effect
                self.core.delta_written(self.checkpoint, DeltaSummary(b"d", 1, 1), 0.0)

    @precondition(lambda self: self.core.undecided and self.core.participant.phase is not Phase.APPLYING)
    @rule()
    def abort(self) -> None:
        self.core.on_control(Abort(self.incarnation, self.checkpoint))

    @precondition(lambda self: self.core.participant.phase is Phase.PREPARED)
    @rule(part=st.floats(0, 1))
    def complete_and_apply_a_part(self, part: float) -> None:
        assert self.write is not None
        assert self.at_cut is not None
        self.complete = (self.checkpoint, self.write.queues, self.at_cut)
        self.core.take_effects()
        self.core.on_control(Complete(self.incarnation, self.checkpoint, end=False))
        (self.apply,) = (effect for effect in self.core.take_effects() if isinstance(effect, ApplyDelta))
        self.put_into_store(part)

    def put_into_store(self, part: float) -> None:
        assert self.apply is not None
        pairs = [pair for block in self.apply.blocks for pair in zip(block.keys, block.values, strict=True)]
        for key, raw in pairs[: round(part * len(pairs))]:
            if raw is None:
                self.stored.pop(key, None)
            else:
                self.stored[key] = raw

    @precondition(lambda self: self.core.participant.phase is Phase.APPLYING)
    @rule()
    def applied(self) -> None:
        self.put_into_store(1)
        self.core.delta_applied(self.checkpoint, {})

    @precondition(lambda self: self.core.participant.phase is Phase.IDLE)
    @rule(id=ids, delays=st.lists(delays, max_size=20))
    def make_many_in_the_middle_of_a_checkpoint(self, id: str, delays: list[int]) -> None:
        self._cut()
        self.encode(1000)
        self.complete_and_apply_a_part(0.5)
        self.run(id, [([("create", delay, "", False) for delay in delays], False)])
        self.applied()

    @precondition(lambda self: self.messages > 30)
    @rule()
    def recover(self) -> None:
        if self.core.participant.phase is Phase.APPLYING:
            self.put_into_store(1)
        self.incarnation += 1
        self.sequence = 0
        self.model = copy.deepcopy(self.complete[2])
        self.core = self.new_core()

    # ---- always ---------------------------------------------------------------------------------------------------------
    @invariant()
    def is_as_the_model(self) -> None:
        timers, cells = self.core.dispatcher.timers, self.core.table.cells
        assert timers.count == len(self.model.timers)
        assert sum(timers.pending.values()) == timers.count
        assert len(timers._index._near) <= 2 * LIMITS.timers_near
        assert len(timers._index._heap) <= 4 * LIMITS.timers_near + LIMITS.timers_near
        assert [int.from_bytes(suffix[8:16], "big") for suffix, _ in cells.scan(TIMER_PREFIX)] == [
            made for _, made, _ in sorted(self.model.timers.values())
        ]
        for id in "ab":
            for token in "tu":
                assert timers._is_stored(id, token) == ((id, token) in self.model.tokens)


TestTimersBesideAModel = TimersBesideAModel.TestCase
TestTimersBesideAModel.settings = settings(
    max_examples=20,
    stateful_step_count=50,
    deadline=None,
    phases=tuple(phase for phase in HypothesisPhase if phase is not HypothesisPhase.explain),  # it traces every line
)
