"""The world's own parts: they fail when they should, or their checks would prove nothing."""

from __future__ import annotations

import random
from contextlib import nullcontext

import pytest

from shardfun.errors import EgressError
from shardfun.model.doors import PublishedPosition
from shardfun.simulation.disk import StoredManifest, SupervisorDisk
from shardfun.simulation.network import Network
from shardfun.simulation.sinks import Sink
from shardfun.simulation.violation import Violation


def test_a_pipe_loses_only_its_tail_and_remembers_that() -> None:
    """Order is kept, the front survives, and the loss belongs to the incarnation that sent the frames."""
    network = Network(2, capacity=4)
    for number in range(4):
        network.send((0, 1), 7, b"%d" % number, data=True)
    assert not network.has_room((0, 1))
    network.cut_tail((0, 1), 2)
    assert [network.take((0, 1)).raw for _ in range(2)] == [b"0", b"1"]
    assert network.was_broken((0, 1), 7)
    assert not network.was_broken((0, 1), 8)
    assert not network.was_broken((1, 0), 7)
    assert network.frames_between((0, 1), 7, 1, 3) == [b"1", b"2"]


def test_only_a_durable_manifest_certainly_survives_power_loss() -> None:
    """What was renamed and not fsynced may be gone or not; what a start has read is durable."""
    survived = set()
    for seed in range(20):
        disk = SupervisorDisk()
        disk.rename(StoredManifest(1, 0, [b""], end=False, durable=True))
        disk.rename(StoredManifest(2, 1, [b""], end=False))
        assert disk.newest_durable == 1
        disk.power_loss(random.Random(seed))
        newest = disk.newest()
        assert newest is not None
        survived.add(newest.checkpoint)
        assert disk.newest_durable == newest.checkpoint
    assert survived == {1, 2}


def test_a_sink_refuses_what_no_complete_checkpoint_has() -> None:
    """Too early, other bytes, and a gap are all found."""
    complete = [b"a", b"b"]
    sink = Sink("log", complete, counts=True)
    sink.publish([b"a"])
    with pytest.raises(Violation, match="in no complete checkpoint"):
        sink.publish([b"other"])
    complete.append(b"c")
    sink = Sink("log", complete, counts=True)
    with pytest.raises(Violation, match="count as published"):
        sink.open(PublishedPosition(1, 1), [])


def test_a_repeat_is_counted_and_compared() -> None:
    """A sink that does not know how much it holds gets records again."""
    complete = [b"a", b"b", b"c"]
    sink = Sink("log", complete, counts=False)
    sink.publish([b"a", b"b"])
    assert sink.open(PublishedPosition(1, 1), [b"b", b"c"]) == 0
    sink.publish([b"b", b"c"])
    assert sink.records == complete
    assert sink.repeated == 1


@pytest.mark.parametrize("counts", [False, True])
def test_a_sink_that_is_down_opens_unless_it_has_to_say_what_it_holds(counts: bool) -> None:  # noqa: FBT001
    sink = Sink("log", [], counts=counts)
    sink.down_until = 1.0
    with pytest.raises(EgressError) if counts else nullcontext():
        sink.open(PublishedPosition(0, 0), [], now=0.5)
    with pytest.raises(EgressError):
        sink.open(PublishedPosition(0, 0), [], now=2.0, fails=True)
    assert sink.open(PublishedPosition(0, 0), [], now=2.0) == 0


def test_a_sink_that_counts_gets_nothing_twice() -> None:
    """It says how many of the pending records are there."""
    complete = [b"a", b"b", b"c"]
    sink = Sink("log", complete, counts=True)
    sink.publish([b"a", b"b"])
    assert sink.open(PublishedPosition(1, 1), [b"b", b"c"]) == 1
    sink.publish([b"c"])
    assert sink.records == complete
    assert sink.repeated == 0
