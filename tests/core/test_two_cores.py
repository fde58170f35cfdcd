"""Two shards go through checkpoints, aborts and recoveries, and the result is as if nothing had happened."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from two_cores import LIMITS, TwoCores

from shardfun.core.participant import Phase
from shardfun.core.snapshot import decode_queues
from shardfun.errors import ChannelLossError, LocalProtocolError, ProtocolError
from shardfun.model.control import Abort, Applied, Complete, Prepared, Refused, Trigger
from shardfun.model.delta import checkpoint_id
from shardfun.model.frames import Barrier, decode_frame, encode_frame
from shardfun.model.keyspace import owner_of

START = [(f"id{number}", 25) for number in range(12)]


def started() -> TwoCores:
    world = TwoCores()
    for shard, core in enumerate(world.cores):
        own = [("ball/hop", id, left) for id, left in START if owner_of(id, 2) == shard]
        core.dispatcher.ingest_messages(own)
        core.dispatcher.route()
    return world


def outcome() -> tuple[dict[str, dict[str, int]], Counter[bytes]]:
    """Of the plain program."""
    counts: dict[str, dict[str, int]] = {}
    records: Counter[bytes] = Counter()
    for id, left in START:
        for now in range(left, -1, -1):
            state = counts.setdefault(id, {"runs": 0, "total": 0, "ended": 0})
            state["runs"] += 1
            state["total"] += now
            records[repr((id, now)).encode()] += 1
            id = f"id{(int(id[2:]) * 7 + now) % 12}"
    return counts, records


EXPECTED = outcome()


def check(world: TwoCores) -> None:
    world.settle()
    prepared = world.checkpoint()
    assert all(part.quiet for part in prepared)
    world.settle()
    assert world.counts() == EXPECTED[0]
    assert Counter(world.sinks[0] + world.sinks[1]) == EXPECTED[1]


def test_undisturbed() -> None:
    check(started())


@pytest.mark.parametrize("seed", range(25))
def test_any_interleaving_with_aborts_and_recoveries(seed: int) -> None:
    chance = random.Random(seed)
    world = started()
    world.checkpoint()  # the beginning has to be in one
    checkpoint = 0
    for _ in range(900):
        world.random_step(chance)
        if checkpoint == 0:
            if chance.random() < 0.05:
                checkpoint = world.trigger(*chance.choice(((0,), (1,), (0, 1), (1, 0))))
        elif len(world.prepared(checkpoint)) == 2:
            world.decide(checkpoint)
            checkpoint = 0
        elif chance.random() < 0.01:
            world.abort(checkpoint)
            checkpoint = 0
        if chance.random() < 0.005:
            world.restart(survivors=chance.random() < 0.5)
            checkpoint = 0
    if checkpoint:
        world.abort(checkpoint)
    check(world)


def test_a_frame_is_in_exactly_one_part_of_the_checkpoint() -> None:
    """Sent before the sender's cut: received after the own cut it is in the log, received before it is in the inbox."""
    world = started()
    world.cores[1].run(100)
    while not world.wires[1]:
        world.cores[1].run(100)
        world.send(1)
    world.send(1)
    assert len(world.wires[1]) == 2
    world.receive(0)
    checkpoint = world.trigger(0)
    world.receive(0)  # after the cut of 0, before the barrier of 1
    world.send(0)
    world.receive(1)
    assert world.cores[1].participant.cut == checkpoint
    world.send(1)
    assert type(decode_frame(world.wires[1][-1]).body) is Barrier, "before anything else"
    while world.receive(0):
        pass
    world.settle()
    queues = decode_queues(world.deltas[checkpoint, 0].queues)
    assert len(queues.inbox) == 1
    assert [len(raws) for raws in queues.logs.values()] == [1]
    assert queues.inbox[0] != queues.logs[1][0]
    assert decode_frame(queues.inbox[0]).cut == decode_frame(queues.logs[1][0]).cut == 0
    world.decide(checkpoint)
    world.restart()
    check(world)


def test_the_state_of_the_cut_is_stored_even_if_much_happens_before_it_is_encoded() -> None:
    world = started()
    world.cores[0].run(1000)
    before = {record._address.id: record.runs for record in world.cores[0].table.dirty}
    checkpoint = world.trigger(0)
    for _ in range(20):
        world.cores[0].run(1000)
        world.send(1)
        world.cores[1].run(1000)
        world.receive(0)
        world.cores[0].fill_mailboxes()
    assert {id: world.cores[0].table.generations["ball/hop"].young[id].runs for id in before} != before
    world.settle()
    world.decide(checkpoint)
    assert {id: state["runs"] for id, state in world.counts().items() if id in before} == before


def test_nothing_goes_out_before_its_checkpoint_is_complete() -> None:
    world = started()
    world.settle()
    assert world.sinks == [[], []]
    checkpoint = world.trigger(0, 1)
    world.settle()
    assert world.sinks == [[], []]
    world.decide(checkpoint)
    world.settle()
    assert Counter(world.sinks[0] + world.sinks[1]) == EXPECTED[1]


def test_the_end_of_a_bounded_run() -> None:
    world = started()
    world.settle()
    world.checkpoint(end=True)
    assert all(core.ended for core in world.cores)
    world.settle()
    first, second = world.checkpoint(), world.checkpoint()
    assert all(part.ended and part.quiet for part in first + second)
    assert {id: state["ended"] for id, state in world.counts().items()} == dict.fromkeys(EXPECTED[0], 1)
    world.restart()
    assert all(core.ended for core in world.cores)
    world.settle()
    world.checkpoint(end=True)
    assert all(state["ended"] == 1 for state in world.counts().values())


# ---- single answers of a shard -------------------------------------------------------------------------------------------
def settled() -> TwoCores:
    world = started()
    world.settle()
    world.checkpoint()
    return world


def test_late_and_repeated_requests_are_harmless() -> None:
    world = settled()
    core = world.cores[0]
    core.on_control(Trigger(world.incarnation, world.complete))
    assert core.undecided == 0
    world.sent[0].clear()
    core.on_control(Complete(world.incarnation, world.complete, False))
    core.on_control(Complete(world.incarnation + 1, world.complete + 5, False))
    world.perform(0)
    assert world.sent[0] == [Applied(world.incarnation, world.complete)]


def test_complete_for_what_was_never_prepared_is_a_bug() -> None:
    world = settled()
    checkpoint = world.trigger(0)
    with pytest.raises(LocalProtocolError, match="COMPLETED is not possible while ALIGNING"):
        world.cores[0].on_control(Complete(world.incarnation, checkpoint, False))
    with pytest.raises(LocalProtocolError, match="this shard has"):
        world.cores[1].on_control(Complete(world.incarnation, checkpoint, False))


def test_a_checkpoint_that_was_aborted_before_it_was_cut() -> None:
    """ABORT may overtake TRIGGER and the barriers: an empty cut, since the peer still waits for the barrier."""
    world = settled()
    checkpoint = checkpoint_id(world.incarnation, world.sequence + 1)
    core = world.cores[0]
    core.on_control(Abort(world.incarnation, checkpoint))
    core.on_control(Trigger(world.incarnation, checkpoint))
    assert core.participant.cut < checkpoint
    world.trigger(1)
    world.send(1)
    world.receive(0)
    assert (core.undecided, core.participant.phase, core.participant.cut) == (0, Phase.IDLE, checkpoint)
    raw = core.next_frame(1, flush=False)
    assert decode_frame(raw).body == Barrier(checkpoint, core.links[0].data_sent)


def test_a_newer_checkpoint_shows_that_the_older_is_given_up() -> None:
    world = settled()
    first = world.trigger(0)
    second = world.trigger(0)
    assert world.cores[0].undecided == second
    world.send(0)
    assert decode_frame(world.wires[0][-1]).cut == second, "one barrier, the newer one"
    world.settle()
    assert [m.checkpoint for m in world.sent[0] if isinstance(m, Prepared)][-1] == second
    assert (first, 0) not in world.deltas
    world.decide(second)


def test_a_disk_that_refuses_loses_nothing() -> None:
    world = started()
    world.checkpoint()
    world.settle()
    checkpoint = world.trigger(0, 1)
    core = world.cores[0]
    while core.participant.phase is not Phase.PERSISTING:
        for shard in (0, 1):
            world.send(shard)
            world.receive(shard)
        core.checkpoint_work()
    core.take_effects()
    core.delta_failed(checkpoint, "disk full")
    world.perform(0)
    assert world.sent[0][-1] == Refused(world.incarnation, checkpoint, "disk full")
    world.abort(checkpoint)
    core.delta_written(checkpoint, None, 0.0)  # type: ignore[arg-type]  # too late: ignored
    check(world)


def test_frames_of_another_incarnation_have_no_effect() -> None:
    world = settled()
    core = world.cores[0]
    before = core.links[0].received_sequence
    core.receive(1, encode_frame(world.incarnation + 1, 99, 0, []))
    core.receive(1, encode_frame(world.incarnation - 1, 1, 0, []))
    assert core.links[0].received_sequence == before
    with pytest.raises(ChannelLossError):
        core.receive(1, encode_frame(world.incarnation, 99, 0, []))
    with pytest.raises(ProtocolError):
        core.receive(1, b"\xff")


def test_the_hello_names_shard_and_nonce() -> None:
    frame = decode_frame(started().cores[1].hello("abc"))
    assert (frame.sequence, frame.body) == (0, (1, "abc"))


def test_too_many_changes_stop_execution_until_a_checkpoint_is_applied() -> None:
    world = started()
    core = world.cores[0]
    core.limits = type(LIMITS)(dirty_hard_bytes=1)
    assert core.may_execute
    core.run(1)
    assert not core.may_execute
    checkpoint = world.trigger(0)
    assert not core.may_execute
    results: list[Any] = []
    while len(world.prepared(checkpoint)) < 2:
        for shard in (0, 1):
            results.append(world.send(shard))
            world.receive(shard)
            world.cores[shard].checkpoint_work()
            world.perform(shard)
    world.decide(checkpoint)
    assert core.may_execute
