"""The reader of a log in a shard: all of its shard's entries once, in order, nothing before it is durable, from any position."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardfun.errors import CorruptionError
from shardfun.intake.bells import LISTEN_EVERY_S, Bell, Ringer, bell_path
from shardfun.intake.entries import (
    Entry,
    MessageEntry,
    RecordEntry,
    RequestEntry,
    decode_entry,
    encode_entry,
    is_internal,
    slot_of_entry,
)
from shardfun.intake.log import DURABLE, LogWriter
from shardfun.intake.log_files import Mark, save_mark, segment_path, segments, trim
from shardfun.intake.reader import ENTRIES_AT_ONCE, LOOK_AGAIN_S, PIECE_BYTES, LogReader
from shardfun.model.keyspace import slot_range

EVERY_SLOT = (0, 1 << 15)


def message(number: int, size: int = 1) -> MessageEntry:
    return MessageEntry("t/f", f"id{number}", "bytes", b"%d." % number + b"x" * size)


def number_of(entry: Entry) -> int:
    assert isinstance(entry, MessageEntry)
    return int(entry.payload.partition(b".")[0])


def framed(entries: list[Entry]) -> list[tuple[int, bytes]]:
    return [(slot_of_entry(entry), encode_entry(entry)) for entry in entries]


@pytest.fixture
def bell(tmp_path: Path) -> Iterator[Bell]:
    made = Bell(tmp_path, 0)
    yield made
    made.close()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[LogWriter]:
    made = LogWriter(tmp_path / "log", segment_bytes=3000)
    made.open()
    yield made
    made.close()


def rest(reader: LogReader, limit: int = 1000, now: float = 0.0) -> tuple[list[Entry], int | None]:
    """Everything there is now, and the position behind it."""
    found: list[Entry] = []
    position = None
    while (batch := reader.read(limit, now)) is not None:
        assert not batch.rejects
        found += batch.records
        position = batch.position
    return found, position


def test_entries_keep_their_form() -> None:
    entries = [
        message(1),
        RecordEntry("events", {"a": [1, None, "é"]}),
        RequestEntry("key", True, b"d", "t/f", "id", "int", b"\x01", "http"),
    ]
    assert [decode_entry(encode_entry(entry)) for entry in entries] == entries
    assert is_internal("~http")
    assert not is_internal("http")


def test_it_reads_what_is_durable_and_no_more(tmp_path: Path, writer: LogWriter, bell: Bell) -> None:
    reader = LogReader(tmp_path / "log", EVERY_SLOT, bell)
    reader.open(None)
    assert reader.read(10, 0.0) is None
    end = writer.append(framed([message(1), message(2)]))
    save_mark(tmp_path / "log" / DURABLE, Mark(0, 0))
    assert reader.read(10, LOOK_AGAIN_S) is None
    save_mark(tmp_path / "log" / DURABLE, Mark(end, 0))
    assert rest(reader, now=3 * LOOK_AGAIN_S) == ([message(1), message(2)], end)


def test_the_shards_share_the_entries_and_all_of_them_move_on(tmp_path: Path, writer: LogWriter, bell: Bell) -> None:
    entries: list[Entry] = [message(number) for number in range(300)]
    writer.append(framed(entries))
    found: list[Entry] = []
    for shard in range(3):
        reader = LogReader(tmp_path / "log", slot_range(shard, 3), bell)
        reader.open(None)
        mine, position = rest(reader, limit=7)
        assert position == writer.durable
        assert mine == sorted(mine, key=number_of)
        found += mine
        reader.close()
    assert sorted(found, key=number_of) == entries


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 2000), min_size=1, max_size=5), min_size=1, max_size=6),
    st.integers(1, 5),
    st.integers(1, 4000),
)
def test_it_goes_on_exactly_at_any_position_it_gave(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[int]], limit: int, segment: int
) -> None:
    folder = tmp_path_factory.mktemp("log")
    writer = LogWriter(folder / "log", segment_bytes=segment)
    writer.open()
    number = 0
    for sizes in groups:
        entries: list[Entry] = [message(number + index, size) for index, size in enumerate(sizes)]
        number += len(sizes)
        writer.append(framed(entries))
    bell = Bell(folder, 0)
    reader = LogReader(folder / "log", EVERY_SLOT, bell)
    found: list[int] = []
    position = None
    while True:
        reader.open(position)
        batch = reader.read(limit, 0.0)
        if batch is None:
            break
        found += map(number_of, batch.records)
        position = batch.position
    assert found == list(range(number))
    reader.close()
    writer.close()
    bell.close()


def test_one_call_is_bounded(tmp_path: Path, writer: LogWriter, bell: Bell) -> None:
    writer.append(framed([message(number) for number in range(ENTRIES_AT_ONCE + 10)]))
    reader = LogReader(tmp_path / "log", (0, 0), bell)
    reader.open(None)
    writer.append(framed([message(0, PIECE_BYTES) for _ in range(3)]))
    batch = reader.read(10_000, 0.0)
    assert batch is not None
    assert batch.records == []
    assert batch.position < 3 * PIECE_BYTES
    reader = LogReader(tmp_path / "log", EVERY_SLOT, bell)
    reader.open(None)
    batch = reader.read(10_000, 0.0)
    assert batch is not None
    assert len(batch.records) == ENTRIES_AT_ONCE


def test_an_entry_of_another_version_is_rejected_and_the_rest_is_read(tmp_path: Path, writer: LogWriter, bell: Bell) -> None:
    writer.append([(1, b"\xff"), *framed([message(1)]), (1, encode_entry(message(2))[:-1])])
    reader = LogReader(tmp_path / "log", EVERY_SLOT, bell)
    reader.open(None)
    batch = reader.read(10, 0.0)
    assert batch is not None
    assert batch.records == [message(1)]
    assert [reject.raw for reject in batch.rejects] == [b"\xff", encode_entry(message(2))[:-1]]


def test_damage_is_told_and_not_skipped(tmp_path: Path, writer: LogWriter, bell: Bell) -> None:
    writer.append(framed([message(1), message(2)]))
    with segment_path(tmp_path / "log", 0).open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"?")
    reader = LogReader(tmp_path / "log", (0, 0), bell)  # of another shard: what is damaged might be anybody's
    reader.open(None)
    with pytest.raises(CorruptionError, match="damaged at byte"):
        rest(reader)


def test_a_position_that_the_log_does_not_have_stops_the_node(tmp_path: Path, writer: LogWriter, bell: Bell) -> None:
    reader = LogReader(tmp_path / "log", EVERY_SLOT, bell)
    with pytest.raises(CorruptionError, match="has read this intake log up to byte 1000"):
        reader.open(1000)
    for number in range(3):
        writer.append(framed([message(number, 3000)]))
    trim(tmp_path / "log", writer.durable)
    with pytest.raises(CorruptionError, match="restore the data directory as a whole"):
        reader.open(0)
    reader.open(writer.durable)


def test_trimming_while_it_reads_takes_nothing_away_from_it(tmp_path: Path, writer: LogWriter, bell: Bell) -> None:
    reader = LogReader(tmp_path / "log", EVERY_SLOT, bell)
    reader.open(None)
    found: list[int] = []
    now = 0.0
    for number in range(50):
        writer.append(framed([message(number, 1000)]))
        now += 2 * LOOK_AGAIN_S
        batch = reader.read(1000, now)
        assert batch is not None
        found += map(number_of, batch.records)
        trim(tmp_path / "log", batch.position)
    assert found == list(range(50))
    assert len(segments(tmp_path / "log")) == 1


def test_a_mark_behind_the_position_waits_for_the_owner(tmp_path: Path, writer: LogWriter, bell: Bell) -> None:
    """As after a power cut that has lost the mark, before the owner has opened its log."""
    end = writer.append(framed([message(1)]))
    save_mark(tmp_path / "log" / DURABLE, Mark(0, 0))
    reader = LogReader(tmp_path / "log", EVERY_SLOT, bell)
    reader.open(end)
    assert reader.read(10, 0.0) is None
    writer.append(framed([message(2)]))
    assert rest(reader, now=2 * LOOK_AGAIN_S)[0] == [message(2)]


def test_it_reads_over_a_writer_that_was_replaced(tmp_path: Path, writer: LogWriter, bell: Bell) -> None:
    """The new one moves what is whole behind the mark into a segment of its own."""
    reader = LogReader(tmp_path / "log", EVERY_SLOT, bell)
    reader.open(None)
    first = writer.append(framed([message(1)]))
    assert rest(reader)[0] == [message(1)]
    writer.append(framed([message(2)]))
    writer.close()
    save_mark(tmp_path / "log" / DURABLE, Mark(first, 0))
    again = LogWriter(tmp_path / "log")
    again.open()
    assert segments(tmp_path / "log") == [0, first]
    again.append(framed([message(3)]))
    assert rest(reader, now=2 * LOOK_AGAIN_S)[0] == [message(2), message(3)]
    again.close()


# ---- bells ---------------------------------------------------------------------------------------------------------------
def test_a_ring_makes_it_look_at_once(tmp_path: Path, writer: LogWriter, bell: Bell) -> None:
    reader = LogReader(tmp_path / "log", EVERY_SLOT, bell)
    reader.open(None)
    assert reader.read(10, 1.0) is None
    writer.append(framed([message(1)]))
    assert reader.read(10, 1.0 + LISTEN_EVERY_S) is None, "nobody has rung"
    ringer = Ringer(tmp_path, 2)
    ringer.ring()
    batch = reader.read(10, 1.0 + 3 * LISTEN_EVERY_S)
    assert batch is not None
    assert reader.read(10, 1.0 + 6 * LISTEN_EVERY_S) is None
    assert reader.wake_at is not None
    assert reader.wake_at <= 1.0 + LOOK_AGAIN_S + 6 * LISTEN_EVERY_S
    ringer.close()


def test_two_readers_share_a_bell(tmp_path: Path, bell: Bell) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    readers = [LogReader(folder, EVERY_SLOT, bell) for folder in folders]
    for reader in readers:
        reader.open(None)
        assert reader.read(10, 1.0) is None
    for folder in folders:
        other = LogWriter(folder)
        other.open()
        other.append(framed([message(1)]))
        other.close()
    ringer = Ringer(tmp_path, 1)
    ringer.ring()
    now = 1.0 + 2 * LISTEN_EVERY_S
    assert [rest(reader, now=now)[0] for reader in readers] == [[message(1)]] * 2
    ringer.close()


def test_rings_for_a_full_or_missing_bell_are_no_error(tmp_path: Path, bell: Bell) -> None:
    ringer = Ringer(tmp_path, 2)
    for _ in range(5000):
        ringer.ring()
    bell.listen(1.0)
    assert 0 < bell.rings < 5000
    ringer.close()


def test_a_new_process_takes_the_bell_of_a_dead_one(tmp_path: Path) -> None:
    first = Bell(tmp_path, 3)
    second = Bell(tmp_path, 3)
    ringer = Ringer(tmp_path, 4)
    ringer.ring()
    second.listen(1.0)
    assert second.rings == 1
    second.close()
    first.close()
    assert not bell_path(tmp_path, 3).exists()
    ringer.close()


def test_reading_beside_a_writer(tmp_path: Path, bell: Bell) -> None:
    folder = tmp_path / "log"

    def write() -> None:
        other = LogWriter(folder, segment_bytes=5000)
        other.open()
        ringer = Ringer(tmp_path, 1)
        for number in range(0, 1000, 5):
            other.append(framed([message(each, each % 200) for each in range(number, number + 5)]))
            ringer.ring()
        ringer.close()
        other.close()

    reader = LogReader(folder, EVERY_SLOT, bell)
    reader.open(None)
    thread = threading.Thread(target=write)
    thread.start()
    found: list[int] = []
    now = 0.0
    while len(found) < 1000:
        now += LISTEN_EVERY_S
        batch = reader.read(1000, now)
        if batch is not None:
            assert not batch.rejects
            found += map(number_of, batch.records)
    thread.join()
    assert found == list(range(1000))


def test_a_reader_that_falls_back_to_an_earlier_checkpoint_reads_the_same_again(
    tmp_path: Path, writer: LogWriter, bell: Bell
) -> None:
    reader = LogReader(tmp_path / "log", EVERY_SLOT, bell)
    reader.open(None)
    writer.append(framed([message(1)]))
    _, checkpoint = rest(reader)
    for number in (2, 3):
        writer.append(framed([message(number)]))
        rest(reader, now=float(10 * number))
    reader.open(checkpoint)
    entries, _ = rest(reader)
    assert entries == [message(2), message(3)]
