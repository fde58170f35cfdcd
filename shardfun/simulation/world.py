"""The world: picks what happens next, step by step, and says how the run ended.

A step is one piece of work of one process, one fault, or one event outside. Virtual time moves a millisecond per step, and jumps on
when nobody has anything to do. How eagerly each kind of work is picked differs from seed to seed: so control messages may be slow against
the mesh, storage against execution, or one shard against all others.
"""

from __future__ import annotations

import math
import random
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from shardfun.core.coordinator import State
from shardfun.errors import EgressError, StorageError
from shardfun.simulation.building import figures_of, operator_of, surroundings_of
from shardfun.simulation.door import WHO as DOOR
from shardfun.simulation.faults import Faults
from shardfun.simulation.network import News
from shardfun.simulation.node import Node
from shardfun.simulation.options import DELIVERED_MIN, PACES, Options
from shardfun.simulation.process import ANYTHING
from shardfun.simulation.repairs import Repairs
from shardfun.simulation.striking import STEP_S, Strikes
from shardfun.simulation.supervisor import Supervisor
from shardfun.simulation.surroundings import Surroundings
from shardfun.simulation.trace import Event, Trace
from shardfun.simulation.view import CheckpointView
from shardfun.simulation.violation import Violation, place_of
from shardfun.simulation.work import ALL_KINDS, DISK_WORKS, STOPPED_KINDS, WAKES, Agenda
from shardfun.simulation.workloads import make_workload
from shardfun.simulation.workloads.workload import Workload

__all__ = ["DELIVERED_MIN", "Outcome", "World"]

SCHEDULE = 7_919_000_003  # other orders of the same seed are no other seeds
LIVENESS_STEPS_MAX = 200_000  # a world of which one shard is ten times slower than the others has taken 150,000
IDLE_PICKS = 60
"""After so many picks in a row without anything to do, everybody is asked; if that finds nothing, the clock moves on."""

OUTSIDE_SHARE = 0.14
BURSTS = 5  # the input of the safety phase comes in so many parts, so that it lasts, and waits in heaps
HEALED_SPEED_MAX = 5.0
ORPHAN_EXIT = 0.02
TABLE_ENTRIES = 250
"""About the length of the tables that the next step is drawn from."""

T = TypeVar("T")


@dataclass(slots=True)
class Outcome:
    """How a run ended.

    Args:
        kind: ``ok``, or that of the violation.
        figures: counts of what happened.
        digest: of the trace; two runs of a seed have the same.
        last: the last events.
        faults: the names of those that struck.
        place: which check has failed, or what has raised; the same in two runs that fail in the same way.
    """

    kind: str
    what: str
    figures: dict[str, float]
    digest: str
    last: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    place: str = ""


class World:
    """One run.

    Args:
        out: called with each event of the trace.
        make: makes the workload.
        follow: an address whose messages become events, too; they do not count for the digest.
    """

    def __init__(
        self,
        options: Options,
        out: Callable[[Event], None] | None = None,
        make: Callable[[Options], Workload] = make_workload,
        follow: str = "",
    ) -> None:
        self.options = options
        self.outcome: Outcome | None = None
        """Once the run has ended."""
        self.trace = Trace(out, self._where)
        self.chance = random.Random(options.seed + SCHEDULE * options.schedule)
        self.faults = Faults(options.rates, options.seed, options.faults, options.shards)
        self._around = surroundings_of(options, make(options), self.trace, self.chance, self.faults, follow)
        self.checker = self._around.checker
        self._operator = operator_of(self._around) if options.operator else None
        self.node = Node(self._around)
        self._repairs = Repairs(self._around, self.node)
        self._around.network.wake = self._hear
        self._strikes = Strikes(self._around, self.node)
        self._shard_table = _table(list(enumerate(map(float, options.speeds))))
        self._agenda = Agenda(options.pace)
        self._outside: list[Callable[[], bool]] = [
            self._supervisor_tick,
            self._supervisor_control,
            self._supervisor_perform,
            self._supervisor_perform,
            self._notice_death,
            self._boot,
            self._deliver_late,
            self._strikes.notice_loss,
            self._take_in,
            self._operate,
            self._operate,
        ]
        self._burst_steps = options.faulty_steps // (BURSTS + 1)
        self._outside_share = min(0.5, OUTSIDE_SHARE * options.pace["supervisor"])
        self._healed_at: int | None = None
        self._complete_at_heal = 0
        self._stop_asked = False

    # ---- a run ----------------------------------------------------------------------------------------------------------
    def run(self, steps_max: int | None = None) -> Outcome:
        """From the first start to the end.

        Args:
            steps_max: give up after so many, with an outcome of kind ``cut``.
        """
        while self.outcome is None:
            self.advance()
            if steps_max is not None and self.trace.step > steps_max and self.outcome is None:
                self._end("cut", f"not at its end after {steps_max} steps")
        return self.outcome

    def advance(self) -> None:
        """One step; after the last one there is an ``outcome``."""
        try:
            if not self._finished():
                self._step()
                return
            self._check_end()
        except Violation as violation:
            self._end(violation.kind, str(violation), place_of(violation))
        except Exception as error:  # noqa: BLE001 - whatever the core raises is the finding
            place = "".join(traceback.format_exception(error)[-3:])
            self._end("crash", f"{type(error).__name__}: {error}\n{place}", place_of(error))
        else:
            self._end("ok", "")

    def _end(self, kind: str, what: str, place: str = "") -> None:
        self._around.beside.close()
        figures, trace = figures_of(self._around, self._operator), self.trace
        self.outcome = Outcome(kind, what, figures, trace.digest, trace.last, self.faults.struck, place)

    def _step(self) -> None:
        """One thing that happens. Who is picked and has nothing to do takes no time."""
        supervisor = self.node.supervisor
        fault = self.faults.pick(recovering=supervisor is None or supervisor.recovering)
        if fault is not None:
            self.faults.hit(fault, had_effect=self._strikes.strike(fault))
        else:
            try:
                self._do_something()
            except StorageError as error:
                self._repairs.failed(error)
            except EgressError as error:
                self._repairs.sink_failed(error)
        if self.faults.victim is not None:
            self.faults.hit(self.faults.victim_of, had_effect=self.node.kill_by_name(self.faults.victim))
            self.faults.victim = None
        trace = self.trace
        trace.step += 1
        trace.now += STEP_S
        if self._healed_at is None and trace.step % self._burst_steps == 0:
            self._burst()

    def _do_something(self) -> None:
        chance, outside = self.chance, self._outside
        for _ in range(IDLE_PICKS):
            if chance.random() < self._outside_share:
                worked = outside[int(chance.random() * len(outside))]()
            else:
                worked = self._work(self._shard_table[int(chance.random() * len(self._shard_table))])
            if worked:
                return
        self._wake_all()
        if any(self._work(shard) for shard in range(self.options.shards)) or any(work() for work in outside):
            return  # the slow one, or something rare
        self.trace.now = max(self.trace.now, min(self._wake_times(), default=0.0))

    def _wake_times(self) -> Iterator[float]:
        """When somebody has something to do although nothing happens: the supervisor, a shard with timers, user code."""
        if self._around.beside.wake_at < math.inf:
            yield self._around.beside.wake_at
        if self.node.supervisor is not None:
            if self.node.supervisor.wake_at < math.inf:
                yield max(self.node.supervisor.wake_at, self.node.supervisor.asleep_until)
            yield from self.node.silence_ends()
        if self.node.supervisor is None and self.node.boots_at > self.trace.now:
            yield self.node.boots_at
        yield from (sink.down_until for sink in self._around.sinks.values() if sink.down_until > self.trace.now)
        if self._around.intake is not None:
            yield from self._around.intake.wake_times()
        for process in self.node.processes:
            if process is None:
                continue
            if process.disk_until is not None:
                yield max(process.disk_until, process.asleep_until)
            if process.asleep_until > self.trace.now:
                yield process.asleep_until
            elif process.running_core is not None:
                due_ms = process.running_core.wake_at_ms
                if due_ms is not None:
                    yield self._around.clock.monotonic(due_ms / 1000)

    def _work(self, shard: int) -> bool:
        """Let a shard do something; whether it had anything to do.

        Work of a kind that was not there sleeps until the shard has done something else, or something has come in.
        """
        chance, process = self.chance, self.node.processes[shard]
        if process is None or process.asleep_until > self.trace.now:
            return False
        if self.node.supervisor is None and chance.random() < ORPHAN_EXIT:
            return self.node.orphan_exits(shard)
        pick = self._agenda.pick
        while awake := process.awake & (ALL_KINDS if process.running else STOPPED_KINDS):
            kind = pick(awake, chance)
            if kind.work(process):
                process.awake |= kind.wakes if process.disk_until is None else kind.wakes | DISK_WORKS
                if process.exited:
                    self.node.collect_exits()
                return True
            process.awake &= ~kind.sleeps
        return False

    def _wake(self, shard: int) -> None:
        process = self.node.processes[shard]
        if process is not None:
            process.awake = ANYTHING

    def _hear(self, shard: int, news: News) -> None:
        process = self.node.processes[shard]
        if process is not None:
            process.awake |= WAKES[news]

    def _wake_all(self) -> None:
        for shard in range(self.options.shards):
            self._wake(shard)

    # ---- outside of the shards ------------------------------------------------------------------------------------------
    @property
    def _supervisor(self) -> Supervisor | None:
        """The supervisor, unless it is stopped."""
        supervisor = self.node.supervisor
        return None if supervisor is None or supervisor.asleep_until > self.trace.now else supervisor

    def _supervisor_tick(self) -> bool:
        return self._supervisor is not None and self._supervisor.tick()

    def _supervisor_control(self) -> bool:
        return self._supervisor is not None and self._supervisor.take_control()

    def _supervisor_perform(self) -> bool:
        return self._supervisor is not None and self._supervisor.perform()

    def _notice_death(self) -> bool:
        return self._supervisor is not None and (self.node.notice_silence() or self.node.notice_death())

    def _boot(self) -> bool:
        if self.node.supervisor is not None or self.trace.now < self.node.boots_at or self.chance.random() < 0.9:
            return False
        self.node.boot()
        return True

    def _deliver_late(self) -> bool:
        late = self._around.controls.late
        if not late or self.chance.random() < 0.7:
            return False
        place = self.chance.randrange(len(late))
        message = late[place]
        supervisor, process = self.node.supervisor, self.node.processes[message.shard]
        receiver = process if message.to_shard else supervisor
        if receiver is not None and receiver.asleep_until > self.trace.now:
            return False  # it is read when the process goes on
        del late[place]
        if not message.to_shard:
            if supervisor is not None:
                supervisor.handle(message.shard, message.raw)
        elif process is not None:
            process.handle(message.raw)
            self._wake(message.shard)
        return True

    def _take_in(self) -> bool:
        """The door, or one of its clients."""
        intake = self._around.intake
        happened = None if intake is None else intake.work(self._around.open_share)
        if happened:
            self._around.note(DOOR, happened)
            for shard in range(self.options.shards):
                self._hear(shard, News.ENTRIES)
        return happened is not None

    def _operate(self) -> bool:
        """The operator asks, or hears."""
        return self._operator is not None and self._supervisor is not None and self._operator.work(self._supervisor.desks)

    # ---- faults ---------------------------------------------------------------------------------------------------------
    def _burst(self) -> None:
        """Another part of the input may be read. The last part is kept for after the faults."""
        bursts = self.trace.step // self._burst_steps
        if bursts > BURSTS:
            self._heal()
        else:
            self._around.open_share = bursts / (BURSTS + 1)
            self._wake_all()
            self.trace.note("world", "input opens", f"to {self._around.open_share:.0%}")

    def _heal(self) -> None:
        self.trace.note("world", "heals")
        self.faults.heal()
        self.node.wake_up()
        if self._operator is not None:
            self._operator.active = False
        for sink in self._around.sinks.values():
            sink.down_until = 0.0
        self.node.boots_at = 0.0
        self._around.open_share = 1.0
        self._shard_table = _table([(shard, min(speed, HEALED_SPEED_MAX)) for shard, speed in enumerate(self.options.speeds)])
        self._agenda = Agenda(dict.fromkeys(PACES, 1.0))
        self._wake_all()
        self._outside_share = OUTSIDE_SHARE
        self._healed_at = self.trace.step
        self._complete_at_heal = self.checker.complete

    # ---- the end --------------------------------------------------------------------------------------------------------
    def _finished(self) -> bool:
        if self.node.over or self._repairs.refused:
            return True
        if self._healed_at is None:
            return False
        if self.trace.step - self._healed_at > LIVENESS_STEPS_MAX:
            self._stuck()
        if self._around.workload.endless and not self._stop_asked and self.trace.step % 16 == 0:
            self._stop_when_settled()
        return False

    def _settled(self, view: CheckpointView) -> bool:
        """Whether nothing is left to do but what never ends."""
        intake = self._around.intake
        return (intake is None or intake.clients.done) and self._around.workload.settled_all(view)

    def _stop_when_settled(self) -> None:
        """A world with balls in play never ends by itself: it is stopped when all else has come to its end."""
        view, supervisor = self.checker.view, self.node.supervisor
        if view is None or supervisor is None or self.checker.complete <= self._complete_at_heal:
            return
        if self._operator is not None and self._operator.waits_for is not None:
            return
        if self._around.intake is not None and not self._around.intake.is_read(view):
            return  # what is read of it later would be under way when the world stops
        if self._supervisor is not None and supervisor.coordinator.state is State.IDLE and self._settled(view):
            self._stop_asked = True
            self.trace.note("world", "asks to stop")
            supervisor.coordinator.stop()

    def _stuck(self) -> None:
        supervisor = self.node.supervisor
        waits_for = None if self._operator is None else self._operator.waits_for
        doing = "no supervisor" if supervisor is None else supervisor.coordinator.state.name
        raise Violation(
            "liveness",
            f"not finished {LIVENESS_STEPS_MAX} steps after the world healed: {doing}, newest complete checkpoint "
            f"{self.checker.complete}, it was {self._complete_at_heal} then; the operator waits for {waits_for or 'nothing'}",
        )

    def _check_end(self) -> None:
        if self._repairs.refused:
            return
        supervisor, view = self.node.supervisor, self.checker.view
        assert supervisor is not None
        assert supervisor.finished is not None
        if view is None or self.checker.complete <= self._complete_at_heal or self._healed_at is None:
            raise Violation("liveness", "the run ended without another complete checkpoint after the faults")
        if self._operator is not None:
            self._operator.hear_the_end(supervisor.desks)
        workload = self._around.workload
        if supervisor.finished.ended == workload.endless or not self._settled(view):
            raise Violation("liveness", "the run ended before everything that was admitted")
        published = {place: sink.records for place, sink in self._around.sinks.items()}
        if not self.checker.published_all(published):
            raise Violation("liveness", "the run ended with records that were not published")
        if workload.orders is not None:
            workload.orders.check_end(view)
        workload.judge_end(view, published)
        if self._around.executed < self.options.messages_min:
            raise Violation("correctness", f"only {self._around.executed} messages were delivered: the run proves too little")

    # ---- looking --------------------------------------------------------------------------------------------------------
    @property
    def around(self) -> Surroundings:
        """Everything that is not a process, to look at."""
        return self._around

    def _where(self, who: str) -> tuple[int, int]:
        """In which incarnation somebody is, and what his newest checkpoint is: of a shard its last cut."""
        name, _, number = who.partition(" ")
        process = self.node.processes[int(number)] if name == "shard" else None
        if process is not None and process.core is not None:
            return process.core.incarnation, process.core.participant.cut
        supervisor = self.node.supervisor
        return 0 if supervisor is None else supervisor.coordinator.incarnation, self.checker.complete


def _table(weighted: Sequence[tuple[T, float]]) -> list[T]:
    """Entries in proportion to their weight, each at least once: drawing is one multiplication."""
    total = sum(weight for _, weight in weighted)
    return [entry for entry, weight in weighted for _ in range(max(1, round(TABLE_ENTRIES * weight / total)))]
