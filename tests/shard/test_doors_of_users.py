"""Sinks that take a part, ask for a pause, or wait for others; what the doors say of them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from test_doors import core_of

from shardfun.errors import EgressError, IngressError
from shardfun.ingress.file import FileIngress, FileIngressOptions
from shardfun.model.doors import PublishedPosition
from shardfun.ports import Partition
from shardfun.shard.doors import PUBLISH_RETRY_S, Egress, Ingress
from shardfun.shard.worker import Failed


class Worker:
    """Runs a job when the test says so."""

    def __init__(self) -> None:
        self.jobs: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()

    def submit(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self.jobs.append((job, done))

    def work(self) -> None:
        while self.jobs:
            job, done = self.jobs.popleft()
            try:
                result = job()
            except EgressError as error:
                result = Failed(error)
            done(result)


class Sink:
    def __init__(self, results: Sequence[int | EgressError]) -> None:
        self.results = deque(results)
        self.given: list[list[bytes]] = []
        self.interrupted = 0

    def encode(self, value: Any) -> bytes:
        return b"%d" % value

    def open(self, published: PublishedPosition, pending: Sequence[bytes]) -> int:
        return 0

    def publish(self, records: Sequence[bytes]) -> int:
        self.given.append(list(records))
        result = self.results.popleft()
        if isinstance(result, EgressError):
            raise result
        return result

    def interrupt(self) -> None:
        self.interrupted += 1

    def close(self) -> None: ...


def test_a_position_of_another_kind_of_source_is_told(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("{}\n")
    partition = Partition(0, 1, lambda _: True)
    reader = FileIngress("in", FileIngressOptions(path=tmp_path / "in.jsonl"), partition)
    core = core_of()
    for position in (5, {"index": 3, "options": {}}, [1]):
        core.positions["in"] = position
        with pytest.raises(IngressError, match=r"ingress 'in': its position in the checkpoint, .* is none of this kind"):
            Ingress(core, {"in": reader}, 10, 100, 50)


def attached(sink: Sink) -> tuple[Egress, Worker]:
    core, worker = core_of(), Worker()
    core.egress["out"].add([(None, "", None, b"%d" % n) for n in range(5)])
    core.egress["out"].commit(5)
    egress = Egress({"out": sink}, {"out": worker}, lambda error: None)  # type: ignore[dict-item]
    egress.attach(core, lambda: None)
    worker.work()
    return egress, worker


def test_what_a_sink_did_not_take_is_given_again() -> None:
    sink = Sink([2, 3])
    egress, worker = attached(sink)
    for _ in range(3):
        egress.publish(time.monotonic())
        worker.work()
    assert sink.given == [[b"0", b"1", b"2", b"3", b"4"], [b"2", b"3", b"4"]]
    assert egress.drained


def test_a_sink_says_when_it_wants_to_be_asked_again_and_why() -> None:
    sink = Sink([EgressError("later", retry_s=7.0), EgressError("no"), 5])
    egress, worker = attached(sink)
    assert egress.troubles == []
    now = time.monotonic()
    egress.publish(now)
    worker.work()
    assert egress.troubles == ["later"]
    assert egress.wake_at is not None
    assert 7.0 <= egress.wake_at - now < 7.5
    egress.publish(now + 6.9)
    assert len(sink.given) == 1
    egress.publish(now + 7.9)
    worker.work()
    assert egress.troubles == ["no"]
    assert egress.wake_at is not None
    assert egress.wake_at <= time.monotonic() + PUBLISH_RETRY_S
    egress.publish(time.monotonic() + 2 * PUBLISH_RETRY_S)
    worker.work()
    assert egress.troubles == []
    assert egress.drained


def test_a_new_incarnation_interrupts_what_waits_for_others() -> None:
    sink = Sink([5])
    egress, worker = attached(sink)
    egress.attach(core_of(), lambda: None)
    worker.work()
    assert sink.interrupted == 0, "nothing was under way"
    egress, worker = attached(sink)
    egress.publish(time.monotonic())
    egress.attach(core_of(), lambda: None)
    assert sink.interrupted == 1
