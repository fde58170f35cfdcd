"""The log: nothing acknowledged is ever lost, nothing torn is ever read, damage is never silent."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardfun.errors import CorruptionError, DirectoryInUseError, StorageError
from shardfun.intake.log import CONSUMED, DURABLE, LogWriter, log_exists
from shardfun.intake.log_disk import RealLogDisk
from shardfun.intake.log_files import (
    GROUP_BYTES,
    GROUP_SLOT,
    HEAD,
    NO_MARK,
    Mark,
    frame_at,
    group_frame,
    load_mark,
    save_mark,
    scan,
    segment_path,
    segments,
    trim,
)
from shardfun.simulation.files import SimulatedDisk, Trouble


def contents(folder: Path, end: int | None = None) -> list[bytes]:
    mark = load_mark(folder / DURABLE)
    assert mark is not None
    starts = segments(folder)
    return [item.content for item in scan(folder, starts[0] if starts else 0, mark.offset if end is None else end)]


def opened(folder: Path, **settings: Any) -> LogWriter:
    writer = LogWriter(folder, **settings)
    writer.open()
    return writer


def written(folder: Path, groups: list[list[bytes]], **settings: Any) -> list[int]:
    """A closed log; the offset behind each group."""
    writer = opened(folder, **settings)
    ends = [writer.append([(7, content) for content in group]) for group in groups]
    writer.close()
    return ends


def test_what_was_appended_is_there_in_order(tmp_path: Path) -> None:
    ends = written(tmp_path / "log", [[b"a", b"bb"], [b"ccc"]])
    assert contents(tmp_path / "log") == [b"a", b"bb", b"ccc"]
    assert load_mark(tmp_path / "log" / DURABLE) == Mark(ends[-1], 0)


def test_the_files_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "intake" / "http"
    written(folder, [[b"a"]])
    assert folder.stat().st_mode & 0o777 == folder.parent.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=4), max_size=8), st.integers(1, 200))
def test_however_often_it_is_opened(tmp_path_factory: pytest.TempPathFactory, groups: list[list[bytes]], size: int) -> None:
    folder = tmp_path_factory.mktemp("log") / "log"
    for group in groups:
        written(folder, [group], segment_bytes=size)
    opened(folder).close()
    assert contents(folder) == [content for group in groups for content in group]


def test_a_new_segment_is_named_by_its_offset(tmp_path: Path) -> None:
    ends = written(tmp_path / "log", [[b"x" * 100]] * 3, segment_bytes=50)
    assert segments(tmp_path / "log") == [0, ends[0], ends[1]]


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    first = opened(tmp_path / "log")
    with pytest.raises(DirectoryInUseError, match="another process writes"):
        LogWriter(tmp_path / "log").open()
    first.close()
    opened(tmp_path / "log").close()


# ---- torn ends -----------------------------------------------------------------------------------------------------------
def test_a_torn_end_is_cut_at_every_byte_and_whole_entries_are_kept(tmp_path: Path) -> None:
    """As after a power cut: the last group was never acknowledged, and the mark is as old as it can be."""
    for kept in range(2000):
        folder = tmp_path / f"log{kept}"
        first, second = written(folder, [[b"first"], [b"second", b"third"]])
        if kept > second - first:
            break
        os.truncate(segment_path(folder, 0), first + kept)
        save_mark(folder / DURABLE, Mark(first, 0))
        writer = opened(folder)
        whole = [b"second"] if kept >= GROUP_BYTES + HEAD.size + 6 else []
        whole += [b"third"] if kept == second - first else []
        assert contents(folder) == [b"first", *whole]
        writer.append([(1, b"more")])
        assert contents(folder) == [b"first", *whole, b"more"]
        writer.close()
    assert kept > 40


@pytest.mark.parametrize("mark", ["missing", "empty", "damaged", "old"])
def test_a_lost_mark_loses_nothing(tmp_path: Path, mark: str) -> None:
    folder = tmp_path / "log"
    ends = written(folder, [[b"a"], [b"b"], [b"c"]])
    path = folder / DURABLE
    if mark == "missing":
        path.unlink()
    elif mark == "old":
        save_mark(path, Mark(ends[0], 0))
    else:
        path.write_bytes(b"" if mark == "empty" else b"?" * 28)
    opened(folder).close()
    assert contents(folder) == [b"a", b"b", b"c"]


def test_what_follows_garbage_that_was_never_synced_is_cut(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    first, _ = written(folder, [[b"first"], [b"x" * 50, b"y" * 50]])
    save_mark(folder / DURABLE, Mark(first, 0))
    with segment_path(folder, 0).open("r+b") as file:  # pages of one write reach the disk in any order
        file.seek(first + GROUP_BYTES)
        file.write(b"\0" * 20)
    opened(folder).close()
    assert contents(folder) == [b"first"]


# ---- damage --------------------------------------------------------------------------------------------------------------
def test_damage_before_the_mark_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    first, _ = written(folder, [[b"first"], [b"second"]])
    with segment_path(folder, 0).open("r+b") as file:
        file.seek(first - 2)
        file.write(b"?")
    with pytest.raises(CorruptionError, match="damaged at byte"):
        opened(folder)


def test_damage_before_a_later_group_is_told_even_without_the_mark(tmp_path: Path) -> None:
    """A group is only written when the one before it is durable."""
    folder = tmp_path / "log"
    first, _ = written(folder, [[b"first"], [b"second"]])
    (folder / DURABLE).unlink()
    with segment_path(folder, 0).open("r+b") as file:
        file.seek(first - 2)
        file.write(b"?")
    with pytest.raises(CorruptionError, match="damaged at byte"):
        opened(folder)


def test_damage_before_what_checkpoints_have_read_is_told_even_without_the_mark(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    (end,) = written(folder, [[b"first"]])
    (folder / DURABLE).unlink()
    save_mark(folder / CONSUMED, Mark(end, 0))
    os.truncate(segment_path(folder, 0), end - 1)
    with pytest.raises(CorruptionError, match="damaged at byte"):
        opened(folder)


@pytest.mark.parametrize("harm", ["all gone", "first short", "last short"])
def test_missing_files_are_told(tmp_path: Path, harm: str) -> None:
    folder = tmp_path / "log"
    written(folder, [[b"x" * 100]] * 3, segment_bytes=50)
    starts = segments(folder)
    if harm == "all gone":
        for start in starts:
            segment_path(folder, start).unlink()
    else:
        os.truncate(segment_path(folder, starts[0 if harm == "first short" else -1]), 20)
    with pytest.raises(CorruptionError):
        opened(folder)


def test_a_frame_is_none_at_another_place() -> None:
    frame = group_frame(1000)
    assert frame_at(frame, 0, 1000) is not None
    assert frame_at(frame, 0, 1001) is None


def test_no_shard_has_the_slot_of_group_frames() -> None:
    from shardfun.model.keyspace import SLOTS

    assert GROUP_SLOT >= SLOTS


# ---- a disk that refuses -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("step", ["write", "sync", "mark", "create"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_after_a_refusal_nothing_is_lost_and_the_log_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    folder = tmp_path / "log"
    writer = opened(folder, segment_bytes=1 if step == "create" else 1000)
    writer.append([(1, b"before")])

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    def half(_disk: RealLogDisk, descriptor: int, data: bytes, position: int) -> None:
        os.pwrite(descriptor, data[: len(data) // 2], position)
        refuse()

    with monkeypatch.context() as patch:
        if step == "write":
            patch.setattr("shardfun.intake.log.write_all_at", half)
        elif step == "sync":
            patch.setattr(RealLogDisk, "sync_data", refuse)
        elif step == "mark":
            patch.setattr("shardfun.intake.log.write_mark", refuse)
        else:
            patch.setattr(RealLogDisk, "sync_folder", refuse)
        for _ in range(3):
            with pytest.raises(StorageError) as caught:
                writer.append([(1, b"refused")])
            assert caught.value.errno == number
    writer.append([(1, b"after")])
    assert contents(folder) == [b"before", b"after"]
    writer.close()
    opened(folder).close()
    assert contents(folder) == [b"before", b"after"]


def test_a_refused_write_that_cannot_be_cut_off_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "log"
    writer = opened(folder)
    writer.append([(1, b"before")])

    def refuse(*_: Any) -> Any:
        raise OSError(errno.EIO, "no")

    with monkeypatch.context() as patch:
        patch.setattr(RealLogDisk, "sync_data", refuse)
        patch.setattr(RealLogDisk, "truncate", refuse)
        with pytest.raises(StorageError):
            writer.append([(1, b"refused")])
    writer.append([(1, b"another")])
    assert contents(folder) == [b"before", b"another"]
    writer.close()
    opened(folder).close()
    assert contents(folder) == [b"before", b"another"]


# ---- trimming ------------------------------------------------------------------------------------------------------------
def test_trimming_removes_whole_segments_but_the_last(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    ends = written(folder, [[b"x" * 100]] * 4, segment_bytes=50)
    assert trim(folder, ends[1] - 1) == 1
    assert trim(folder, ends[1]) == 1
    assert trim(folder, ends[3]) == 1
    assert segments(folder) == [ends[2]]
    writer = opened(folder)
    assert writer.durable == ends[3]
    writer.close()


@pytest.mark.parametrize("seed", range(30))
def test_a_power_cut_after_trimming_leaves_no_gap(seed: int) -> None:
    """Whichever removals it undoes: an old segment is there only with all that follow it."""
    machine, folder = SimulatedDisk(), Path("/log")
    hands = machine.process()
    writer = LogWriter(folder, segment_bytes=50, disk=hands)
    writer.open()
    ends = [writer.append([(7, b"x" * 100)]) for _ in range(6)]
    trim(folder, ends[4], hands)
    writer.close()
    hands.kill()
    machine.power_loss(random.Random(seed))
    again = LogWriter(folder, segment_bytes=50, disk=machine.process())
    again.open()
    assert again.durable == ends[5]


def test_no_log_is_trimmed_and_scanned_without_an_error(tmp_path: Path) -> None:
    assert trim(tmp_path / "none", 100) == 0
    assert list(scan(tmp_path / "none", 0, 0)) == []
    assert load_mark(tmp_path / "none" / DURABLE) is None
    assert Mark(0, 0) == NO_MARK


def test_a_disk_that_cannot_say_whether_there_is_a_log_is_an_error_of_storage() -> None:
    files = SimulatedDisk().process()
    files.begin_job(Trouble(1, errno.EIO))
    with pytest.raises(StorageError, match="cannot read"):
        log_exists(Path("/log"), files)


# ---- marks ---------------------------------------------------------------------------------------------------------------
class Sparing(RealLogDisk):
    """Takes three bytes at once."""

    def write_at(self, descriptor: int, piece: bytes | memoryview, position: int) -> int:
        return super().write_at(descriptor, piece[:3], position)


def test_a_mark_is_written_whole_however_little_the_disk_takes(tmp_path: Path) -> None:
    """Or readers would not see what was acknowledged until more comes."""
    writer = LogWriter(tmp_path / "log", disk=Sparing())
    writer.open()
    end = writer.append([(7, b"entry")])
    assert load_mark(tmp_path / "log" / DURABLE) == Mark(end, 0)
    writer.close()


# ---- readers of marks while they are written -----------------------------------------------------------------------------
def test_a_mark_is_never_read_torn(tmp_path: Path) -> None:
    path = tmp_path / DURABLE
    save_mark(path, Mark(0, 0))
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 0x0101010101
            save_mark(path, Mark(number, number))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        seen = [load_mark(path) for _ in range(3000)]
    finally:
        stop.set()
        thread.join()
    assert all(mark is None or mark.offset == mark.segment for mark in seen)
    found = [mark.offset for mark in seen if mark is not None]
    assert len(found) > len(seen) // 2
    assert found == sorted(found)


# ---- SIGKILL -------------------------------------------------------------------------------------------------------------
KILLED = textwrap.dedent("""
    import sys
    from pathlib import Path
    from shardfun.intake.log import LogWriter
    writer = LogWriter(Path(sys.argv[1]), segment_bytes=2000)
    writer.open()
    number = int(sys.argv[2])
    while True:
        group = [(n % 7, b"%d." % n + b"x" * (n % 90)) for n in range(number, number + 1 + number % 5)]
        writer.append(group)
        number += len(group)
        print(number, flush=True)
""")


def test_a_writer_under_sigkill_keeps_all_it_has_acknowledged(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    chance = random.Random(3)
    acknowledged = 0
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(folder), str(acknowledged)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(chance.randrange(1, 60)):
            line = process.stdout.readline()
            assert line
            acknowledged = int(line)
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        acknowledged = int(rest.split()[-1]) if rest.split() else acknowledged
        opened(folder).close()
        numbers = [int(content.partition(b".")[0]) for content in contents(folder)]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= acknowledged
        acknowledged = len(numbers)  # a group may be durable whose acknowledgement did not get through
    assert acknowledged > 100
