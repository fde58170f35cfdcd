"""One iteration of the hot loop: bounded pieces, whatever the functions do, and nothing forgotten."""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shardfun import App, Context, ports
from shardfun.config.schema import Config
from shardfun.core.limits import Limits
from shardfun.core.participant import ShardIdentity
from shardfun.core.shard import IngressRoute, Program, ShardCore, StartPoint
from shardfun.core.snapshot import EMPTY_QUEUES
from shardfun.errors import BacklogLimitError
from shardfun.model.columns import Batch
from shardfun.model.control import Trigger
from shardfun.model.doors import IngressBatch
from shardfun.model.frames import Barrier, Data, decode_frame
from shardfun.model.keyspace import owner_of
from shardfun.shard.doors import Egress, Ingress
from shardfun.shard.loop import CLOCK_CHECK_S, FRAMES_PER_TURN, SLICE_S, TICK_S, HotLoop, Spent, _wait_s
from shardfun.shard.program import Application
from shardfun.state.memory import MemoryStore

OTHER = next(id for id in "abcdef" if owner_of(id, 2) == 1)
OWN = next(id for id in "abcdef" if owner_of(id, 2) == 0)


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


class FakeChannel:
    def __init__(self, send_fd: int) -> None:
        self.send_fd = send_fd
        self.room = 100
        self.sent: list[bytes] = []
        self.arrived: deque[bytes] = deque()
        self.waiting: bytes | None = None

    def send(self, raw: bytes) -> bool:
        if not self.room:
            return False
        self.room -= 1
        self.sent.append(raw)
        return True

    def flush(self) -> bool:
        if self.waiting is not None and self.send(self.waiting):
            self.waiting = None
        return self.waiting is None


class FakeFabric:
    def __init__(self, *channels: FakeChannel) -> None:
        self.channels = dict(enumerate(channels, 1))

    def receive(self, peer: int) -> bytes | None:
        arrived = self.channels[peer].arrived
        return arrived.popleft() if arrived else None


class Endless:
    """An ingress that always has something."""

    wake_at = None
    finished = False

    def open(self, position: Any) -> None: ...

    def close(self) -> None: ...

    def read(self, limit: int, now: float) -> IngressBatch:
        return IngressBatch(1, ids=[OWN] * limit, values=[0] * limit)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def epoll() -> Iterator[select.epoll]:
    with select.epoll() as found:
        yield found


class World:
    def __init__(
        self,
        clock: Clock,
        epoll: select.epoll,
        cost: Callable[[], None],
        limits: Limits,
        *,
        shards: int,
        readers: Any = None,
    ) -> None:
        app = App("loop")

        @app.function("t/f")
        def f(ctx: Context, left: int) -> None:
            cost()
            if left:
                ctx.send("t/f", OTHER, left - 1)

        made = Application(Config(app="some:app", name="test", data_dir=Path("/nowhere")), app).program({})
        routes = {"in": IngressRoute(target="t/f", id_field="id")}
        program = Program(made.functions, made.runners, routes, {}, made.context)
        start = StartPoint(1, 0, b"", EMPTY_QUEUES)
        self.core = ShardCore(
            ShardIdentity("j", 0, shards), start, program, limits, MemoryStore(job="ab" * 16, shard=0, shards=1)
        )
        self.target = self.core.dispatcher.types["t/f"]
        self.reads, self.writes = select.epoll(), select.epoll()  # any descriptors that epoll takes
        self.channels = [FakeChannel(self.reads.fileno())] if shards == 2 else []
        self.performed = 0
        self.spent = Spent()
        self.loop = HotLoop(
            self.core,
            FakeFabric(*self.channels),  # type: ignore[arg-type]
            Ingress(self.core, readers or {}, 100, 1000, 500),
            Egress({}, {}, pytest.fail),
            self._perform,
            epoll,
            self.spent,
            ports.Clock(work=clock),
        )

    def _perform(self) -> None:
        self.performed += 1

    def put(self, count: int, left: int = 0) -> None:
        self.target.mailbox.append(Batch([OWN] * count, None, None, [left] * count))


def test_chunks_of_a_slow_function_shrink_until_they_are_short(clock: Clock, epoll: select.epoll) -> None:
    def slow() -> None:
        clock.now += 0.0002

    world = World(clock, epoll, slow, Limits(), shards=1)
    world.put(10_000)
    lengths = []
    for _ in range(12):
        started = clock.now
        assert world.loop.iterate()
        lengths.append(clock.now - started)
    assert 1 <= world.target.chunk <= 5
    assert max(lengths[2:]) <= SLICE_S + 5 * 0.0002


def test_a_function_slower_than_a_slice_runs_one_message_at_a_time(clock: Clock, epoll: select.epoll) -> None:
    def very_slow() -> None:
        clock.now += 0.5

    world = World(clock, epoll, very_slow, Limits(), shards=1)
    world.put(200)
    world.loop.iterate()
    before = world.core.dispatcher.invocations
    world.loop.iterate()
    assert world.target.chunk == 1
    assert world.core.dispatcher.invocations == before + 1
    assert world.spent.running_s == pytest.approx(0.5 * world.core.dispatcher.invocations)


def test_chunks_of_a_fast_function_grow_to_the_limit(clock: Clock, epoll: select.epoll) -> None:
    world = World(clock, epoll, lambda: None, Limits(frame_messages=300), shards=1)
    world.put(5000)
    assert world.loop.iterate()
    assert world.target.chunk == 300
    assert world.core.dispatcher.waiting == 0
    assert world.loop.resumed_at > 0
    assert world.loop.iterate() is False
    assert world.performed == 2


def test_an_endless_ingress_does_not_hold_the_loop(clock: Clock, epoll: select.epoll) -> None:
    def cost() -> None:
        clock.now += 0.00001

    world = World(clock, epoll, cost, Limits(), shards=1, readers={"in": Endless()})
    started = clock.now
    assert world.loop.iterate()
    assert clock.now - started < 2 * SLICE_S
    assert world.core.records_in > 0


def test_frames_are_full_or_flushed_before_the_loop_rests(clock: Clock, epoll: select.epoll) -> None:
    world = World(clock, epoll, lambda: None, Limits(frame_messages=4), shards=2)
    (channel,) = world.channels
    world.put(6, left=1)
    assert world.loop.iterate()
    assert [decode_frame(raw).body.messages for raw in channel.sent] == [4]
    assert world.loop.iterate(), "what had to wait for room in the outboxes may go on"
    assert world.loop.iterate() is False
    assert [decode_frame(raw).body.messages for raw in channel.sent] == [4, 2]


def test_a_frame_without_room_waits_is_watched_and_goes_first(clock: Clock, epoll: select.epoll) -> None:
    world = World(clock, epoll, lambda: None, Limits(frame_messages=2), shards=2)
    (channel,) = world.channels
    channel.room = 1
    world.put(6, left=1)
    world.loop.iterate()
    assert len(channel.sent) == 1
    assert channel.waiting is not None
    with pytest.raises(FileExistsError):
        epoll.register(channel.send_fd)
    waiting = channel.waiting
    world.core.on_control(Trigger(1, 1 << 32 | 1))
    world.loop.iterate()
    assert channel.waiting is waiting
    channel.room = 10
    world.loop.iterate()
    assert channel.waiting is None
    bodies = [decode_frame(raw).body for raw in channel.sent]
    assert channel.sent[1] is waiting
    assert [type(body) for body in bodies] == [Data, Data, Barrier, Data]
    with pytest.raises(FileNotFoundError):
        epoll.unregister(channel.send_fd)


def test_receiving_is_bounded_and_does_not_need_execution(clock: Clock, epoll: select.epoll) -> None:
    world = World(clock, epoll, lambda: None, Limits(window_frames=30, dirty_hard_bytes=0), shards=2)
    (channel,) = world.channels
    peer = World(clock, epoll, lambda: None, Limits(frame_messages=1, window_frames=30), shards=2)
    peer.target.queues[1].append(Batch([OWN] * 20, None, None, [0] * 20))
    while (raw := peer.core.next_frame(1, flush=True)) is not None:
        channel.arrived.append(raw)
    assert len(channel.arrived) == 20
    assert not world.core.may_execute
    assert world.loop.iterate()
    assert len(channel.arrived) == 20 - FRAMES_PER_TURN
    assert world.core.backlog == FRAMES_PER_TURN
    assert world.core.dispatcher.invocations == 0


def test_the_backlog_limit_stops_the_node(clock: Clock, epoll: select.epoll) -> None:
    world = World(clock, epoll, lambda: None, Limits(backlog_limit=10, dirty_hard_bytes=0), shards=1, readers={"in": Endless()})
    world.put(11)
    with pytest.raises(BacklogLimitError):
        world.loop.iterate()


class Paced(Endless):
    """Has something now and then; is asked again when it has said."""

    wake_at = 1.0
    reads = 0

    def read(self, limit: int, now: float) -> None:
        self.reads += 1


def test_input_for_which_there_is_no_room_does_not_wake_the_loop(clock: Clock, epoll: select.epoll) -> None:
    """It would be woken at once, read nothing, and be woken again, for as long as a peer is slow."""
    reader = Paced()
    limits = Limits(frame_messages=1, window_frames=1, dirty_hard_bytes=0)
    world = World(clock, epoll, lambda: None, limits, shards=2, readers={"in": reader})
    while world.loop.iterate():
        pass
    assert world.loop.rest() == reader.wake_at
    world.put(20, left=1)  # each sends a message to the peer, which gives no credit
    while world.loop.iterate():
        pass
    reads = reader.reads
    assert world.loop.rest() is None
    world.loop.iterate()
    assert reader.reads == reads


@pytest.mark.parametrize(
    ("due_s", "now_s", "wait_s"),
    [(100.0, 100.0, 0.0), (99.0, 100.0, 0.0), (100.001, 100.0, TICK_S), (9999.0, 100.0, CLOCK_CHECK_S)],
)
def test_the_loop_sleeps_until_the_tick_after_what_is_due_and_looks_at_the_wall_clock_now_and_then(
    due_s: float, now_s: float, wait_s: float
) -> None:
    assert _wait_s(due_s, now_s) == pytest.approx(wait_s)
