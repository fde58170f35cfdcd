"""What every ``IngressReader`` promises, whatever it reads."""

from __future__ import annotations

import csv
import gzip
import io
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import cbor2
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardfun.ingress.feed import Host
from shardfun.ingress.registry import find_kind
from shardfun.ingress.threaded import ThreadedReader
from shardfun.model.keyspace import owner_of
from shardfun.ports import IngressBatch, IngressReader, Partition
from shardfun.sources import Ingress

RECORDS = 200
KEYS = 7


def partition(index: int, count: int) -> Partition:
    return Partition(index, count, lambda key: owner_of(key, count) == index)


def rows() -> list[dict[str, str]]:
    return [{"id": f"k{n % KEYS}", "n": str(n), "text": f"é {n}" if n % 3 else f'two\nlines, "{n}"'} for n in range(RECORDS)]


def csv_bytes() -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["id", "n", "text"], lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows())
    return text.getvalue().encode()


def jsonl_bytes() -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows()).encode().removesuffix(b"\n")


class Rows(Ingress):
    """A class of a user: every partition goes through all rows."""

    idle_s = 0.0

    def open(self, position: Any | None) -> None:
        self.next = 0 if position is None else position["after"]

    def read(self, limit: int) -> list[tuple[Any, Any]] | None:
        if self.next == RECORDS:
            return None
        first, self.next = self.next, min(self.next + 30, RECORDS)
        own = [(number, row) for number, row in enumerate(rows()) if first <= number < self.next]
        return [({"after": number + 1}, row) for number, row in own if self.partition.owns(row["id"])]


class Waiting:
    """A reader that runs beside the loop, for those who look at once."""

    def __init__(self, reader: ThreadedReader) -> None:
        self._reader = reader

    def read(self, limit: int, now: float) -> IngressBatch | None:
        until = time.monotonic() + 5
        while (batch := self._reader.read(limit, now)) is None and not self._reader.finished:
            assert time.monotonic() < until
            time.sleep(0.0002)
        return batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


@dataclass(frozen=True)
class Source:
    """A reader under test: ``build(index, count)``, and whether the order holds per key over all partitions."""

    kind: str
    options: Any
    keyed: bool
    total: int

    def build(self, index: int, count: int, **changed: Any) -> IngressReader:
        if self.kind == "class":
            own = lambda: Rows("events", None, partition(index, count))  # noqa: E731
            return cast("IngressReader", Waiting(ThreadedReader("events", own, Host(lambda: None, lambda *_: None))))
        kind = find_kind(self.kind)
        return kind("events", msgspec.structs.replace(self.options, **changed), partition(index, count))


def file_source(folder: Path, name: str, data: bytes, partition_by: str | None) -> Source:
    path = folder / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return Source("file", find_kind("file").options(path=path, partition_by=partition_by), partition_by is not None, RECORDS)


def generator_source(folder: Path) -> Source:
    return Source("generator", find_kind("generator").options(count=RECORDS, ids=13, seed=3), keyed=False, total=RECORDS)


def class_source(folder: Path) -> Source:
    return Source("class", None, keyed=True, total=RECORDS)


SOURCES: dict[str, Callable[[Path], Source]] = {
    "class": class_source,
    "generator": generator_source,
    "jsonl": partial(file_source, name="e.jsonl", data=jsonl_bytes(), partition_by=None),
    "jsonl-keyed": partial(file_source, name="e.jsonl", data=jsonl_bytes(), partition_by="id"),
    "jsonl-keyed-gzip": partial(file_source, name="e.jsonl.gz", data=jsonl_bytes(), partition_by="id"),
    "csv": partial(file_source, name="e.csv", data=csv_bytes(), partition_by=None),
    "csv-keyed": partial(file_source, name="e.csv", data=csv_bytes(), partition_by="id"),
    "csv-gzip": partial(file_source, name="e.csv.gz", data=csv_bytes(), partition_by=None),
}


@pytest.fixture(params=sorted(SOURCES), scope="module")
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Source:
    return SOURCES[request.param](tmp_path_factory.mktemp("source"))


def events(batch: Any) -> list[Any]:
    if batch.ids is not None:
        assert not batch.records
        assert len(batch.ids) == len(batch.values)
        return list(zip(batch.ids, batch.values, strict=True))
    return list(batch.records)


def batches(reader: IngressReader, limits: Iterator[int]) -> Iterator[tuple[list[Any], Any]]:
    """Until the reader is finished: the events of each batch, and the position behind it as a checkpoint gives it back."""
    while True:
        limit = next(limits)
        batch = reader.read(limit, 0.0)
        if batch is None:
            assert reader.finished
            assert reader.wake_at is None
            return
        found = events(batch)
        assert len(found) <= limit
        assert len(found) <= batch.scanned
        assert not batch.rejects
        yield found, cbor2.loads(cbor2.dumps(batch.position))


def events_from(read: Iterator[tuple[list[Any], Any]], count: int) -> list[Any]:
    """The next events. Batches may be short, or hold none."""
    found: list[Any] = []
    while len(found) < count:
        found += next(read)[0]
    return found[:count]


def forever(limit: int) -> Iterator[int]:
    while True:
        yield limit


def read_all(source: Source, index: int, count: int, position: Any = None, limit: int = 64) -> list[Any]:
    reader = source.build(index, count)
    reader.open(position)
    try:
        return [event for found, _ in batches(reader, forever(limit)) for event in found]
    finally:
        reader.close()
        reader.close()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_partitions_are_disjoint_and_complete(source: Source, count: int) -> None:
    parts = [read_all(source, index, count) for index in range(count)]
    assert sum(map(len, parts)) == source.total
    if source.kind != "generator":
        numbers = sorted(int(record["n"]) for part in parts for record in part)
        assert numbers == list(range(source.total))
        assert sorted((record for part in parts for record in part), key=lambda record: int(record["n"])) == rows()


def test_each_partition_keeps_the_order_of_the_source(source: Source) -> None:
    if source.kind == "generator":
        pytest.skip("a generator has no order but its own")
    for index in range(3):
        numbers = [int(record["n"]) for record in read_all(source, index, 3)]
        assert numbers == sorted(numbers)


def test_a_key_is_read_by_its_owner_only(source: Source) -> None:
    if not source.keyed:
        pytest.skip("not partitioned by a key")
    for index in range(3):
        assert all(owner_of(record["id"], 3) == index for record in read_all(source, index, 3))


@settings(deadline=None, max_examples=15)
@given(limits=st.lists(st.integers(1, 90), min_size=1), index=st.integers(0, 1))
def test_any_limits_give_the_same_events_and_any_position_resumes(source: Source, limits: list[int], index: int) -> None:
    expected = read_all(source, index, 2)

    def pattern() -> Iterator[int]:
        while True:
            yield from limits

    reader = source.build(index, 2)
    reader.open(None)
    seen: list[Any] = []
    positions: list[tuple[int, Any]] = []
    for found, position in batches(reader, pattern()):
        seen += found
        positions.append((len(seen), position))
    reader.close()
    assert seen == expected
    for done, position in positions[:: max(1, len(positions) // 5)] + positions[-1:]:
        assert read_all(source, index, 2, position, limit=limits[0]) == expected[done:]


def test_every_position_resumes(source: Source) -> None:
    expected = read_all(source, 0, 2)
    reader = source.build(0, 2)
    reader.open(None)
    done = 0
    for found, position in batches(reader, forever(3)):
        done += len(found)
        assert read_all(source, 0, 2, position) == expected[done:]
    reader.close()


def test_open_again_goes_back(source: Source) -> None:
    reader = source.build(0, 1)
    read = batches(reader, forever(10))
    reader.open(None)
    first = events_from(read, 5)
    next(read)
    reader.open(None)
    assert events_from(read, 5) == first
    reader.close()


def test_rate_is_kept_and_wake_at_is_when_something_is_due(source: Source) -> None:
    if source.kind == "class":
        pytest.skip("has no rate")
    reader = source.build(0, 1, rate=50.0)
    reader.open(None)
    start = now = 1000.0
    scanned = waits = 0
    while True:
        batch = reader.read(500, now)
        if batch is not None:
            scanned += batch.scanned
            assert scanned <= (now - start) * 50 + 0.001
        elif reader.finished:
            break
        else:
            assert reader.wake_at is not None
            assert reader.wake_at > now
            now = reader.wake_at
            waits += 1
    reader.close()
    assert scanned == source.total
    assert now - start == pytest.approx(source.total / 50, abs=0.1)
    assert waits <= source.total + 10


def test_after_a_pause_a_reader_catches_up_with_its_schedule(source: Source) -> None:
    if source.kind == "class":
        pytest.skip("has no rate")
    reader = source.build(0, 1, rate=10.0)
    reader.open(None)
    assert reader.read(500, 7.0) is None
    scanned = 0
    while batch := reader.read(500, 12.0):
        scanned += batch.scanned
    assert scanned == 50
    reader.close()
