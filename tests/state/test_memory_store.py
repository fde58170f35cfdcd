"""The in-memory store loses exactly what a disk may lose, and never what it may not."""

from __future__ import annotations

import errno
import random

import pytest

from shardfun.errors import CorruptionError, StorageError
from shardfun.model.delta import DeltaHeader, RecordBlock, checkpoint_id
from shardfun.state.memory import MemoryStore
from shardfun.state.options import StoreOptions

JOB = "ab" * 16


class Shard:
    def __init__(self, *, keep_objects: bool) -> None:
        self.store = MemoryStore(job=JOB, shard=0, shards=1, options=StoreOptions(flush_deltas=4), keep_objects=keep_objects)
        self.complete: tuple[int, bytes] = (0, b"")
        self.sequence = 0

    def write(self, value: bytes) -> tuple[tuple[int, bytes], list[RecordBlock]]:
        self.sequence += 1
        blocks = [RecordBlock([b"\0\1a", b"\0\1b"], [value, value])]
        header = DeltaHeader(JOB, 0, 1, (0, 1), 1, checkpoint_id(1, self.sequence), *self.complete)
        summary = self.store.write_delta(header, blocks, value)
        return (header.checkpoint, summary.digest), blocks

    def checkpoint(self, value: bytes) -> None:
        self.complete, blocks = self.write(value)
        self.store.apply_delta(self.complete[0], blocks)
        self.store.maintain()


@pytest.fixture(params=[False, True])
def shard(request: pytest.FixtureRequest) -> Shard:
    return Shard(keep_objects=request.param)


def test_a_power_loss_loses_applied_changes_and_recovery_redoes_them(shard: Shard) -> None:
    chance = random.Random(7)
    lost = 0
    for number in range(60):
        value = b"%d" % number
        shard.checkpoint(value)
        before = shard.store.applied
        if number % 3 == 0:
            shard.store.power_loss(chance)
            lost += shard.store.applied < before
            with pytest.raises(StorageError, match="recover first"):
                shard.store.get(b"\0\1a")
            stored = shard.store.recover(*shard.complete)
            assert stored is not None
            assert stored.queues == value
        assert dict(shard.store.scan()) == {b"\0\1a": value, b"\0\1b": value}
    assert lost > 5


def test_a_crash_loses_nothing(shard: Shard) -> None:
    shard.checkpoint(b"1")
    shard.store.crash()
    assert shard.store.applied == shard.complete[0]
    shard.store.recover(*shard.complete)
    assert shard.store.get(b"\0\1a") == b"1"


def test_a_refused_write_leaves_nothing_and_happens_once(shard: Shard) -> None:
    shard.store.fail_next_write = errno.ENOSPC
    with pytest.raises(StorageError, match="No space") as caught:
        shard.write(b"1")
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(CorruptionError, match="missing"):
        shard.store.read_delta(checkpoint_id(1, 1))
    shard.checkpoint(b"2")
    assert shard.store.get(b"\0\1a") == b"2"


def test_a_refused_fsync_of_the_folder_leaves_a_delta_that_a_power_loss_may_take() -> None:
    fates = set()
    for seed in range(10):
        shard = Shard(keep_objects=True)
        shard.store.fail_next_sync = errno.EIO
        with pytest.raises(StorageError):
            shard.write(b"1")
        shard.store.read_delta(checkpoint_id(1, 1))
        shard.store.power_loss(random.Random(seed))
        fates.add(checkpoint_id(1, 1) in shard.store._deltas)
    assert fates == {True, False}


def test_a_deleted_delta_may_be_back_after_a_power_loss() -> None:
    fates = set()
    for seed in range(10):
        shard = Shard(keep_objects=True)
        aborted, _ = shard.write(b"1")
        shard.store.delete_delta(aborted[0])
        shard.store.power_loss(random.Random(seed))
        fates.add(aborted[0] in shard.store._deltas)
        shard.store.recover(0, b"")
        assert aborted[0] not in shard.store._deltas
    assert fates == {True, False}


def test_a_refused_apply_is_done_again(shard: Shard) -> None:
    shard.checkpoint(b"1")
    older = shard.complete
    shard.complete, blocks = shard.write(b"2")
    shard.store.fail_next_apply = errno.ENOSPC
    with pytest.raises(StorageError):
        shard.store.apply_delta(shard.complete[0], blocks)
    assert shard.store.applied == older[0]
    with pytest.raises(CorruptionError, match="newest complete one"):
        shard.store.recover(*older)
    shard.store.apply_delta(shard.complete[0], blocks)
    assert dict(shard.store.scan()) == {b"\0\1a": b"2", b"\0\1b": b"2"}


def test_damage_of_an_encoded_delta_is_found() -> None:
    shard = Shard(keep_objects=False)
    shard.checkpoint(b"1")
    raw = shard.store._deltas[shard.complete[0]]
    assert isinstance(raw, bytes)
    shard.store._deltas[shard.complete[0]] = raw[:-20] + b"x" + raw[-19:]
    with pytest.raises(CorruptionError, match="damaged"):
        shard.store.recover(*shard.complete)


def test_two_runs_of_one_seed_are_equal() -> None:
    def run() -> list[int]:
        shard, chance, seen = Shard(keep_objects=True), random.Random(3), []
        for number in range(20):
            shard.checkpoint(b"%d" % number)
            shard.store.power_loss(chance)
            seen.append(shard.store.applied)
            shard.store.recover(*shard.complete)
        return seen

    assert run() == run()
