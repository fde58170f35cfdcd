"""The three state machines: every pair of state and event either moves as the table says, or raises and changes nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
from single_core import core_of, put

from shardfun import App, Context, State, Value, value
from shardfun.core import coordinator as coordinating
from shardfun.core import membership as members
from shardfun.core import participant as participating
from shardfun.core.coordinator import Coordinator, Send, Timing, WriteManifest
from shardfun.core.effects import ApplyDelta, WriteDelta
from shardfun.core.membership import Change, Member, Membership
from shardfun.core.participant import Phase
from shardfun.core.shard import ShardCore
from shardfun.errors import LocalProtocolError
from shardfun.model.control import Abort, Applied, Complete, Loss, Prepared, Ready, Refused, Trigger
from shardfun.model.delta import DeltaSummary, checkpoint_id
from shardfun.model.frames import encode_frame

OLDER, CURRENT, NEWER = (checkpoint_id(1, sequence) for sequence in (1, 2, 3))
SUMMARY = DeltaSummary(b"digest", 10, 1)


def _ids(pair: tuple[Any, Any]) -> str:
    return f"{pair[0].name}-{pair[1].name}"


# ---- the tables themselves -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("pair", list(itertools.product(Phase, participating.Event)), ids=_ids)
def test_participant(pair: tuple[Phase, participating.Event]) -> None:
    """A shard's side of a checkpoint."""
    phase, event = pair
    machine = core_of(_app(), shards=2).participant
    machine.phase = phase
    before = dict(vars(machine))
    following = participating.TRANSITIONS.get(pair)
    if following is not None:
        machine._move(event)
        assert machine.phase is following
        before["phase"] = following
    else:
        with pytest.raises(LocalProtocolError, match=f"{event.name} is not possible while {phase.name}"):
            machine._move(event)
    assert vars(machine) == before


@pytest.mark.parametrize("pair", list(itertools.product(coordinating.State, coordinating.Event)), ids=_ids)
def test_coordinator(pair: tuple[coordinating.State, coordinating.Event]) -> None:
    """The supervisor's side of a checkpoint."""
    state, event = pair
    machine = Coordinator(2, Timing(), 0, [b"", b""], "job")
    machine.state = state
    before = dict(vars(machine))
    following = coordinating.TRANSITIONS.get(pair)
    if following is not None:
        machine._move(event)
        before["state"] = following
    else:
        with pytest.raises(LocalProtocolError, match=f"{event.name} is not possible while {state.name}"):
            machine._move(event)
    assert vars(machine) == before


@pytest.mark.parametrize("pair", list(itertools.product(Member, Change)), ids=_ids)
def test_membership(pair: tuple[Member, Change]) -> None:
    """Who serves a shard. The other members stay as they are in any case."""
    member, change = pair
    machine = Membership(3)
    machine.members[:] = [Member.RUNNING, member, Member.READY]
    following = members.TRANSITIONS.get(pair)
    if following is not None:
        machine.change(1, change)
    else:
        with pytest.raises(LocalProtocolError, match=f"shard 1: {change.name} is not possible while {member.name}"):
            machine.change(1, change)
    assert machine.members == [Member.RUNNING, member if following is None else following, Member.READY]
    died = int(change is Change.DIE and member is not Member.VACANT)
    assert (machine.deaths, machine.deaths_without_checkpoint) == ([0, died, 0], died)


@pytest.mark.parametrize(
    "table", [participating.TRANSITIONS, coordinating.TRANSITIONS, members.TRANSITIONS], ids=["shard", "coordinator", "members"]
)
def test_every_state_is_reached_and_left(table: dict[tuple[Any, Any], Any]) -> None:
    """No state of a table is dead, none is a trap."""
    first = next(iter(table))[0]
    states = set(type(first))
    reached, open_ends = {first}, [first]
    while open_ends:
        state = open_ends.pop()
        for (start, _), end in table.items():
            if start is state and end not in reached:
                reached.add(end)
                open_ends.append(end)
    assert reached == states
    assert {start for start, _ in table} == states


# ---- a shard, from outside -----------------------------------------------------------------------------------------------
class Count(State):
    count: Value[int] = value(0)


def _app() -> App:
    app = App("count")

    @app.function("test/count")
    def count(ctx: Context[Count], number: int) -> None:
        ctx.state.count += number

    return app


def _shard_in(phase: Phase) -> ShardCore:
    """A real shard of two that has come to a phase of checkpoint ``CURRENT`` by what drivers call."""
    core = core_of(_app(), shards=2)
    put(core, "test/count", ("a", 1), ("b", 2))
    core.run(10)
    if phase is Phase.IDLE:
        return core
    core.on_control(Trigger(1, CURRENT))
    if phase is Phase.ALIGNING:
        return core
    _barrier(core, CURRENT)
    if phase is Phase.ENCODING:
        return core
    while core.checkpoint_work():
        pass
    if phase is Phase.PERSISTING:
        return core
    if phase is Phase.REFUSED:
        core.delta_failed(CURRENT, "disk full")
        return core
    core.delta_written(CURRENT, SUMMARY, 0.0)
    if phase is Phase.PREPARED:
        return core
    core.on_control(Complete(1, CURRENT, end=False))
    return core


def _barrier(core: ShardCore, checkpoint: int) -> None:
    sequence = core.link_of[1].received_sequence + 1
    core.receive(1, encode_frame(1, sequence, checkpoint, ["barrier", 0]))


CALLS: dict[str, Callable[[ShardCore], Any]] = {
    "trigger": lambda core: core.on_control(Trigger(1, CURRENT)),
    "old trigger": lambda core: core.on_control(Trigger(1, OLDER)),
    "newer trigger": lambda core: core.on_control(Trigger(1, NEWER)),
    "barrier": lambda core: _barrier(core, CURRENT),
    "newer barrier": lambda core: _barrier(core, NEWER),
    "abort": lambda core: core.on_control(Abort(1, CURRENT)),
    "old abort": lambda core: core.on_control(Abort(1, OLDER)),
    "complete": lambda core: core.on_control(Complete(1, CURRENT, end=False)),
    "newer complete": lambda core: core.on_control(Complete(1, NEWER, end=False)),
    "written": lambda core: core.delta_written(CURRENT, SUMMARY, 0.0),
    "other written": lambda core: core.delta_written(OLDER, SUMMARY, 0.0),
    "refused": lambda core: core.delta_failed(CURRENT, "disk full"),
    "applied": lambda core: core.delta_applied(CURRENT, {}),
}
RAISES = None
STAYS = "stays"
PHASES = (
    Phase.IDLE, Phase.ALIGNING, Phase.ENCODING, Phase.PERSISTING, Phase.PREPARED, Phase.REFUSED, Phase.APPLYING,
)  # fmt: skip
D, A, E, P, R, W, X = Phase.IDLE, Phase.ALIGNING, Phase.ENCODING, Phase.PREPARED, Phase.REFUSED, Phase.APPLYING, RAISES
S = STAYS
OUTCOMES: dict[str, tuple[Any, ...]] = {
    #                 IDLE ALIGN ENCODE PERSIST PREPARED REFUSED APPLYING
    "trigger":        (A,   S,    S,     S,      S,       S,      S),
    "old trigger":    (A,   S,    S,     S,      S,       S,      S),
    "newer trigger":  (A,   A,    A,     A,      A,       A,      X),
    "barrier":        (E,   E,    S,     S,      S,       S,      S),
    "newer barrier":  (E,   E,    E,     E,      E,       E,      X),
    "abort":          (S,   D,    D,     D,      D,       D,      X),
    "old abort":      (S,   S,    S,     S,      S,       S,      S),
    "complete":       (X,   X,    X,     X,      W,       X,      S),
    "newer complete": (X,   X,    X,     X,      X,       X,      X),
    "written":        (S,   S,    S,     P,      S,       S,      S),
    "other written":  (S,   S,    S,     S,      S,       S,      S),
    "refused":        (S,   S,    S,     R,      S,       S,      S),
    "applied":        (X,   X,    X,     X,      X,       X,      D),
}  # fmt: skip


def _visible(core: ShardCore) -> tuple[Any, ...]:
    participant, table = core.participant, core.table
    return (
        participant.phase,
        participant.cut,
        participant.applied,
        participant.undecided,
        [link.barrier for link in core.links],
        list(participant.effects),
        table.frozen,
        list(table.dirty),
        core.dispatcher.waiting,
    )


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.name)
@pytest.mark.parametrize("call", list(CALLS))
def test_a_shard_takes_or_refuses_what_comes_from_outside(phase: Phase, call: str) -> None:
    """Late, repeated and early messages of the coordinator, peers and storage, in every phase."""
    core = _shard_in(phase)
    before = _visible(core)
    expected = OUTCOMES[call][PHASES.index(phase)]
    if expected is RAISES:
        with pytest.raises((LocalProtocolError, AssertionError)):
            CALLS[call](core)
        assert _visible(core) == before
    else:
        CALLS[call](core)
        assert core.participant.phase is (phase if expected == STAYS else expected)


def test_an_aborted_checkpoint_is_not_cut_any_more() -> None:
    """Its trigger is ignored, its barrier makes an empty cut: peers get theirs, nothing is kept."""
    core = _shard_in(Phase.IDLE)
    core.on_control(Abort(1, CURRENT))
    core.on_control(Trigger(1, CURRENT))
    assert (core.participant.phase, core.participant.cut) == (Phase.IDLE, 0)
    _barrier(core, CURRENT)
    assert (core.participant.phase, core.participant.cut, core.undecided) == (Phase.IDLE, CURRENT, 0)
    assert core.link_of[1].barrier == CURRENT
    core.on_control(Trigger(1, NEWER))
    assert (core.participant.phase, core.undecided) == (Phase.ALIGNING, NEWER)


def test_another_incarnation_moves_nothing() -> None:
    """Neither control messages nor frames."""
    for phase in PHASES:
        core = _shard_in(phase)
        before = _visible(core)
        for message in (Trigger(2, NEWER), Abort(2, CURRENT), Complete(2, CURRENT, end=False)):
            core.on_control(message)
        core.receive(1, encode_frame(2, 1, NEWER, ["barrier", 0]))
        assert _visible(core) == before


def test_an_abort_gives_the_changes_to_the_next_checkpoint() -> None:
    """The delta of the next one has what the aborted one had."""
    core = _shard_in(Phase.PREPARED)
    core.on_control(Abort(1, CURRENT))
    core.take_effects()
    core.on_control(Trigger(1, NEWER))
    _barrier(core, NEWER)
    while core.checkpoint_work():
        pass
    (write,) = [effect for effect in core.take_effects() if isinstance(effect, WriteDelta)]
    assert [key[-1:] for block in write.blocks for key in block.keys] in ([b"a", b"b"], [b"b", b"a"])


def test_a_repeated_complete_applies_once_and_is_answered_again() -> None:
    """While it is applied nothing happens; afterwards the answer, which may have been lost, is given again."""
    core = _shard_in(Phase.APPLYING)
    core.on_control(Complete(1, CURRENT, end=False))
    assert len([effect for effect in core.take_effects() if isinstance(effect, ApplyDelta)]) == 1
    core.delta_applied(CURRENT, {})
    core.take_effects()
    core.on_control(Complete(1, CURRENT, end=False))
    (answer,) = core.take_effects()
    assert answer.message == Applied(1, CURRENT)  # type: ignore[union-attr]


# ---- the coordinator, from outside ---------------------------------------------------------------------------------------
def _prepared(checkpoint: int, incarnation: int = 1) -> Prepared:
    return Prepared(
        incarnation, checkpoint, b"d", 1, 1, at_end=False, quiet=False, ended=False, published=False, loop_s=0.0, positions={}
    )


def _coordinator_in(state: coordinating.State) -> Coordinator:
    """A coordinator of two shards that has come to a state by what supervisors call."""
    machine = Coordinator(2, Timing(interval=1.0), 0, [b"", b""], "job")
    machine.start(0.0)
    machine.incarnation_raised(1)
    for shard in (0, 1):
        machine.assigned(shard)
    if state is coordinating.State.RECOVERING:
        return machine
    for shard in (0, 1):
        machine.on_ready(shard, Ready(1, {}, []), 0.0)
    if state is coordinating.State.IDLE:
        return machine
    if state is coordinating.State.FINISHING:
        machine.stop()
    machine.trigger(1.0)
    if state is coordinating.State.ALIGNING:
        return machine
    for shard in (0, 1):
        machine.on_prepared(shard, _prepared(machine.current))
    if state is coordinating.State.DECIDING:
        return machine
    machine.manifest_durable(machine.current, 1.0)
    if state is coordinating.State.COMMITTING:
        return machine
    for shard in (0, 1):
        machine.on_applied(shard, Applied(1, machine.complete), 1.0)
    return machine


@pytest.mark.parametrize("state", [coordinating.State.ALIGNING, coordinating.State.DECIDING, coordinating.State.COMMITTING])
def test_a_checkpoint_that_was_running_when_the_node_shall_stop_is_not_the_last(state: coordinating.State) -> None:
    """It may lack what was done between its cut and the stop: another one follows at once."""
    machine = _coordinator_in(state)
    running = machine.current
    machine.stop()
    if state is coordinating.State.ALIGNING:
        for shard in (0, 1):
            machine.on_prepared(shard, _prepared(running))
    if state is not coordinating.State.COMMITTING:
        machine.manifest_durable(running, 1.0)
    for shard in (0, 1):
        machine.on_applied(shard, Applied(1, running), 1.0)
    assert machine.state is coordinating.State.IDLE
    assert machine.wake_at <= 1.0
    machine.tick(1.0)
    assert machine.current > running
    for shard in (0, 1):
        machine.on_prepared(shard, _prepared(machine.current))
    machine.manifest_durable(machine.current, 1.1)
    for shard in (0, 1):
        machine.on_applied(shard, Applied(1, machine.complete), 1.1)
    assert machine.state is coordinating.State.FINISHING


@pytest.mark.parametrize("state", list(coordinating.State), ids=lambda state: state.name)
def test_votes_that_do_not_count_change_nothing(state: coordinating.State) -> None:
    """Of another incarnation, of another checkpoint, or too late: a shard's vote has no effect."""
    machine = _coordinator_in(state)
    assert machine.state is state
    machine.take_effects()
    other = machine.current + 7
    late = state is not coordinating.State.ALIGNING
    for shard in (0, 1):
        machine.on_prepared(shard, _prepared(machine.current, incarnation=2))
        machine.on_prepared(shard, _prepared(other))
        machine.on_refused(shard, Refused(2, machine.current, "late"), 2.0)
        machine.on_refused(shard, Refused(1, other, "late"), 2.0)
        machine.on_applied(shard, Applied(2, machine.complete), 2.0)
        machine.on_applied(shard, Applied(1, other), 2.0)
        machine.on_loss(Loss(2, 0, "late"), 2.0)
        if late:
            machine.on_prepared(shard, _prepared(machine.current))
            machine.on_refused(shard, Refused(1, machine.current, "late"), 2.0)
    assert machine.state is state
    assert machine.take_effects() == []


@pytest.mark.parametrize("state", list(coordinating.State), ids=lambda state: state.name)
def test_only_an_idle_coordinator_triggers(state: coordinating.State) -> None:
    """In every other state it raises, and no message goes out."""
    machine = _coordinator_in(state)
    machine.take_effects()
    if state is coordinating.State.IDLE:
        machine.trigger(1.0)
        assert machine.state is coordinating.State.ALIGNING
        return
    before = machine.current
    with pytest.raises(LocalProtocolError):
        machine.trigger(1.0)
    assert (machine.state, machine.current, machine.take_effects()) == (state, before, [])


def test_a_death_while_the_manifest_is_written_waits_for_it() -> None:
    """Only when the manifest is durable is it known what to go back to: the checkpoint that was being decided."""
    machine = _coordinator_in(coordinating.State.DECIDING)
    deciding = machine.current
    machine.take_effects()
    machine.failure(1, "killed", 2.0)
    assert (machine.state, machine.take_effects()) == (coordinating.State.DECIDING, [])
    machine.manifest_durable(deciding, 3.0)
    assert (machine.state, machine.complete) == (coordinating.State.RECOVERING, deciding)
    assert not any(isinstance(effect, WriteManifest) for effect in machine.take_effects())


def test_it_wants_to_be_asked_only_when_something_is_due_and_then_does_it() -> None:
    machine = Coordinator(1, Timing(interval=0.1, timeout=0.3, idle_interval=0.7, repeat=0.2), 0, [b""], "job")
    now = 1000.1  # such that adding and subtracting rounds
    machine.start(now)
    assert machine.wake_at == math.inf, "the disk will call"
    machine.incarnation_raised(1)
    machine.assigned(0)
    assert machine.wake_at == math.inf, "the shard will call"
    machine.on_ready(0, Ready(1, {}, []), now)
    for state in (coordinating.State.ALIGNING, coordinating.State.IDLE, coordinating.State.ALIGNING, coordinating.State.IDLE):
        now = machine.wake_at
        machine.tick(now)
        assert machine.state is state
    now = machine.wake_at
    machine.tick(now)
    machine.on_prepared(0, _prepared(machine.current))
    assert machine.wake_at == math.inf, "the disk will call"
    machine.manifest_durable(machine.current, now)
    machine.take_effects()
    machine.tick(machine.wake_at)
    assert [type(effect.message) for effect in machine.take_effects() if isinstance(effect, Send)] == [Complete]
