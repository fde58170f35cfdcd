"""What the store relies on in a key-value database, run against LevelDB and against the simulator's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfun.errors import CorruptionError, StorageError
from shardfun.model.delta import RecordBlock
from shardfun.simulation.engine import simulated_leveldb
from shardfun.simulation.files import SimulatedDisk
from shardfun.state.files import make_directory
from shardfun.state.filesystem import REAL_FILES, FileSystem
from shardfun.state.leveldb import LEVELDB, Database, OpenEngine
from shardfun.state.options import StoreOptions

NOTHING = RecordBlock([], [])
OPTIONS = StoreOptions(write_buffer_bytes=1 << 20)


class Place:
    """Where databases are, and how to open them."""

    def __init__(self, files: FileSystem, folder: Path, engine: OpenEngine) -> None:
        self.files = files
        self.folder = folder
        self.engine = engine

    def open(self, *, paranoid: bool = True) -> Database:
        database = Database(self.folder, OPTIONS, self.files, self.engine)
        database.open(paranoid=paranoid)
        return database

    def replace(self, path: Path, content: bytes) -> None:
        """What is stored becomes something else."""
        self.files.unlink(path)
        descriptor = self.files.create(path)
        done = 0
        while done < len(content):
            done += self.files.write(descriptor, content[done:])
        self.files.close(descriptor)

    def damage(self, suffix: str) -> None:
        """Flip a bit in the middle of each file of a kind that is not empty."""
        for name in self.files.names(self.folder):
            path = self.folder / name
            if name.endswith(suffix) and (size := self.files.size(path)):
                content = bytearray(self.files.read(path, 0, size))
                content[size // 2] ^= 1
                self.replace(path, bytes(content))


@pytest.fixture(params=["leveldb", "simulated"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "leveldb":
        folder = tmp_path / "db"
        folder.mkdir()
        yield Place(REAL_FILES, folder, LEVELDB)
    else:
        files = SimulatedDisk().process()
        make_directory(Path("/db"), files)
        yield Place(files, Path("/db"), simulated_leveldb(files))


def put(database: Database, pairs: dict[bytes, bytes | None]) -> None:
    keys = sorted(pairs)
    database.write([RecordBlock(keys, [pairs[key] for key in keys])], each=NOTHING, last=NOTHING)


def content(database: Database) -> dict[bytes, bytes]:
    return dict(database.scan(b"", b"\xff"))


def test_pairs_are_found_and_deleted_ones_are_not(place: Place) -> None:
    database = place.open()
    put(database, {b"a": b"1", b"b": b"", b"c": b"3"})
    put(database, {b"a": None, b"c": b"4", b"d": None})
    assert [database.get(key) for key in (b"a", b"b", b"c", b"d")] == [None, b"", b"4", None]
    assert content(database) == {b"b": b"", b"c": b"4"}
    database.close()


def test_a_scan_has_bounds_and_order_and_is_of_its_moment(place: Place) -> None:
    database = place.open()
    put(database, {b"%02d" % number: b"old" for number in range(20)})
    scan = database.scan(b"05", b"15")
    put(database, {b"10": None, b"11": b"new"})
    assert list(scan) == [(b"%02d" % number, b"old") for number in range(5, 15)]
    seek = database.seeker(b"15")
    assert [seek(key) for key in (b"", b"095", b"10", b"14", b"145", b"2")] == [b"00", b"11", b"11", b"14", None, None]
    database.close()


def test_what_was_written_is_there_after_opening_again_and_after_a_flush(place: Place) -> None:
    database = place.open()
    model: dict[bytes, bytes] = {}
    chance = random.Random(5)
    for _ in range(12):
        pairs = {b"%03d" % chance.randrange(300): chance.choice([None, bytes(200)]) for _ in range(40)}
        put(database, pairs)
        for key, value in pairs.items():
            if value is None:
                model.pop(key, None)
            else:
                model[key] = value
        if chance.random() < 0.4:
            database.flush(b"\xffwitness")
        if chance.random() < 0.4:
            database.open(paranoid=True)
        assert content(database) == model
    database.close()


def test_a_torn_end_of_the_log_takes_only_the_last_batch(place: Place) -> None:
    database = place.open()
    for number in range(3):
        put(database, {b"%d" % number: bytes(50)})
    database.close()
    (log,) = [name for name in place.files.names(place.folder) if name.endswith(".log")]
    size = place.files.size(place.folder / log)
    place.replace(place.folder / log, place.files.read(place.folder / log, 0, size - 5))
    database = place.open()
    assert sorted(content(database)) == [b"0", b"1"]
    database.close()


def test_damage_in_the_log_stops_a_checked_opening_and_not_an_unchecked_one(place: Place) -> None:
    database = place.open()
    for number in range(9):
        put(database, {b"%d" % number: bytes(50)})
    database.close()
    place.damage(".log")
    with pytest.raises(CorruptionError, match="damaged"):
        place.open()
    database = place.open(paranoid=False)
    assert b"0" in content(database)
    assert len(content(database)) < 9
    database.close()


def test_damage_in_a_table_is_found_when_it_is_read(place: Place) -> None:
    database = place.open()
    put(database, {b"%02d" % number: b"value" for number in range(10)})
    database.flush(b"\xffwitness")
    database.close()
    place.damage(".ldb")
    with pytest.raises(CorruptionError):  # LevelDB looks at a small table when it opens, or when it reads
        content(place.open())


@pytest.mark.parametrize("name", [".ldb", "MANIFEST"])
def test_a_missing_file_is_damage(place: Place, name: str) -> None:
    database = place.open()
    put(database, {b"a": b"1"})
    database.flush(b"\xffwitness")
    database.close()
    for found in place.files.names(place.folder):
        if name in found:
            place.files.unlink(place.folder / found)
    with pytest.raises(CorruptionError):
        content(place.open())


def test_a_page_that_was_never_written_may_take_batches_out_of_the_middle_unseen(place: Place) -> None:
    """Why a store that may have lost power does not trust what LevelDB holds: the checked opening says nothing."""
    database = place.open()
    block = 512 if place.engine is not LEVELDB else 32 << 10
    lost = _fill_blocks(place, database, block, 3)
    database.close()
    (log,) = [name for name in place.files.names(place.folder) if name.endswith(".log")]
    raw = bytearray(place.files.read(place.folder / log, 0, 1 << 30))
    raw[block : 2 * block] = bytes(block)
    place.replace(place.folder / log, bytes(raw))
    database = place.open()
    assert sorted(content(database)) == [b"0", b"2"] != lost
    database.close()


def _fill_blocks(place: Place, database: Database, block: int, count: int) -> list[bytes]:
    """Batches that fill a block of the log each."""
    (log,) = [place.folder / name for name in place.files.names(place.folder) if name.endswith(".log")]
    put(database, {b"0": bytes(100)})
    frame = place.files.size(log) - 100
    while True:  # lengths take more bytes when they are larger
        database.close()
        place.files.remove_tree(place.folder)
        make_directory(place.folder, place.files)
        database.open(paranoid=True)
        (log,) = [place.folder / name for name in place.files.names(place.folder) if name.endswith(".log")]
        put(database, {b"0": bytes(block - frame)})
        if place.files.size(log) == block:
            break
        frame += place.files.size(log) - block
    for number in range(1, count):
        put(database, {b"%d" % number: bytes(block - frame)})
    assert place.files.size(log) == count * block
    return [b"%d" % number for number in range(count)]


def test_a_closed_database_says_so(place: Place) -> None:
    database = place.open()
    database.close()
    database.close()
    with pytest.raises(StorageError, match="closed"):
        database.get(b"a")
