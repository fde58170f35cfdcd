"""What every ``EgressSink`` promises; and what those add that publish exactly once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from egress_receiver import Receiver
from hypothesis import given, settings
from hypothesis import strategies as st

from shardfun.egress.file import FileEgress, FileEgressOptions
from shardfun.egress.stdout import StdoutEgress, StdoutEgressOptions
from shardfun.egress.stream import StreamEgress, StreamEgressOptions
from shardfun.egress.webhook import WebhookEgress, WebhookEgressOptions
from shardfun.ports import EgressSink, Partition, PublishedPosition

NOTHING = PublishedPosition(0, 0)


def partition() -> Partition:
    return Partition(0, 1, lambda _: True)


def file_sink(path: Path) -> EgressSink:
    return FileEgress("results", FileEgressOptions(path=path), partition())


def stdout_sink(path: Path) -> EgressSink:
    sink = StdoutEgress("results", StdoutEgressOptions(), partition())
    sink._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    return sink


def stream_sink(path: Path) -> EgressSink:
    path.mkdir(exist_ok=True)
    options = StreamEgressOptions(segment_bytes=4096)
    return StreamEgress("results", options, Partition(0, 1, lambda _: True, "a1b2c3d4", path))


RECEIVERS: list[Receiver] = []


def webhook_sink(path: Path) -> EgressSink:
    path.mkdir(exist_ok=True)
    RECEIVERS.append(Receiver().start())
    options = WebhookEgressOptions(url=RECEIVERS[-1].url, fsync=False)
    return WebhookEgress("results", options, Partition(0, 1, lambda _: True, "a1b2c3d4", path))


def published_at(path: Path) -> bytes:
    if RECEIVERS:
        return b"".join(body + b"\n" for body in RECEIVERS[-1].taken.values())
    return path.read_bytes() if path.is_file() else b"".join(file.read_bytes() for file in sorted(path.rglob("*.jsonl")))


def publish(sink: EgressSink, records: list[bytes]) -> None:
    while (count := sink.publish(records)) is not None and count < len(records):
        records = records[count:]


@pytest.fixture(params=[file_sink, stdout_sink, stream_sink, webhook_sink])
def build(request: pytest.FixtureRequest) -> Iterator[Callable[[Path], EgressSink]]:
    opened: list[EgressSink] = []

    def build_one(path: Path) -> EgressSink:
        opened.append(request.param(path))
        return opened[-1]

    yield build_one
    for sink in opened:
        sink.close()
        if isinstance(sink, StdoutEgress):
            os.close(sink._descriptor)
    while RECEIVERS:
        RECEIVERS.pop().stop()


def lines(sink: EgressSink, count: int) -> list[bytes]:
    return [sink.encode({"n": n, "text": "é" * (n % 5)}) for n in range(count)]


def position(records: list[bytes]) -> PublishedPosition:
    return PublishedPosition(len(records), sum(map(len, records)))


def test_publishes_in_order(build: Callable[[Path], EgressSink], tmp_path: Path) -> None:
    sink = build(tmp_path / "out")
    records = lines(sink, 2000)
    assert sink.open(NOTHING, []) == 0
    publish(sink, records[:1])
    publish(sink, [])
    publish(sink, records[1:])
    sink.close()
    sink.close()
    assert published_at(tmp_path / "out") == b"".join(records)


def test_what_cannot_be_encoded_is_a_type_error(build: Callable[[Path], EgressSink], tmp_path: Path) -> None:
    sink = build(tmp_path / "out")
    circle: list[object] = []
    circle.append(circle)
    for value in (object(), "\ud800", circle, {(1, 2): 3}):
        with pytest.raises(TypeError):
            sink.encode(value)


def test_encoding_is_repeatable_and_one_line(build: Callable[[Path], EgressSink], tmp_path: Path) -> None:
    sink = build(tmp_path / "out")
    value = {"b": "two\nlines", "a": [1, 2.5, None, True]}
    assert sink.encode(value) == sink.encode(dict(value))
    assert sink.encode(value).count(b"\n") == 1


PART = st.floats(0, 1)


@settings(deadline=None, max_examples=40)
@given(runs=st.lists(st.tuples(PART, PART, PART, PART), max_size=6))
def test_exactly_once_over_crashes(
    tmp_path_factory: pytest.TempPathFactory, runs: list[tuple[float, float, float, float]]
) -> None:
    """Runs of a partition that die anywhere: between checkpoints, in a write, before the position is stored."""
    path = tmp_path_factory.mktemp("egress") / "out"
    records = lines(file_sink(path), 12)
    stored = complete = 0
    for more, wrote, torn, kept in runs:
        complete += round(more * (len(records) - complete))
        pending = records[stored:complete]
        sink = file_sink(path)
        found = sink.open(position(records[:stored]), pending)
        written = found + round(wrote * (len(pending) - found))
        sink.publish(pending[found:written])
        sink.close()
        if written < len(pending):
            with path.open("ab") as file:
                file.write(pending[written][: round(torn * len(pending[written]))])
        stored += round(kept * written)
    sink = file_sink(path)
    pending = records[stored:]
    sink.publish(pending[sink.open(position(records[:stored]), pending) :])
    sink.close()
    assert path.read_bytes() == b"".join(records)


def test_reopens_at_every_published_position_with_a_tail_torn_at_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "out"
    records = lines(file_sink(path), 4)
    whole = b"".join(records)
    for published in range(len(records) + 1):
        start = position(records[:published])
        for end in range(start.bytes, len(whole) + 1):
            path.write_bytes(whole[:end])
            sink = file_sink(path)
            found = sink.open(start, records[published:])
            kept = position(records[: published + found]).bytes
            assert kept <= end
            assert path.read_bytes() == whole[:kept]
            sink.publish(records[published + found :])
            sink.close()
            assert path.read_bytes() == whole
