"""The coordinator: triggers checkpoints, decides them, ends incarnations. Pure: the supervisor performs its effects.

Its rules, each the answer to a way in which the world could split:

- at most one checkpoint is undecided, and the next is triggered only when the last one is aborted, or applied by all;
- the manifest is the commit point: once it is being written, no refusal, time-out or death aborts any more;
- every start of the world, after whatever failure, is a new incarnation, raised durably before anybody hears of it;
- a death during the decision waits for the decision, since only then is it known which checkpoint to go back to.

A little long: the table, the effects and the machine are read together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, auto

from shardfun.core.membership import Change, Member, Membership
from shardfun.core.poison import POISON_DEATHS, Suspicion
from shardfun.errors import LocalProtocolError
from shardfun.model.control import (
    Abort,
    Applied,
    Changed,
    Complete,
    Finish,
    Loss,
    Prepared,
    Ready,
    Refused,
    Reset,
    Start,
    ToShard,
    Trigger,
)
from shardfun.model.delta import checkpoint_id, checkpoint_name

ABORTS_DOUBLE_MAX = 6  # after each abort in a row the pause doubles, up to 64 intervals


class State(Enum):
    """What the coordinator is doing."""

    RECOVERING = auto()
    IDLE = auto()
    ALIGNING = auto()
    DECIDING = auto()
    COMMITTING = auto()
    FINISHING = auto()


class Event(Enum):
    """What moves it on."""

    ALL_READY = auto()
    TRIGGERED = auto()
    ALL_PREPARED = auto()
    ABORTED = auto()
    MANIFEST_DURABLE = auto()
    ALL_APPLIED = auto()
    FAILURE = auto()
    FINISH = auto()


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.RECOVERING, Event.ALL_READY): State.IDLE,
    (State.RECOVERING, Event.FAILURE): State.RECOVERING,
    (State.IDLE, Event.TRIGGERED): State.ALIGNING,
    (State.IDLE, Event.FAILURE): State.RECOVERING,
    (State.IDLE, Event.FINISH): State.FINISHING,
    (State.ALIGNING, Event.ALL_PREPARED): State.DECIDING,
    (State.ALIGNING, Event.ABORTED): State.IDLE,
    (State.ALIGNING, Event.FAILURE): State.RECOVERING,
    (State.DECIDING, Event.MANIFEST_DURABLE): State.COMMITTING,
    (State.COMMITTING, Event.ALL_APPLIED): State.IDLE,
    (State.COMMITTING, Event.FAILURE): State.RECOVERING,
    (State.FINISHING, Event.FAILURE): State.RECOVERING,
}


# ---- effects -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Send:
    """Send a control message to a shard."""

    shard: int
    message: ToShard


@dataclass(frozen=True, slots=True)
class RaiseIncarnation:
    """Raise the incarnation number durably, then call ``incarnation_raised``."""


@dataclass(frozen=True, slots=True)
class FillVacancy:
    """Make a process serve the shard (killing and reaping what served it before), then call ``assigned``."""

    shard: int


@dataclass(frozen=True, slots=True)
class WriteManifest:
    """Write the manifest durably, then call ``manifest_durable``. An error here is fail-stop: the next start reads what is there."""

    checkpoint: int
    parent: int
    parts: list[Prepared]
    end: bool


@dataclass(frozen=True, slots=True)
class Finished:
    """All members were told to publish the rest and exit; ``ended``: the bounded input is used up."""

    ended: bool


Effect = Send | RaiseIncarnation | FillVacancy | WriteManifest | Finished


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """When checkpoints happen; all in seconds.

    Args:
        interval: from one trigger to the next, at least.
        timeout: an undecided checkpoint is aborted after this.
        idle_interval: a checkpoint is forced after this even if nothing has changed: it also finds a lost last frame.
        loop_share: of a shard's time that checkpoints may take at most.
        repeat: COMPLETE is sent again after this to those who have not applied.
    """

    interval: float = 0.2
    timeout: float = 30.0
    idle_interval: float = 5.0
    loop_share: float = 0.1
    repeat: float = 2.0


@dataclass(slots=True)
class Statistics:
    """For status and logs. Times in seconds of the caller's monotonic clock."""

    completed: int = 0
    aborted: int = 0
    recoveries: int = 0
    last_completed_at: float | None = None
    last_duration: float = 0.0
    last_bytes: int = 0
    total_duration: float = 0.0
    total_bytes: int = 0
    last_fault: str = ""
    recovery_started_at: float | None = None
    last_recovery: float | None = None


class Coordinator:
    """See the module. ``now`` arguments are monotonic seconds.

    Args:
        complete: the newest complete checkpoint (0: none); ``digests`` of each shard's delta of it.
        job: the data directory's job id.
        poison_deaths: deaths in a row inside one message that make it poison.

    ``suspicion`` hears of each death from the driver, before ``failure``.
    """

    def __init__(
        self,
        shards: int,
        timing: Timing,
        complete: int,
        digests: list[bytes],
        job: str,
        *,
        poison_deaths: int = POISON_DEATHS,
    ) -> None:
        self.state = State.RECOVERING
        self.membership = Membership(shards)
        self.suspicion = Suspicion(shards, poison_deaths)
        self.incarnation = 0
        self.complete = complete
        self.effects: list[Effect] = []
        self.statistics = Statistics()
        self.stopping = False
        self._current_is_last = False  # triggered after ``stop``: it holds all that was done before
        self.current = 0
        self._job = job
        self._shards = shards
        self._timing = timing
        self._digests = digests
        self._sequence = 0
        self._prepared: dict[int, Prepared] = {}
        self._applied: dict[int, bool] = {}
        self._urls: dict[int, dict[int, str]] = {}
        self._failed_while_deciding = False
        self._end = False
        self._all_ended = False
        self._raising = self._raise_again = False
        self._changed = True
        self._urgent = False
        self._aborts = 0
        self._triggered_at = self._not_before = self._repeated_at = 0.0

    def _move(self, event: Event) -> None:
        try:
            self.state = TRANSITIONS[self.state, event]
        except KeyError:
            msg = f"coordinator: {event.name} is not possible while {self.state.name}"
            raise LocalProtocolError(msg) from None

    def take_effects(self) -> list[Effect]:
        """What shall be done, in order; each effect is given out once."""
        effects, self.effects = self.effects, []
        return effects

    def _broadcast(self, message: ToShard, shards: list[int] | None = None) -> None:
        for shard in self.membership.in_state(Member.RUNNING) if shards is None else shards:
            self.effects.append(Send(shard, message))

    # ---- incarnations ---------------------------------------------------------------------------------------------------
    def start(self, now: float) -> None:
        """Begin: the first incarnation of this supervisor."""
        self._begin_recovery(now)

    def failure(self, shard: int | None, reason: str, now: float) -> None:
        """A member has died (``shard``), or a channel is broken (``None``): the incarnation ends.

        While a decision is being written it waits for it: only then is it known which checkpoint to go back to.
        """
        self.statistics.last_fault = reason
        if shard is not None:
            self.membership.change(shard, Change.DIE)
        if self.state is State.DECIDING:
            self._failed_while_deciding = True
            return
        self._move(Event.FAILURE)
        self.statistics.recoveries += 1
        self._begin_recovery(now)

    def _begin_recovery(self, now: float) -> None:
        if self.statistics.recovery_started_at is None:
            self.statistics.recovery_started_at = now
        self.current = 0
        self._failed_while_deciding = False
        self._prepared = {}
        self._urls = {}
        if not self._raising:
            self._raising = True
            self.effects.append(RaiseIncarnation())
        else:
            self._raise_again = True

    def incarnation_raised(self, incarnation: int) -> None:
        """The new number is durable: reset the survivors, fill the vacancies."""
        assert incarnation > self.incarnation
        self._raising = False
        self.incarnation = incarnation
        if self._raise_again:
            self._raise_again = False
            self._raising = True
            self.effects.append(RaiseIncarnation())
            return
        self._sequence = 0
        self.suspicion.incarnation_began()
        for shard, member in enumerate(self.membership.members):
            if member is Member.VACANT:
                self.effects.append(FillVacancy(shard))
            else:
                self._reset(shard)

    def assigned(self, shard: int) -> None:
        """A process serves the shard now and has restored nothing yet."""
        self.membership.change(shard, Change.ASSIGN)
        if self.state is State.RECOVERING and not self._raising:
            self._reset(shard)

    def _reset(self, shard: int) -> None:
        self.membership.change(shard, Change.RESET)
        nonce = f"{self._job[:8]}-{self.incarnation}"
        careful, poison = self.suspicion.is_careful(shard), self.suspicion.poison(shard)
        suspects = self.suspicion.suspects(shard)
        reset = Reset(self.incarnation, self.complete, self._digests[shard], nonce, careful, poison, suspects)
        self.effects.append(Send(shard, reset))

    def on_ready(self, shard: int, message: Ready, now: float) -> None:
        """A member has restored. When all have, the world runs."""
        if message.incarnation != self.incarnation or self.membership.members[shard] is not Member.RESTORING:
            return
        self.membership.change(shard, Change.READY)
        self._urls[shard] = message.listening
        if not self.membership.all_in(Member.READY):
            return
        for member in range(self._shards):
            self.membership.change(member, Change.START)
            peers = {peer: urls[member] for peer, urls in self._urls.items() if member in urls}
            self.effects.append(Send(member, Start(self.incarnation, peers)))
        self._move(Event.ALL_READY)
        self._changed = True
        self._not_before = self._triggered_at = now  # the first checkpoint at once: a further failure then costs less work
        if self.statistics.recovery_started_at is not None:
            self.statistics.last_recovery = now - self.statistics.recovery_started_at
            self.statistics.recovery_started_at = None

    def on_loss(self, message: Loss, now: float) -> None:
        """A shard reports a broken channel."""
        ends = self.state in {State.RECOVERING, State.FINISHING} or self._failed_while_deciding
        if message.incarnation == self.incarnation and not ends:
            self.failure(None, f"channel to shard {message.peer}: {message.reason}", now)

    # ---- checkpoints ----------------------------------------------------------------------------------------------------
    def on_changed(self, message: Changed) -> None:
        """A shard has something to keep."""
        if message.incarnation == self.incarnation:
            self._changed = True
            self._urgent = self._urgent or message.urgent

    def tick(self, now: float) -> None:
        """Look at the clock: trigger, time out, repeat."""
        if self.state is State.IDLE:
            if self._due(now):
                self.trigger(now)
        elif self.state is State.ALIGNING:
            if now >= self.wake_at:
                self._abort(f"not prepared after {self._timing.timeout:g} s", now)
        elif self.state is State.COMMITTING and now >= self.wake_at:
            self._repeated_at = now
            missing = [shard for shard in range(self._shards) if shard not in self._applied]
            self._broadcast(Complete(self.incarnation, self.complete, self._end), missing)

    def _due(self, now: float) -> bool:
        if self.stopping and self._aborts == 0:
            return True
        if now < self._not_before and not (self._urgent and self._aborts == 0):
            return False
        return self.stopping or self._changed or self._urgent or now >= self._triggered_at + self._timing.idle_interval

    @property
    def wake_at(self) -> float:
        """When ``tick`` has something to do, if nothing else happens before: at that very moment, or it would be asked for ever."""
        if self.state is State.IDLE:
            if self.stopping and self._aborts == 0:
                return self._triggered_at
            if self._changed or self.stopping:
                return self._not_before
            return max(self._not_before, self._triggered_at + self._timing.idle_interval)
        if self.state is State.ALIGNING:
            return self._triggered_at + self._timing.timeout
        if self.state is State.COMMITTING:
            return self._repeated_at + self._timing.repeat
        return math.inf  # it waits for messages, deaths or the disk

    def trigger(self, now: float) -> int:
        """Start a checkpoint now; its id. Only while idle."""
        self._move(Event.TRIGGERED)
        self._sequence += 1
        self.current = checkpoint_id(self.incarnation, self._sequence)
        self._prepared = {}
        self._changed = self._urgent = False
        self._current_is_last = self.stopping
        self._triggered_at = now
        self._not_before = now + self._timing.interval
        self._broadcast(Trigger(self.incarnation, self.current))
        return self.current

    def on_prepared(self, shard: int, message: Prepared) -> None:
        """A shard's part is durable. When all are, the decision is written."""
        if not self._current_vote(message.incarnation, message.checkpoint):
            return
        self._prepared[shard] = message
        if len(self._prepared) < self._shards:
            return
        self._move(Event.ALL_PREPARED)
        parts = [self._prepared[member] for member in range(self._shards)]
        used_up = all(part.at_end and part.quiet for part in parts)
        self._all_ended = used_up and all(part.ended and part.published for part in parts)
        self._end = used_up and not all(part.ended for part in parts)
        self.effects.append(WriteManifest(self.current, self.complete, parts, self._end))

    def on_refused(self, shard: int, message: Refused, now: float) -> None:
        """A shard cannot persist its part: abort, and try again later."""
        if self._current_vote(message.incarnation, message.checkpoint):
            self._abort(f"shard {shard}: {message.reason}", now)

    def _current_vote(self, incarnation: int, checkpoint: int) -> bool:
        return incarnation == self.incarnation and self.state is State.ALIGNING and checkpoint == self.current

    def _abort(self, reason: str, now: float) -> None:
        aborted = self.current
        self._move(Event.ABORTED)
        self.statistics.aborted += 1
        self.statistics.last_fault = f"checkpoint {checkpoint_name(aborted)} aborted: {reason}"
        self.current = 0
        self._changed = True  # the changes of the aborted one are still in no checkpoint
        self._aborts = min(self._aborts + 1, ABORTS_DOUBLE_MAX)
        self._not_before = now + self._timing.interval * (1 << self._aborts)
        self._broadcast(Abort(self.incarnation, aborted))

    def manifest_durable(self, checkpoint: int, now: float) -> None:
        """The commit point is passed."""
        assert checkpoint == self.current
        self._move(Event.MANIFEST_DURABLE)
        self.complete = checkpoint
        parts = [self._prepared[member] for member in range(self._shards)]
        self._digests = [part.digest for part in parts]
        self._applied = {}
        self._aborts = 0
        self._repeated_at = now
        self.membership.checkpoint_completed()
        self.suspicion.checkpoint_completed([(part.parked, part.suspects) for part in parts])
        statistics = self.statistics
        statistics.completed += 1
        statistics.last_completed_at = now
        statistics.last_duration = now - self._triggered_at
        statistics.last_bytes = sum(part.size_bytes for part in parts)
        statistics.total_duration += statistics.last_duration
        statistics.total_bytes += statistics.last_bytes
        longest = max(part.loop_s for part in parts)
        self._not_before = max(self._not_before, self._triggered_at + longest / self._timing.loop_share)
        if self._failed_while_deciding:
            self._move(Event.FAILURE)
            statistics.recoveries += 1
            self._begin_recovery(now)
            return
        self._broadcast(Complete(self.incarnation, checkpoint, self._end))

    def on_applied(self, shard: int, message: Applied, now: float) -> None:
        """A shard's store has the checkpoint. When all have, the next one may start."""
        if message.incarnation != self.incarnation or self.state is not State.COMMITTING or message.checkpoint != self.complete:
            return
        self._applied[shard] = True
        if len(self._applied) < self._shards:
            return
        self._move(Event.ALL_APPLIED)
        self.current = 0
        if self._end:
            self._changed = True
            self._not_before = now
        if self._all_ended or self._current_is_last:
            self._finish()

    # ---- the end --------------------------------------------------------------------------------------------------------
    def stop(self) -> None:
        """Take one more checkpoint (after the running one, if any), then let all members publish the rest and exit."""
        self.stopping = True

    def _finish(self) -> None:
        self._move(Event.FINISH)
        self._broadcast(Finish(self.incarnation))
        self.effects.append(Finished(self._all_ended))
