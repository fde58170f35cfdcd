"""The simulated disk is as mean as it should be, and no meaner than a disk may be."""

from __future__ import annotations

import errno
import random
from contextlib import suppress
from pathlib import Path

import pytest

from shardfun.errors import CorruptionError, StorageError
from shardfun.simulation.campaign import Plan, run_seed
from shardfun.simulation.disk import FileSupervisorDisk, StoredManifest
from shardfun.simulation.engine_log import BLOCK_BYTES, LogWriter, read_log
from shardfun.simulation.files import ProcessDeath, ProcessFiles, SimulatedDisk, Trouble
from shardfun.simulation.inodes import PAGE_BYTES
from shardfun.simulation.options import draw
from shardfun.simulation.reasons import has_reason
from shardfun.state.files import FileForm, file_bytes, free_bytes, make_directory, read_checked, write_checked

FORM = FileForm(b"sftest-\n", 1, "test file")
FOLDER = Path("/d")
CONTENT = bytes(range(1, 251)) * 5


def new_disk() -> tuple[SimulatedDisk, ProcessFiles]:
    disk = SimulatedDisk()
    files = disk.process()
    make_directory(FOLDER, files)
    return disk, files


def write(files: ProcessFiles, name: str, content: bytes, *, sync: bool) -> int:
    """Write a file; its descriptor, still open."""
    descriptor = files.create(FOLDER / name)
    done = 0
    while done < len(content):
        done += files.write(descriptor, content[done:])
    if sync:
        files.fsync(descriptor)
    return descriptor


def test_what_is_not_fsynced_is_lost_in_every_way_there_is() -> None:
    """As a whole, from some byte on, some pages in the middle, or not at all."""
    seen = set()
    for seed in range(60):
        disk, files = new_disk()
        write(files, "f", CONTENT, sync=False)
        files.sync_folder(FOLDER)
        disk.power_loss(random.Random(seed))
        left = disk.process().read(FOLDER / "f", 0, 10_000)
        assert all(byte in (0, CONTENT[place]) for place, byte in enumerate(left))
        if left == CONTENT:
            seen.add("all")
        elif not left:
            seen.add("none")
        elif CONTENT.startswith(left):
            seen.add("prefix")
        else:
            assert {left[start : start + PAGE_BYTES].count(0) % PAGE_BYTES for start in range(0, len(left), PAGE_BYTES)} <= {
                0,
                len(left) % PAGE_BYTES,
            }
            seen.add("pages")
    assert seen == {"all", "none", "prefix", "pages"}


def test_what_is_fsynced_stays_and_its_name_only_if_the_folder_is() -> None:
    seen = set()
    for seed in range(20):
        disk, files = new_disk()
        write(files, "f", CONTENT, sync=True)
        assert not disk.is_durable(FOLDER / "f")
        files.sync_folder(FOLDER)
        assert disk.is_durable(FOLDER / "f")
        write(files, "g", CONTENT, sync=True)
        disk.power_loss(random.Random(seed))
        after = disk.process()
        assert after.read(FOLDER / "f", 0, 10_000) == CONTENT
        seen.add(after.exists(FOLDER / "g"))
    assert seen == {False, True}


def test_renames_and_removals_are_kept_or_lost_one_by_one() -> None:
    seen = set()
    for seed in range(40):
        disk, files = new_disk()
        write_checked(FOLDER / "a", FORM, b"old", files)
        write_checked(FOLDER / "b", FORM, b"b", files)
        write(files, "a.new", b"new", sync=True)
        files.sync_folder(FOLDER)
        files.rename(FOLDER / "a.new", FOLDER / "a")
        files.unlink(FOLDER / "b")
        disk.power_loss(random.Random(seed))
        after = disk.process()
        renamed = after.read(FOLDER / "a", 0, 100) == b"new"
        assert renamed != after.exists(FOLDER / "a.new")  # a rename is one step
        seen.add((renamed, after.exists(FOLDER / "b")))
    assert len(seen) == 4


def test_an_fsync_that_failed_drops_pages_and_the_next_one_says_nothing() -> None:
    """As Linux does: so the file must never be fsynced again."""
    lost = 0
    for seed in range(20):
        disk, files = new_disk()
        descriptor = write(files, "f", CONTENT, sync=False)
        files.begin_job(Trouble(1, errno.EIO))
        with pytest.raises(OSError, match="error"):
            files.fsync(descriptor)
        files.fsync(descriptor)
        files.sync_folder(FOLDER)
        assert files.read(FOLDER / "f", 0, 10_000) == CONTENT
        assert not disk.is_durable(FOLDER / "f")
        disk.power_loss(random.Random(seed))
        lost += disk.process().read(FOLDER / "f", 0, 10_000) != CONTENT
    assert lost > 5


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("at", range(1, 12))
def test_a_step_that_fails_leaves_the_old_content_or_the_new_one(code: int, at: int) -> None:
    _, files = new_disk()
    write_checked(FOLDER / "f", FORM, b"old", files)
    files.begin_job(Trouble(at, code))
    with suppress(StorageError):
        write_checked(FOLDER / "f", FORM, b"new", files)
    files.begin_job()
    assert read_checked(FOLDER / "f", FORM, files) in {b"old", b"new"}
    write_checked(FOLDER / "f", FORM, b"newer", files)
    assert read_checked(FOLDER / "f", FORM, files) == b"newer"


@pytest.mark.parametrize("at", range(1, 12))
@pytest.mark.parametrize("seed", range(5))
def test_a_death_and_a_power_cut_before_any_step_leave_the_old_content_or_the_new_one(at: int, seed: int) -> None:
    disk, files = new_disk()
    write_checked(FOLDER / "f", FORM, b"old" * 200, files)
    files.begin_job(dies_at=at)
    try:
        write_checked(FOLDER / "f", FORM, b"new" * 200, files)
    except ProcessDeath:
        with pytest.raises(ProcessDeath):
            files.names(FOLDER)
    disk.power_loss(random.Random(seed))
    assert read_checked(FOLDER / "f", FORM, disk.process()) in {b"old" * 200, b"new" * 200}


def test_a_flipped_bit_is_found_and_who_checks_can_still_see_what_was_there() -> None:
    disk, files = new_disk()
    write_checked(FOLDER / "f", FORM, b"content", files)
    whole = disk.original(FOLDER / "f")
    assert disk.flip(random.Random(1)) == FOLDER / "f"
    assert disk.damages == 1
    with pytest.raises(CorruptionError):
        read_checked(FOLDER / "f", FORM, files)
    assert disk.original(FOLDER / "f") == whole


@pytest.mark.parametrize("at", range(1, 14))
def test_a_folder_whose_maker_died_is_durable_once_it_is_used(at: int) -> None:
    """It may be there, and its name may not be durable yet; nobody sees that."""
    disk = SimulatedDisk()
    files = disk.process()
    files.begin_job(dies_at=at)
    with suppress(ProcessDeath):
        make_directory(Path("/a/b/c"), files)
    files = disk.process()
    make_directory(Path("/a/b/c"), files)
    write_checked(Path("/a/b/c/f"), FORM, b"content", files)
    assert disk.is_durable(Path("/a/b/c/f"))


def test_what_is_written_over_and_what_is_cut_off_may_come_back_until_the_fsync() -> None:
    seen = set()
    for seed in range(60):
        disk, files = new_disk()
        descriptor = write(files, "f", b"a" * 600, sync=True)
        files.sync_folder(FOLDER)
        files.write_at(descriptor, b"b" * 10, 300)
        files.truncate(descriptor, 400)
        files.begin_job(Trouble(1, errno.EIO))
        with pytest.raises(OSError, match="error"):
            files.fsync(descriptor)
        files.begin_job()
        if seed % 2:
            files.write_at(descriptor, b"c", 310)  # the page is written as a whole by the next fsync, what was dropped with it
            files.fsync(descriptor)
            assert disk.is_durable(FOLDER / "f")
        disk.power_loss(random.Random(seed))
        left = disk.process().read(FOLDER / "f", 0, 1000)
        assert left[:300] == b"a" * 300
        if seed % 2:
            assert left == b"a" * 300 + b"b" * 10 + b"c" + b"a" * 89
        else:
            seen.add((b"b" in left, len(left)))
    assert {length for _, length in seen} >= {400, 600}
    assert {changed for changed, _ in seen} == {False, True}


def test_a_lock_ends_with_its_process() -> None:
    disk, files = new_disk()
    files.lock(files.open(FOLDER / "f", create=True))
    other = disk.process()
    descriptor = other.open(FOLDER / "f")
    with pytest.raises(BlockingIOError):
        other.lock(descriptor)
    files.kill()
    other.lock(descriptor)


def test_only_errors_with_a_reason_are_believed() -> None:
    """A step that was made to fail, a disk that said it is full, damage that is named: not any error of storage."""
    disk, files = new_disk()
    write_checked(FOLDER / "f", FORM, b"content", files)
    files.begin_job(Trouble(1, errno.EIO))
    with pytest.raises(StorageError) as refused:
        file_bytes(FOLDER / "f", files)
    assert has_reason(refused.value, disk)
    with pytest.raises(StorageError) as missing:
        file_bytes(FOLDER / "g", files)
    assert not has_reason(missing.value, disk)
    assert not has_reason(StorageError("the store is closed"), disk)
    full = StorageError("free some space", errno=errno.ENOSPC)
    assert not has_reason(full, disk)
    files.begin_job(Trouble(1, errno.ENOSPC))
    assert not free_bytes(FOLDER, files)
    assert has_reason(full, disk)
    assert not has_reason(full, disk)  # told once


def test_damage_explains_only_what_names_a_file_that_is_damaged_now() -> None:
    disk, files = new_disk()
    make_directory(FOLDER / "leveldb", files)
    write_checked(FOLDER / "leveldb/000001.log", FORM, b"content", files)
    beyond = CorruptionError(f"{FOLDER}/leveldb: holds changes of checkpoint 1.2, but the newest complete one is 1.1")
    database = CorruptionError(f"{FOLDER}/leveldb: cannot open: the database is damaged")
    other = CorruptionError(f"{FOLDER}/deltas/delta-1: this delta is missing, and it is needed")
    assert not has_reason(database, disk)
    assert disk.flip(random.Random(1)) == FOLDER / "leveldb/000001.log"
    assert has_reason(database, disk)
    assert not has_reason(other, disk)
    assert not has_reason(beyond, disk)
    files.unlink(FOLDER / "leveldb/000001.log")
    assert not has_reason(database, disk)


@pytest.mark.parametrize("seed", range(30))
def test_no_incarnation_comes_twice_and_no_complete_checkpoint_is_forgotten(seed: int) -> None:
    """The supervisor's real files, with deaths and power cuts in the middle of writing them."""
    chance = random.Random(seed)
    disk = FileSupervisorDisk()
    complete = 0
    for _ in range(30):
        disk.begin(None)
        newest = disk.newest()
        assert (newest.checkpoint if newest else 0) >= complete
        complete = newest.checkpoint if newest else 0
        incarnation = disk.raise_incarnation()
        manifest = StoredManifest(incarnation << 32, complete, [b"x"], end=False)
        match chance.randrange(3):
            case 0:
                disk.make_durable(manifest)
                complete = manifest.checkpoint
            case 1:
                disk.die_in(manifest, chance)
            case _:
                disk.die_in(None, chance)
        if chance.random() < 0.5:
            disk.power_loss(chance)


def test_a_log_that_is_cut_loses_its_end_and_one_with_a_flipped_bit_says_so() -> None:
    chance = random.Random(3)
    writer = LogWriter()
    records = [chance.randbytes(chance.randrange(1, 900)) for _ in range(30)]
    encoded = [writer.encode(record) for record in records]
    raw = b"".join(encoded)
    assert read_log(raw) == (records, False)
    for cut in range(0, len(raw), 97):
        found, _ = read_log(raw[:cut])
        assert found == records[: len(found)]
    for place in range(0, len(raw) - BLOCK_BYTES, 89):
        flipped = bytearray(raw)
        flipped[place] ^= 4
        found, damaged = read_log(bytes(flipped))
        assert damaged or found == records


ON_FILES = [seed for seed in range(1, 80) if draw(seed).files]


@pytest.mark.parametrize("seed", [seed for seed in ON_FILES if not draw(seed).rates.flip][:1])
def test_a_world_on_a_simulated_disk_loses_nothing(seed: int) -> None:
    """Real stores and manifests, under power cuts and failing steps."""
    outcome = run_seed(seed, Plan())
    assert (outcome.kind, outcome.what) == ("ok", "")
    assert outcome.figures["refusals"] == 0


@pytest.mark.parametrize("seed", [seed for seed in ON_FILES if draw(seed).rates.flip][:2])
def test_flipped_bits_do_not_matter_or_the_start_is_refused(seed: int) -> None:
    outcome = run_seed(seed, Plan())
    assert (outcome.kind, outcome.what) == ("ok", "")
    assert outcome.figures["refusals"] <= outcome.figures["bit_flips"]
