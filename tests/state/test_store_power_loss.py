"""Power cuts on the simulated disk: what the store holds afterwards is what it held, or it says that it cannot."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

import pytest

from shardfun.errors import CorruptionError
from shardfun.model.delta import DeltaHeader, RecordBlock, checkpoint_id
from shardfun.simulation.engine import simulated_leveldb
from shardfun.simulation.engine_log import BLOCK_BYTES
from shardfun.simulation.files import ProcessDeath, ProcessFiles, SimulatedDisk
from shardfun.simulation.inodes import Inode
from shardfun.state.options import StoreOptions
from shardfun.state.store import LevelDBStore

JOB = "ab" * 16
FOLDER = Path("/data/shard-0")


def open_store(disk: SimulatedDisk, files: ProcessFiles | None = None) -> LevelDBStore:
    files = disk.process() if files is None else files
    options = StoreOptions(flush_deltas=5, write_buffer_bytes=1 << 20)
    return LevelDBStore.open(FOLDER, job=JOB, shard=0, shards=1, options=options, disk=files, engine=simulated_leveldb(files))


def checkpoint(store: LevelDBStore, sequence: int, parent: tuple[int, bytes], values: dict[bytes, bytes]) -> tuple[int, bytes]:
    """Write and apply one; its id and digest."""
    blocks = [RecordBlock(sorted(values), [values[key] for key in sorted(values)])]
    header = DeltaHeader(JOB, 0, 1, (0, 32768), 1, checkpoint_id(1, sequence), *parent)
    summary = store.write_delta(header, blocks, b"queues")
    store.apply_delta(header.checkpoint, blocks)
    store.maintain()
    return header.checkpoint, summary.digest


def four_checkpoints(disk: SimulatedDisk) -> tuple[tuple[int, bytes], dict[bytes, bytes]]:
    """The newest, and what the store holds. None is flushed."""
    return history_of_four(disk)[-1]


def history_of_four(disk: SimulatedDisk) -> list[tuple[tuple[int, bytes], dict[bytes, bytes]]]:
    """Each checkpoint, and what the store holds then."""
    store = open_store(disk)
    store.recover(0, b"")
    newest: tuple[int, bytes] = (0, b"")
    model: dict[bytes, bytes] = {}
    history = []
    for sequence in range(1, 5):
        values = {b"\0\1s%d" % sequence: bytes([sequence]) * (BLOCK_BYTES - 160)}  # a block of the log for each
        newest = checkpoint(store, sequence, newest, values)
        model |= values
        history.append((newest, model.copy()))
    return history


def log_of(disk: SimulatedDisk) -> Inode:
    """LevelDB's log."""
    (log,) = [path for path in disk.process().names(FOLDER / "leveldb") if path.endswith(".log")]
    node = disk.find(FOLDER / "leveldb" / log)
    assert isinstance(node, Inode)
    return node


@pytest.mark.parametrize("seed", range(40))
def test_after_any_power_cut_the_newest_checkpoint_is_there(seed: int) -> None:
    """Whatever of the unsynced things is kept, applied checkpoints are made whole from the deltas."""
    chance = random.Random(seed)
    disk = SimulatedDisk()
    store = open_store(disk)
    store.recover(0, b"")
    model: dict[bytes, bytes] = {}
    newest: tuple[int, bytes] = (0, b"")
    for sequence in range(1, 25):
        values = {b"\0\1s%02d" % chance.randrange(30): b"%d" % sequence * chance.randrange(1, 60) for _ in range(5)}
        newest = checkpoint(store, sequence, newest, values)
        model |= values
        if chance.random() < 0.4:
            disk.power_loss(chance)
            store = open_store(disk)
            store.recover(*newest)
            assert dict(store.scan()) == model


def test_a_page_that_is_missing_in_the_middle_of_the_log_loses_nothing() -> None:
    """LevelDB skips it in silence and keeps what comes behind it, the mark ``applied`` included."""
    disk = SimulatedDisk()
    newest, model = four_checkpoints(disk)
    log_of(disk).data[BLOCK_BYTES : 2 * BLOCK_BYTES] = bytes(BLOCK_BYTES)
    disk.boots += 1
    store = open_store(disk)
    assert store.applied == newest[0]  # as if nothing were missing
    store.recover(*newest)
    assert dict(store.scan()) == model


@pytest.mark.parametrize("power", [False, True], ids=["", "power"])
@pytest.mark.parametrize("step", range(20, 155, 2))
def test_a_repair_that_dies_is_done_again(step: int, power: bool) -> None:  # noqa: FBT001
    """The damaged log is gone as soon as LevelDB has opened without its checks: what it held must come from the deltas then, too."""
    disk = SimulatedDisk()
    newest, model = four_checkpoints(disk)
    log_of(disk).data[BLOCK_BYTES + 50] ^= 1
    files = disk.process()
    files.begin_job(dies_at=step)
    with suppress(ProcessDeath):
        store = open_store(disk, files)
        store.recover(*newest)
    if power:
        disk.power_loss(random.Random(step))
    store = open_store(disk)
    store.recover(*newest)
    assert dict(store.scan()) == model


@pytest.mark.parametrize("damaged", [False, True], ids=["", "damaged"])
@pytest.mark.parametrize("step", range(1, 160, 3))
def test_a_redo_that_dies_does_not_hide_what_is_newer(step: int, damaged: bool) -> None:  # noqa: FBT001
    """Whoever goes back to a checkpoint in between afterwards gets that one, or is refused; whoever does not gets the newest."""
    disk = SimulatedDisk()
    history = history_of_four(disk)
    newest, model = history[-1]
    disk.boots += 1
    if damaged:
        log_of(disk).data[3 * BLOCK_BYTES + 50] ^= 1
    for dies_at in (step, step):  # the second one finds what the first one left
        files = disk.process()
        files.begin_job(dies_at=dies_at)
        with suppress(ProcessDeath):
            open_store(disk, files).recover(*newest)
    between, then = history[1]
    store = open_store(disk)
    refusal = ""
    try:
        store.recover(*between)
    except CorruptionError as error:
        refusal = str(error)
    if refusal:
        assert "holds changes of checkpoint" in refusal
        store = open_store(disk)
        store.recover(*newest)
        then = model
    assert dict(store.scan()) == then


def test_the_same_boot_applies_nothing_again() -> None:
    """A process that dies leaves what it wrote; a recovery then has nothing to do."""
    disk = SimulatedDisk()
    store = open_store(disk)
    store.recover(0, b"")
    newest = checkpoint(store, 1, (0, b""), {b"\0\1sa": b"1"})
    node = disk.find(FOLDER / "leveldb")
    assert node is not None
    store = open_store(disk)
    applied: list[int] = []
    original = store._apply
    store._apply = lambda header, *rest: (applied.append(header.checkpoint), original(header, *rest))[1]  # type: ignore[method-assign]
    store.recover(*newest)
    assert applied == []
