"""Streams: segments, what is deleted, and readers beside the writer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from shardfun.egress.segments import partition_folder, segments_in
from shardfun.egress.stream import StreamEgress, StreamEgressOptions
from shardfun.egress.tail import EgressTail
from shardfun.errors import ConfigurationError, EgressError, EventIdError, EventsGoneError
from shardfun.ports import Partition, PublishedPosition

JOB = "a1b2c3d4" * 4
NOTHING = PublishedPosition(0, 0)
SMALL = StreamEgressOptions(retention_bytes=1000, segment_bytes=200)


def stream(data: Path, options: StreamEgressOptions = SMALL, index: int = 0, count: int = 1, job: str = JOB) -> StreamEgress:
    return StreamEgress("late", options, Partition(index, count, lambda _: True, job, data))


def numbered(first: int, count: int) -> list[bytes]:
    return [b'{"n":%d}\n' % n for n in range(first, first + count)]


def position(records: list[bytes]) -> PublishedPosition:
    return PublishedPosition(len(records), sum(map(len, records)))


def held(data: Path, index: int = 0) -> bytes:
    return b"".join(segment.path.read_bytes() for segment in segments_in(partition_folder(data, "late", index)))


async def take(tail: EgressTail, count: int) -> list[tuple[str, Any]]:
    with trio.fail_after(60):
        return [await anext(tail) for _ in range(count)]


def test_old_segments_are_deleted_and_the_newest_retention_stays(tmp_path: Path) -> None:
    sink = stream(tmp_path)
    sink.open(NOTHING, [])
    records = numbered(0, 1000)
    for first in range(0, 1000, 7):
        sink.publish(records[first : first + 7])
    kept = held(tmp_path)
    assert b"".join(records).endswith(kept)
    assert 1000 <= len(kept) <= 1500
    oldest = segments_in(partition_folder(tmp_path, "late", 0))[0]
    assert kept.startswith(records[oldest.records])
    assert sum(map(len, records[: oldest.records])) == oldest.bytes
    sink.close()


def test_recovers_at_a_position_whose_records_are_deleted_already(tmp_path: Path) -> None:
    records = numbered(0, 500)
    sink = stream(tmp_path)
    sink.open(NOTHING, [])
    sink.publish(records[:400])
    sink.close()
    before = held(tmp_path)
    for published in (0, 3, 399, 400):
        sink = stream(tmp_path)
        assert sink.open(position(records[:published]), records[published:]) == 400 - published
        sink.close()
        assert held(tmp_path) == before
    sink = stream(tmp_path)
    sink.open(position(records[:10]), records[10:])
    sink.publish(records[400:])
    sink.close()
    assert b"".join(records).endswith(held(tmp_path))


@settings(deadline=None, max_examples=60)
@given(steps=st.lists(st.tuples(st.integers(0, 30), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), max_size=8))
def test_any_crash_leaves_whole_records_that_follow_each_other(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, float, float, float]]
) -> None:
    """A crash tears the newest segment anywhere behind what was made durable last; a checkpoint may know less than was published."""
    data = tmp_path_factory.mktemp("data")
    records = numbered(0, 300)
    stored = complete = 0
    for more, wrote, torn, kept in steps:
        complete = min(len(records), complete + more)
        pending = records[stored:complete]
        sink = stream(data)
        found = sink.open(position(records[:stored]), pending)
        written = found + round(wrote * (len(pending) - found))
        sink.publish(pending[found:written])
        sink.close()
        if written < len(pending):
            newest = segments_in(partition_folder(data, "late", 0))[-1].path
            with newest.open("ab") as file:
                file.write(pending[written][: round(torn * len(pending[written]))])
        stored += round(kept * written)
    sink = stream(data)
    pending = records[stored:]
    sink.publish(pending[sink.open(position(records[:stored]), pending) :])
    sink.close()
    assert b"".join(records).endswith(held(data))
    assert len(held(data)) >= 1000


def test_files_and_folders_are_private(tmp_path: Path) -> None:
    sink = stream(tmp_path)
    sink.open(NOTHING, [])
    folder = partition_folder(tmp_path, "late", 0)
    assert folder.stat().st_mode & 0o777 == folder.parent.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    sink.close()


def test_less_than_published_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(EgressError, match="ends at byte 0, but 16 bytes"):
        stream(tmp_path).open(position(numbered(0, 2)), [])
    sink = stream(tmp_path)
    sink.open(NOTHING, [])
    sink.publish(numbered(0, 100))
    sink.close()
    newest = segments_in(partition_folder(tmp_path, "late", 0))[-1].path
    newest.write_bytes(newest.read_bytes()[:-5])
    before = held(tmp_path)
    with pytest.raises(EgressError, match="put its files back"):
        stream(tmp_path).open(position(numbered(0, 100)), [])
    assert held(tmp_path) == before


def test_what_another_job_wrote_is_refused(tmp_path: Path) -> None:
    sink = stream(tmp_path)
    sink.open(NOTHING, [])
    sink.publish(numbered(0, 10))
    sink.close()
    with pytest.raises(EgressError, match="of another data directory"):
        stream(tmp_path, job="ffffffff").open(NOTHING, [])
    with pytest.raises(EgressError, match="did not write"):
        stream(tmp_path).open(NOTHING, numbered(5, 3))


def test_a_full_disk_leaves_the_stream_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = stream(tmp_path)
    sink.open(NOTHING, [])
    sink.publish(numbered(0, 10))
    calls = []

    def full(descriptor: int, data: memoryview, offset: int) -> int:
        calls.append(offset)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        with open(f"/proc/self/fd/{descriptor}", "r+b") as file:  # noqa: PTH123
            file.seek(offset)
            return file.write(data)

    with monkeypatch.context() as patch:
        patch.setattr("shardfun.egress.stream.os.pwrite", full)
        with pytest.raises(EgressError, match="No space left"):
            sink.publish(numbered(10, 200))
    assert held(tmp_path) == b"".join(numbered(0, 10))
    sink.publish(numbered(10, 200))
    sink.close()
    assert b"".join(numbered(0, 210)).endswith(held(tmp_path))


def test_a_retention_smaller_than_two_segments_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="retention: expected at least twice the segment"):
        StreamEgressOptions(retention_bytes=300, segment_bytes=200)


# ---- readers -------------------------------------------------------------------------------------------------------------
async def test_a_reader_gets_all_partitions_in_their_order_and_waits_for_more(tmp_path: Path) -> None:
    sinks = [stream(tmp_path, index=index, count=2) for index in range(2)]
    tail = EgressTail(tmp_path, "late", 2)
    got: list[int] = []

    async def read() -> None:
        for _, record in await take(tail, 120):
            got.append(record["n"])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.sleep(0.02)
        for sink in sinks:
            sink.open(NOTHING, [])
        for first in range(0, 60, 20):
            sinks[0].publish(numbered(first, 20))
            await trio.sleep(0.01)
            sinks[1].publish(numbered(1000 + first, 20))
    assert [n for n in got if n < 1000] == list(range(60))
    assert [n for n in got if n >= 1000] == list(range(1000, 1060))


async def test_every_event_id_resumes(tmp_path: Path) -> None:
    for index in range(2):
        sink = stream(tmp_path, msgspec.structs.replace(SMALL, retention_bytes=10_000), index=index, count=2)
        sink.open(NOTHING, [])
        sink.publish(numbered(1000 * index, 40))
        sink.close()
    events = await take(EgressTail(tmp_path, "late", 2), 80)
    for seen, (event_id, _) in enumerate(events, start=1):
        if seen == 80:
            break
        rest = await take(EgressTail(tmp_path, "late", 2, after=event_id), 80 - seen)
        both = [record["n"] for _, record in events[:seen] + rest]
        assert sorted(both) == [*range(40), *range(1000, 1040)]
        assert rest[-1][0] == events[-1][0]


async def test_from_now_on(tmp_path: Path) -> None:
    sink = stream(tmp_path)
    sink.open(NOTHING, [])
    sink.publish(numbered(0, 30))
    tail = EgressTail(tmp_path, "late", 1, start="newest")
    sink.publish(numbered(30, 3))
    assert [record["n"] for _, record in await take(tail, 3)] == [30, 31, 32]
    assert [record["n"] for _, record in await take(EgressTail(tmp_path, "late", 1, after="a1b2c3d4-31"), 2)] == [31, 32]


async def test_a_torn_line_is_no_record_yet(tmp_path: Path) -> None:
    sink = stream(tmp_path)
    sink.open(NOTHING, [])
    newest = segments_in(partition_folder(tmp_path, "late", 0))[-1].path
    newest.write_bytes(b'{"n":0}\n{"n":')
    tail = EgressTail(tmp_path, "late", 1)
    assert [record["n"] for _, record in await take(tail, 1)] == [0]
    with trio.move_on_after(0.05) as scope:
        await anext(tail)
    assert scope.cancelled_caught
    sink.close()
    sink = stream(tmp_path)
    assert sink.open(NOTHING, numbered(0, 2)) == 1
    sink.publish(numbered(1, 1))
    assert [record["n"] for _, record in await take(tail, 1)] == [1]


async def test_a_long_line_is_read_whole(tmp_path: Path) -> None:
    sink = stream(tmp_path, StreamEgressOptions())
    sink.open(NOTHING, [])
    sink.publish([sink.encode("x" * 1_000_000), sink.encode("y")])
    events = await take(EgressTail(tmp_path, "late", 1), 2)
    assert [len(record) for _, record in events] == [1_000_000, 1]


async def test_a_reader_that_comes_too_late_is_told(tmp_path: Path) -> None:
    sink = stream(tmp_path)
    sink.open(NOTHING, [])
    sink.publish(numbered(0, 10))
    slow = EgressTail(tmp_path, "late", 1)
    ((event_id, _),) = await take(slow, 1)
    sink.publish(numbered(10, 990))
    with pytest.raises(EventsGoneError, match=r"the records 1 to .* of partition 0 were deleted before they were read"):
        EgressTail(tmp_path, "late", 1, after=event_id)
    with pytest.raises(EventsGoneError):
        await take(slow, 500)
    assert await take(EgressTail(tmp_path, "late", 1), 10)


async def test_event_ids_of_another_run_or_of_nobody(tmp_path: Path) -> None:
    sink = stream(tmp_path)
    sink.open(NOTHING, [])
    sink.publish(numbered(0, 10))
    for wrong in ("", "7", "a1b2c3d4-", "a1b2c3d4-1.2", "a1b2c3d4-\u0661", "a1b2c3d4-1\n", "A1B2C3D4-1", "a" * 5000):
        with pytest.raises(EventIdError, match="expected an event id"):
            EgressTail(tmp_path, "late", 1, after=wrong)
    with pytest.raises(EventIdError, match="of another run"):
        EgressTail(tmp_path, "late", 1, after="ffffffff-1")


async def test_cancelling_a_reader_loses_nothing(tmp_path: Path) -> None:
    sink = stream(tmp_path, msgspec.structs.replace(SMALL, retention_bytes=10_000))
    sink.open(NOTHING, [])
    tail = EgressTail(tmp_path, "late", 1)
    got: list[int] = []
    for first in range(0, 100, 5):
        sink.publish(numbered(first, 5))
        while len(got) < first + 5:
            with trio.move_on_after(0.001):
                while len(got) < first + 5:
                    got.append((await anext(tail))[1]["n"])
    assert got == list(range(100))
