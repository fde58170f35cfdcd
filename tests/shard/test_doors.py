"""Reading is throttled by the backlog alone, publishing never gives up and never runs ahead of a checkpoint."""

from __future__ import annotations

import errno
import os
import select
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from shardfun import App, Context
from shardfun.config.schema import Config
from shardfun.core.limits import Limits
from shardfun.core.participant import ShardIdentity
from shardfun.core.shard import IngressRoute, Program, ShardCore, StartPoint
from shardfun.core.snapshot import EMPTY_QUEUES
from shardfun.errors import EgressError
from shardfun.model.doors import IngressBatch, PublishedPosition
from shardfun.ports import REAL_CLOCK, Clock
from shardfun.shard import doors
from shardfun.shard.doors import PUBLISH_RETRY_S, Egress, Ingress
from shardfun.shard.program import Application
from shardfun.shard.worker import Failed, TryAgain
from shardfun.state.memory import MemoryStore


def core_of(limits: Limits | None = None, egress: dict[str, Any] | None = None) -> ShardCore:
    app = App("doors")

    @app.function("t/f")
    def f(ctx: Context, message: int) -> None:
        ctx.emit("out", message)

    made = Application(Config(app="some:app", name="test", data_dir=Path("/nowhere")), app).program({})
    route = {"in": IngressRoute(target="t/f", id_field="id")}
    program = Program(made.functions, made.runners, route, egress or {"out": lambda value: b"%d" % value}, made.context)
    start = StartPoint(1, 0, b"", EMPTY_QUEUES)
    return ShardCore(
        ShardIdentity("j", 0, 1), start, program, limits or Limits(), MemoryStore(job="ab" * 16, shard=0, shards=1)
    )


# ---- ingress -------------------------------------------------------------------------------------------------------------
class Reader:
    def __init__(self, batches: Sequence[int | None], wake_at: float | None = None) -> None:
        self.batches = deque(batches)
        self.opened: list[Any] = []
        self.asked: list[int] = []
        self.position = 0
        self._wake_at = wake_at

    def open(self, position: Any) -> None:
        self.opened.append(position)

    def read(self, limit: int, now: float) -> IngressBatch | None:
        self.asked.append(limit)
        count = self.batches.popleft()
        if count is None:
            return None
        self.position += count
        return IngressBatch(self.position, ids=["a"] * count, values=[0] * count)

    @property
    def wake_at(self) -> float | None:
        return None if self.finished else self._wake_at

    @property
    def finished(self) -> bool:
        return not self.batches

    def close(self) -> None: ...


def process(core: ShardCore, count: int) -> None:
    core.dispatcher.types["t/f"].mailbox.take(count)


def test_reading_stops_at_the_high_mark_and_goes_on_at_the_low_one() -> None:
    core = core_of()
    reader = Reader([6] * 9)
    ingress = Ingress(core, {"in": reader}, 6, 10, 4)
    assert [ingress.read(0.0) for _ in range(3)] == [True, True, False]
    assert core.backlog == 12
    process(core, 2)
    assert (core.backlog, ingress.read(0.0)) == (10, False), "below the high mark, but above the low one"
    for _ in range(3):
        process(core, 2)
    assert (core.backlog, ingress.read(0.0)) == (4, True)
    assert (core.backlog, ingress.read(0.0)) == (10, True), "at the high mark it goes on"
    assert ingress.read(0.0) is False
    assert reader.asked == [6] * 4


def test_reading_stops_while_an_egress_is_full() -> None:
    core = core_of(Limits(egress_pending_bytes=3))
    ingress = Ingress(core, {"in": Reader([1] * 9)}, 1, 100, 50)
    core.egress["out"].add([(None, "", None, b"1234")])
    assert ingress.read(0.0) is False
    core.egress["out"].commit(1)
    core.published("out", 1)
    assert ingress.read(0.0) is True


class Ringing(Reader):
    """A reader that wakes the loop through a descriptor, which stays readable until it reads."""

    def __init__(self, wake_fd: int) -> None:
        super().__init__([None] * 99)
        self.wake_fd = wake_fd


def test_readers_wake_the_loop_while_they_may_be_read_and_not_otherwise() -> None:
    """What rings and is not read would wake it for ever."""
    core = core_of(Limits(egress_pending_bytes=3))
    core.program.routes["more"] = core.program.routes["in"]
    core.finished["more"] = False
    epoll, ring = select.epoll(), os.eventfd(1)
    ingress = Ingress(core, {"in": Ringing(ring), "more": Ringing(ring)}, 1, 100, 50)
    heard = [bool(epoll.poll(0))]
    ingress.hear(epoll)
    heard.append(bool(epoll.poll(0)))
    core.egress["out"].add([(None, "", None, b"1234")])
    ingress.read(0.0)
    heard.append(bool(epoll.poll(0)))
    core.egress["out"].commit(1)
    core.published("out", 1)
    ingress.read(0.0)
    heard.append(bool(epoll.poll(0)))
    ingress.hear(None)
    heard.append(bool(epoll.poll(0)))
    ingress.hear(epoll)
    os.close(ring)
    ingress.hear(None)
    epoll.close()
    assert heard == [False, True, False, True, False]


def test_when_to_ask_again() -> None:
    core = core_of()
    readers = {
        "in": Reader([None, None, 60, None], 7.5),
        "more": Reader([None, None, None], 5.0),
        "some": Reader([None, None, None]),
    }
    core.program.routes.update(dict.fromkeys(readers, core.program.routes["in"]))
    core.finished.update(dict.fromkeys(readers, False))
    ingress = Ingress(core, readers, 60, 50, 4)
    assert ingress.wake_at is None
    assert ingress.read(0.0) is False
    assert ingress.wake_at == 5.0
    ingress.read(0.0)
    assert ingress.read(0.0) is True
    assert ingress.read(0.0) is False
    assert ingress.wake_at is None, "not wanted now"


def test_the_end_of_a_bounded_source_is_told_once_also_if_it_is_empty() -> None:
    core = core_of()
    core.changed = False
    Ingress(core, {"in": Reader([])}, 5, 10, 4)
    assert core.finished == {"in": True}
    assert core.changed
    other = core_of()
    reader = Reader([3])
    ingress = Ingress(other, {"in": reader}, 5, 10, 4)
    assert other.finished == {"in": False}
    assert ingress.read(0.0) is True
    assert (other.finished, other.positions) == ({"in": True}, {"in": 3})
    assert ingress.read(0.0) is False
    assert len(reader.asked) == 1


def test_readers_open_at_the_position_of_the_checkpoint() -> None:
    core = core_of()
    core.positions["in"] = {"offset": 9}
    reader = Reader([1])
    Ingress(core, {"in": reader}, 5, 10, 4)
    assert reader.opened == [{"offset": 9}]


# ---- egress --------------------------------------------------------------------------------------------------------------
class Sink:
    def __init__(self) -> None:
        self.log: list[Any] = []
        self.there = 0
        self.error: Exception | None = None

    def encode(self, value: Any) -> bytes:
        raise NotImplementedError

    def open(self, published: PublishedPosition, pending: Sequence[bytes]) -> int:
        self.log.append(("open", published, list(pending)))
        if self.error is not None:
            raise self.error
        return self.there

    def publish(self, records: Sequence[bytes]) -> None:
        if self.error is not None:
            raise self.error
        self.log.append(("publish", list(records)))

    def close(self) -> None:
        self.log.append("close")


class ByHand:
    """A worker whose jobs run when the test says so."""

    def __init__(self) -> None:
        self.jobs: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()

    def submit(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self.jobs.append((job, done))

    def step(self) -> None:
        job, done = self.jobs.popleft()
        try:
            result = job()
        except TryAgain:
            self.jobs.appendleft((job, done))
            return
        except Exception as error:
            result = Failed(error)
        done(result)


class Publishing:
    def __init__(self, clock: Clock = REAL_CLOCK) -> None:
        self.sink, self.worker = Sink(), ByHand()
        self.fatal: list[Exception] = []
        self.ready = 0
        self.egress = Egress({"out": self.sink}, {"out": self.worker}, self.fatal.append, clock)  # type: ignore[dict-item]
        self.core = core_of()

    def attach(self, *records: bytes, published: int = 0) -> None:
        self.core = core_of()
        self.core.egress["out"].__init__(PublishedPosition(published, published), list(records))  # type: ignore[misc]
        self.egress.attach(self.core, self._ready)

    def _ready(self) -> None:
        self.ready += 1


def test_a_sink_is_opened_at_what_the_checkpoint_knows_and_says_what_it_has() -> None:
    out = Publishing()
    out.sink.there = 1
    out.attach(b"a", b"b", published=5)
    assert out.egress.publish(0.0) is False, "not before it is open"
    assert not out.egress.drained
    out.worker.step()
    assert out.sink.log == ["close", ("open", PublishedPosition(5, 5), [b"a", b"b"])]
    assert out.ready == 1
    assert out.core.egress["out"].published == PublishedPosition(6, 6)
    assert out.egress.publish(0.0) is True
    assert out.egress.publish(0.0) is False, "one job at a time"
    assert not out.egress.drained
    out.worker.step()
    assert out.sink.log[-1] == ("publish", [b"b"])
    assert out.egress.drained


def test_records_of_an_incomplete_checkpoint_stay() -> None:
    out = Publishing()
    out.attach()
    out.worker.step()
    out.core.egress["out"].add([(None, "", None, b"x")])
    assert out.egress.publish(0.0) is False
    assert out.egress.drained
    out.core.egress["out"].commit(1)
    assert not out.egress.drained
    assert out.egress.publish(0.0) is True


def test_a_large_backlog_goes_out_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "PUBLISH_RECORDS", 2)
    out = Publishing()
    out.attach(b"a", b"b", b"c")
    out.worker.step()
    while out.egress.publish(0.0):
        out.worker.step()
    assert out.sink.log[2:] == [("publish", [b"a", b"b"]), ("publish", [b"c"])]


def test_a_sink_that_fails_is_asked_again_later_with_the_same_records() -> None:
    out = Publishing(Clock(monotonic=lambda: 100.0))
    out.attach(b"a")
    out.worker.step()
    out.sink.error = OSError("full")
    assert out.egress.publish(100.0)
    out.worker.step()
    assert out.egress.wake_at == 100.0 + PUBLISH_RETRY_S
    assert out.egress.publish(100.0 + PUBLISH_RETRY_S / 2) is False
    assert not out.egress.drained
    out.sink.error = None
    assert out.egress.publish(100.0 + PUBLISH_RETRY_S)
    assert out.egress.wake_at is None
    out.worker.step()
    assert out.sink.log[-1] == ("publish", [b"a"])
    assert out.fatal == []


@pytest.mark.parametrize("error", [EgressError("less than published"), OSError("gone")])
def test_a_sink_that_cannot_be_opened_is_fatal(error: Exception) -> None:
    out = Publishing()
    out.sink.error = error
    out.attach(b"a")
    out.worker.step()
    assert out.ready == 0
    (told,) = out.fatal
    assert isinstance(told, EgressError)
    assert str(error) in str(told)


def test_a_sink_that_cannot_be_opened_on_a_full_disk_is_opened_when_there_is_space() -> None:
    out = Publishing()
    out.sink.error = EgressError("no space left on device", errno=errno.ENOSPC)
    out.attach(b"a")
    for _ in range(3):
        out.worker.step()
        assert out.egress.waits_for_space
        assert (out.fatal, out.ready) == ([], 0)
    out.sink.error = None
    out.worker.step()
    assert out.ready == 1
    assert not out.egress.waits_for_space
    assert out.egress.publish(0.0)


def test_a_full_disk_is_not_waited_for_in_an_incarnation_that_is_over() -> None:
    out = Publishing()
    out.sink.error = EgressError("no space left on device", errno=errno.ENOSPC)
    out.attach(b"a")
    out.worker.step()
    out.attach(b"b")
    out.worker.step()
    assert len(out.worker.jobs) == 1, "what the older one wanted is given up, and is no reason to stop"
    assert out.fatal == []
    out.sink.error = None
    out.worker.step()
    assert out.sink.log[-1] == ("open", PublishedPosition(0, 0), [b"b"])
    assert out.ready == 1
    assert not out.egress.waits_for_space


def test_what_an_older_incarnation_still_publishes_does_not_count_in_the_new_one() -> None:
    out = Publishing()
    out.attach(b"a")
    out.worker.step()
    assert out.egress.publish(0.0)
    old = out.core
    out.attach(b"a")  # the old job is still under way: the sink is reopened behind it
    assert len(out.worker.jobs) == 2
    out.worker.step()
    assert old.egress["out"].published.records == out.core.egress["out"].published.records == 0
    out.sink.there = 1
    out.worker.step()
    assert out.core.egress["out"].published.records == 1
    assert out.ready == 2
    assert out.egress.drained


def test_a_reopening_that_was_overtaken_is_ignored() -> None:
    out = Publishing()
    out.attach(b"a")
    out.attach(b"a")
    out.worker.step()
    assert out.ready == 0
    out.worker.step()
    assert out.ready == 1


def test_without_an_egress_a_core_is_ready_at_once() -> None:
    ready: list[int] = []
    egress = Egress({}, {}, pytest.fail)
    assert not egress.drained
    egress.attach(core_of(), lambda: ready.append(1))
    assert ready == [1]
    assert egress.drained
    assert egress.wake_at is None


def test_closing_closes_the_sinks() -> None:
    out = Publishing()
    out.egress.close()
    assert out.sink.log == ["close"]
