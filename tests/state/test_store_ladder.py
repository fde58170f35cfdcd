"""The ladder with real files: what damage is repaired, what is refused, and that nothing wrong is ever returned."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import plyvel
import pytest

from shardfun.errors import CorruptionError, StorageError
from shardfun.model.delta import DeltaHeader, RecordBlock, checkpoint_id
from shardfun.state.options import StoreOptions
from shardfun.state.store import LevelDBStore

JOB = "ab" * 16
ROWS = 300


class Life:
    """A store that has made checkpoints; ``flush_deltas`` says after how many a flush comes."""

    def __init__(self, path: Path, flush_deltas: int) -> None:
        self.path = path
        self.options = StoreOptions(flush_deltas=flush_deltas)
        self.complete: tuple[int, bytes] = (0, b"")
        self.history: list[tuple[int, bytes]] = []
        self.model: dict[bytes, bytes] = {}
        self.store = self.open()
        self.store.recover(0, b"")

    def open(self) -> LevelDBStore:
        return LevelDBStore.open(self.path, job=JOB, shard=0, shards=1, options=self.options)

    def checkpoints(self, number: int) -> None:
        for _ in range(number):
            self.prepare()
            self.store.apply_delta(self.complete[0], self.blocks)
            self.store.maintain()

    def prepare(self) -> None:
        sequence = len(self.history) + 1
        keys = [b"\0\1s%04d" % (i * sequence % 1000) for i in range(ROWS)]
        changes = dict.fromkeys(sorted(set(keys)), b"%d" % sequence * 50)
        self.blocks = [RecordBlock(list(changes), list(changes.values()))]
        checkpoint = checkpoint_id(1, sequence)
        header = DeltaHeader(JOB, 0, 1, (0, 32768), 1, checkpoint, *self.complete)
        summary = self.store.write_delta(header, self.blocks, b"queues %d" % sequence)
        self.complete = checkpoint, summary.digest
        self.history.append(self.complete)
        self.model.update(changes)

    def restart(self) -> None:
        self.store.close()
        self.store = self.open()
        self.store.recover(*self.complete)

    def file(self, suffix: str) -> Path:
        return max(self.path.joinpath("leveldb").glob(f"*{suffix}"), key=lambda path: (path.stat().st_size, path.name))

    def delta(self, sequence: int) -> Path:
        return self.path / "deltas" / f"delta-{checkpoint_id(1, sequence):016x}"

    def check(self) -> None:
        assert dict(self.store.scan()) == self.model
        assert self.store.applied == self.complete[0]


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    made = Life(tmp_path, flush_deltas=4)
    made.checkpoints(6)  # 1-4 are flushed into tables, 5 and 6 are in LevelDB's log
    yield made
    made.store.close()


def flip(path: Path, position: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[position] ^= 0x40
    path.write_bytes(raw)


def cut(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])


def test_the_premise_a_flush_at_four_and_a_log_behind_it(life: Life) -> None:
    assert life.file(".ldb").stat().st_size > 1000
    assert life.file(".log").stat().st_size > ROWS * 50
    assert [life.delta(sequence).exists() for sequence in range(1, 7)] == [False] * 4 + [True] * 2


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_flipped_byte_in_the_log_is_repaired_from_the_deltas(life: Life, share: float) -> None:
    life.store.close()
    log = life.file(".log")
    flip(log, int(log.stat().st_size * share))
    with pytest.raises(plyvel.CorruptionError):
        plyvel.DB(str(life.path / "leveldb"), paranoid_checks=True)
    life.restart()
    life.check()
    life.checkpoints(3)
    life.restart()
    life.check()


def test_zeros_in_the_middle_of_the_log_as_after_a_power_cut(life: Life) -> None:
    life.store.close()
    log = life.file(".log")
    raw = bytearray(log.read_bytes())
    raw[4096:12288] = bytes(8192)
    log.write_bytes(raw)
    life.restart()
    life.check()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.999])
def test_a_torn_log_is_redone(life: Life, share: float) -> None:
    life.store.close()
    log = life.file(".log")
    cut(log, int(log.stat().st_size * share))
    life.restart()
    life.check()


def test_a_lost_log_is_redone(life: Life) -> None:
    life.store.close()
    life.file(".log").unlink()
    life.restart()
    life.check()


def test_a_damaged_log_with_a_gap_in_the_deltas_is_refused(life: Life) -> None:
    life.store.close()
    flip(life.file(".log"), 100)
    life.delta(5).unlink()
    with pytest.raises(CorruptionError, match=r"cannot be repaired.*delta-0000000100000005") as caught:
        life.restart()
    assert str(life.path / "leveldb") in str(caught.value)


def test_a_damaged_log_and_a_damaged_delta_are_refused_and_the_files_stay_as_they_are(life: Life) -> None:
    life.store.close()
    flip(life.file(".log"), 100)
    flip(life.delta(5), 200)
    before = {path: path.read_bytes() for path in life.path.rglob("*") if path.is_file() and not path.name.startswith("LOG")}
    for _ in range(2):
        with pytest.raises(CorruptionError, match="cannot be repaired"):
            life.restart()
    life.store.close()
    after = {path: path.read_bytes() for path in before}
    assert before == after


def test_a_delta_of_another_history_does_not_repair(life: Life) -> None:
    """Same id and parent, other digest: only the hash tells the aborted from the committed one."""
    life.store.close()
    other = Life(life.path.parent / "other", flush_deltas=4)
    other.checkpoints(4)
    other.blocks = []
    header = DeltaHeader(JOB, 0, 1, (0, 32768), 1, checkpoint_id(1, 5), *other.complete)
    other.store.write_delta(header, [], b"")
    other.store.close()
    shutil.copy(other.delta(5), life.delta(5))
    flip(life.file(".log"), 100)
    with pytest.raises(CorruptionError, match="digest"):
        life.restart()


def random_life(path: Path) -> Life:
    """Values that do not compress: a flipped byte of a compressed block would be found by the decompression."""
    life = Life(path, flush_deltas=1)
    keys = [b"\0\1s%04d" % i for i in range(ROWS)]
    life.model = dict(zip(keys, map(os.urandom, [500] * ROWS), strict=True))
    header = DeltaHeader(JOB, 0, 1, (0, 32768), 1, checkpoint_id(1, 1), 0, b"")
    blocks = [RecordBlock(keys, list(life.model.values()))]
    life.complete = header.checkpoint, life.store.write_delta(header, blocks, b"").digest
    life.store.apply_delta(header.checkpoint, blocks)
    life.store.maintain()
    return life


@pytest.mark.parametrize("reading", ["get", "scan"])
def test_a_flipped_byte_in_a_table_is_never_returned(tmp_path: Path, reading: str) -> None:
    life = random_life(tmp_path)
    life.store.close()
    flip(life.file(".ldb"), 20_000)
    with plyvel.DB(str(tmp_path / "leveldb"), paranoid_checks=True) as careless:
        assert sum(careless.get(key) != value for key, value in life.model.items()) == 1
    life.restart()
    with pytest.raises(CorruptionError, match="leveldb"):
        if reading == "get":
            for key in life.model:
                life.store.get(key)
        else:
            list(life.store.scan())
    life.store.close()


@pytest.mark.parametrize("how", ["cut", "gone", "tail"])
def test_a_torn_or_missing_table_is_refused(life: Life, how: str) -> None:
    life.store.close()
    table = life.file(".ldb")
    match how:
        case "cut":
            cut(table, 700)
        case "gone":
            table.unlink()
        case _:
            flip(table, -3)
    with pytest.raises(CorruptionError, match="leveldb"):
        life.restart()
        life.check()


@pytest.mark.parametrize("how", ["flip", "gone", "current gone", "current torn", "everything gone"])
def test_damage_of_leveldbs_own_bookkeeping_is_refused(life: Life, how: str) -> None:
    life.store.close()
    manifest = next(life.path.joinpath("leveldb").glob("MANIFEST-*"))
    match how:
        case "flip":
            flip(manifest, 30)
        case "gone":
            manifest.unlink()
        case "current gone":
            (life.path / "leveldb" / "CURRENT").unlink()
        case "current torn":
            cut(life.path / "leveldb" / "CURRENT", 4)
        case _:
            shutil.rmtree(life.path / "leveldb")
    for _ in range(2):
        with pytest.raises(CorruptionError, match="leveldb"):
            life.restart()


def test_a_rebuilt_database_takes_nothing_from_stray_files_of_the_lost_one(tmp_path: Path) -> None:
    life = Life(tmp_path, flush_deltas=100)
    life.checkpoints(2)
    life.store.close()
    with plyvel.DB(str(tmp_path / "leveldb")) as raw:
        raw.put(b"\0\1stray", b"")
    (tmp_path / "leveldb" / "CURRENT").unlink()
    life.restart()
    life.check()
    life.store.close()


@pytest.mark.parametrize("how", ["deleted", "current gone"])
def test_a_lost_database_is_rebuilt_if_the_deltas_reach_back_to_the_beginning(tmp_path: Path, how: str) -> None:
    life = Life(tmp_path, flush_deltas=100)
    life.checkpoints(5)
    life.store.close()
    if how == "deleted":
        shutil.rmtree(tmp_path / "leveldb")
    else:
        (tmp_path / "leveldb" / "CURRENT").unlink()
    life.restart()
    life.check()
    life.store.close()


def test_an_older_copy_of_the_database_is_refused(life: Life) -> None:
    life.store.close()
    shutil.rmtree(life.path / "leveldb")
    Life(life.path.parent / "young", flush_deltas=4).store.close()
    shutil.copytree(life.path.parent / "young" / "leveldb", life.path / "leveldb")
    with pytest.raises(CorruptionError, match="which was flushed"):
        life.restart()


def test_a_damaged_flushed_mark_is_refused(life: Life) -> None:
    life.store.close()
    flip(life.path / "flushed", 20)
    with pytest.raises(CorruptionError, match="flushed"):
        life.restart()


def test_the_newest_delta_damaged_is_refused_though_it_is_applied(life: Life) -> None:
    """It holds the queues."""
    life.store.close()
    flip(life.delta(6), 300)
    with pytest.raises(CorruptionError, match="delta-0000000100000006"):
        life.restart()


def test_half_written_deltas_are_removed(life: Life) -> None:
    stray = life.delta(7).with_suffix(".tmp")
    stray.write_bytes(b"half")
    life.restart()
    assert not stray.exists()
    life.check()


def test_another_process_or_store_holds_the_lock(life: Life) -> None:
    with pytest.raises(StorageError, match="another process") as caught:
        life.open()
    assert not isinstance(caught.value, CorruptionError)
    life.check()


def test_a_part_of_a_newer_checkpoint_is_found_when_going_back(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only with --accept-loss can the manifest be older than what was being applied; there is no undo, so it is refused."""
    monkeypatch.setattr("shardfun.state.leveldb.FILL_RECORDS", 50)
    monkeypatch.setattr("shardfun.state.leveldb.CHUNK_RECORDS", 100)
    older = life.complete
    life.prepare()

    def die() -> Iterator[RecordBlock]:
        keys, values = life.blocks[0]
        yield RecordBlock(keys[:150], values[:150])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        life.store.apply_delta(life.complete[0], die())  # type: ignore[arg-type]
    life.store.close()
    life.store = life.open()
    with pytest.raises(CorruptionError, match="newest complete one"):
        life.store.recover(*older)
    life.store.recover(*life.complete)
    life.check()


def test_scans_end_when_the_store_is_opened_again(life: Life) -> None:
    scan = life.store.scan()
    next(scan)
    life.store.close()
    with pytest.raises(StorageError, match="scan again"):
        list(scan)
