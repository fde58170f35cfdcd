"""What every ``StateStore`` promises, run against LevelDB, against the same on a simulated disk, and against the in-memory fake."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shardfun.errors import CorruptionError, LocalProtocolError, StorageError
from shardfun.model.delta import DeltaHeader, DeltaSummary, RecordBlock, checkpoint_id
from shardfun.ports import StateStore
from shardfun.simulation.engine import simulated_leveldb
from shardfun.simulation.files import SimulatedDisk
from shardfun.state.memory import MemoryStore
from shardfun.state.options import StoreOptions
from shardfun.state.store import LevelDBStore

JOB = "ab" * 16
OPTIONS = StoreOptions(flush_deltas=3)


class Rig:
    """A store, how its process ends and starts again, and the checkpoints made so far."""

    def __init__(self, store: Any, restart: Callable[[Any], Any]) -> None:
        self.store: Any = store
        self._restart = restart
        self.complete: tuple[int, bytes] = (0, b"")
        self.model: dict[bytes, bytes] = {}
        self._sequence = 0
        store.recover(0, b"")

    def restart(self) -> None:
        self.store = self._restart(self.store)

    def prepare(self, changes: dict[bytes, bytes | None], queues: bytes = b"") -> tuple[int, list[RecordBlock], DeltaSummary]:
        self._sequence += 1
        checkpoint = checkpoint_id(1, self._sequence)
        keys = sorted(changes)
        blocks = [RecordBlock(keys, [changes[key] for key in keys])]
        header = DeltaHeader(JOB, 1, 4, (8192, 16384), 1, checkpoint, *self.complete)
        return checkpoint, blocks, self.store.write_delta(header, blocks, queues)

    def commit(self, changes: dict[bytes, bytes | None], checkpoint: int, summary: DeltaSummary) -> None:
        """The manifest is durable."""
        self.complete = checkpoint, summary.digest
        for key, value in changes.items():
            if value is None:
                self.model.pop(key, None)
            else:
                self.model[key] = value

    def checkpoint(self, changes: dict[bytes, bytes | None], queues: bytes = b"") -> int:
        checkpoint, blocks, summary = self.prepare(changes, queues)
        self.commit(changes, checkpoint, summary)
        self.store.apply_delta(checkpoint, blocks)
        self.store.maintain()
        return checkpoint

    def content(self) -> dict[bytes, bytes]:
        return dict(self.store.scan())


@pytest.fixture(params=["leveldb", "simulated", "memory", "memory-objects"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "leveldb":

        def start(old: LevelDBStore | None) -> LevelDBStore:
            if old is not None:
                old.close()
            return LevelDBStore.open(tmp_path, job=JOB, shard=1, shards=4, options=OPTIONS)

        made = Rig(start(None), start)
    elif request.param == "simulated":
        disk = SimulatedDisk()

        def begin(old: LevelDBStore | None) -> LevelDBStore:
            if old is not None:
                old.close()
            files = disk.process()
            engine = simulated_leveldb(files)
            return LevelDBStore.open(Path("/s"), job=JOB, shard=1, shards=4, options=OPTIONS, disk=files, engine=engine)

        made = Rig(begin(None), begin)
    else:

        def crash(store: MemoryStore) -> MemoryStore:
            store.crash()
            return store

        store = MemoryStore(job=JOB, shard=1, shards=4, options=OPTIONS, keep_objects=request.param == "memory-objects")
        made = Rig(store, crash)
    yield made
    made.store.close()


def static_check(store: LevelDBStore, fake: MemoryStore) -> tuple[StateStore, StateStore]:
    """For mypy: both are a ``StateStore``."""
    return store, fake


def test_a_new_store_is_empty_at_checkpoint_zero(rig: Rig) -> None:
    assert rig.store.applied == 0
    assert rig.store.get(b"\0\1sx") is None
    assert list(rig.store.scan()) == []


def test_a_delta_is_seen_only_after_it_is_applied(rig: Rig) -> None:
    checkpoint, blocks, summary = rig.prepare({b"\0\1sa": b"1", b"\0\2sb": b""})
    assert summary.records == 2
    assert rig.store.get(b"\0\1sa") is None
    rig.store.apply_delta(checkpoint, blocks)
    assert rig.store.applied == checkpoint
    assert rig.store.get(b"\0\1sa") == b"1"
    assert rig.store.get(b"\0\2sb") == b""


def test_none_deletes(rig: Rig) -> None:
    rig.checkpoint({b"\0\1sa": b"1", b"\0\1sb": b"2"})
    rig.checkpoint({b"\0\1sa": None, b"\0\1sc": None})
    assert rig.content() == {b"\0\1sb": b"2"}


def test_a_delta_is_read_back_as_written(rig: Rig) -> None:
    checkpoint, blocks, summary = rig.prepare({b"\0\1sa": b"1", b"\0\1sb": None}, b"queues")
    stored = rig.store.read_delta(checkpoint)
    assert stored.blocks == blocks
    assert stored.queues == b"queues"
    assert stored.summary == summary
    assert (stored.header.checkpoint, stored.header.parent) == (checkpoint, 0)


def test_scan_is_ordered_bounded_by_the_prefix_and_never_shows_the_stores_own_keys(rig: Rig) -> None:
    rig.checkpoint({b"a\xff": b"1", b"a\xff\xffz": b"2", b"b": b"3", b"\0": b"0", b"i/in": b"4", b"\xfe\xff": b"5"})
    assert [key for key, _ in rig.store.scan()] == [b"\0", b"a\xff", b"a\xff\xffz", b"b", b"i/in", b"\xfe\xff"]
    assert [key for key, _ in rig.store.scan(b"a\xff")] == [b"a\xff", b"a\xff\xffz"]
    assert list(rig.store.scan(b"\xff")) == list(rig.store.scan(b"\xffmeta")) == list(rig.store.scan(b"a\0")) == []


def test_a_scan_is_of_the_moment_it_was_asked_for(rig: Rig) -> None:
    rig.checkpoint({b"\0\1s%03d" % i: b"old" for i in range(600)})
    scan = rig.store.scan()
    rig.checkpoint({b"\0\1s%03d" % i: b"new" if i % 2 else None for i in range(600)})
    assert {value for _, value in scan} == {b"old"}


def test_applying_twice_does_no_harm(rig: Rig) -> None:
    checkpoint, blocks, summary = rig.prepare({b"\0\1sa": b"1"})
    rig.commit({b"\0\1sa": b"1"}, checkpoint, summary)
    rig.store.apply_delta(checkpoint, blocks)
    rig.store.apply_delta(checkpoint, blocks)
    assert rig.content() == rig.model


def test_a_delta_that_does_not_build_on_the_applied_one_is_a_bug(rig: Rig) -> None:
    rig.checkpoint({b"\0\1sa": b"1"})
    rig.complete = 0, b""
    with pytest.raises(LocalProtocolError, match="builds on"):
        rig.prepare({b"\0\1sa": b"2"})


def test_a_delta_of_another_shard_is_a_bug(rig: Rig) -> None:
    header = DeltaHeader(JOB, 2, 4, (0, 1), 1, checkpoint_id(1, 1), 0, b"")
    with pytest.raises(LocalProtocolError, match="expected one of"):
        rig.store.write_delta(header, [], b"")


@pytest.mark.parametrize("keys", [[b"b", b"a"], [b"a", b"a"], [b""], [b"\xffmeta/applied"]])
def test_keys_out_of_order_or_reserved_are_a_bug(rig: Rig, keys: list[bytes]) -> None:
    header = DeltaHeader(JOB, 1, 4, (0, 1), 1, checkpoint_id(1, 1), 0, b"")
    with pytest.raises(LocalProtocolError, match="ascending"):
        rig.store.write_delta(header, [RecordBlock(keys, [b""] * len(keys))], b"")


def test_applying_a_delta_that_is_not_there_is_refused(rig: Rig) -> None:
    with pytest.raises(CorruptionError, match="missing"):
        rig.store.apply_delta(checkpoint_id(1, 9), [])


def test_an_aborted_delta_goes_and_the_next_one_has_the_same_parent(rig: Rig) -> None:
    rig.checkpoint({b"\0\1sa": b"1"})
    aborted, _, _ = rig.prepare({b"\0\1sa": b"2"})
    rig.store.delete_delta(aborted)
    rig.store.delete_delta(aborted)
    rig.checkpoint({b"\0\1sa": b"3"})
    rig.restart()
    rig.store.recover(*rig.complete)
    assert rig.content() == rig.model == {b"\0\1sa": b"3"}


def test_the_applied_delta_cannot_be_aborted(rig: Rig) -> None:
    checkpoint = rig.checkpoint({b"\0\1sa": b"1"})
    with pytest.raises(LocalProtocolError, match="applied"):
        rig.store.delete_delta(checkpoint)


def test_recovery_returns_the_queues_of_the_newest_checkpoint(rig: Rig) -> None:
    for number in range(8):
        checkpoint = rig.checkpoint({b"\0\1s%d" % number: b"x"}, b"queues %d" % number)
        rig.restart()
        stored = rig.store.recover(*rig.complete)
        assert stored.queues == b"queues %d" % number
        assert stored.header.checkpoint == checkpoint == rig.store.applied
        assert rig.content() == rig.model


def test_recovery_of_a_store_in_use_drops_what_is_newer(rig: Rig) -> None:
    rig.checkpoint({b"\0\1sa": b"1"}, b"q")
    undecided, _, _ = rig.prepare({b"\0\1sa": b"2"})
    assert rig.store.recover(*rig.complete).queues == b"q"
    assert rig.content() == rig.model
    with pytest.raises(CorruptionError, match="missing"):
        rig.store.read_delta(undecided)
    rig.checkpoint({b"\0\1sa": b"3"})
    assert rig.content() == rig.model


@pytest.mark.parametrize("dies", [False, True])
def test_a_complete_delta_that_was_not_applied_is_applied_by_recovery(rig: Rig, *, dies: bool) -> None:
    rig.checkpoint({b"\0\1sa": b"1", b"\0\1sb": b"1"})
    changes: dict[bytes, bytes | None] = {b"\0\1sa": None, b"\0\1sc": b"2"}
    checkpoint, _, summary = rig.prepare(changes)
    rig.commit(changes, checkpoint, summary)
    if dies:
        rig.restart()
    rig.store.recover(*rig.complete)
    assert rig.store.applied == checkpoint
    assert rig.content() == rig.model


def test_the_first_recovery_to_zero_deletes_strays(rig: Rig) -> None:
    stray, _, _ = rig.prepare({b"\0\1sa": b"1"})
    rig.restart()
    assert rig.store.recover(0, b"") is None
    with pytest.raises(CorruptionError):
        rig.store.read_delta(stray)
    assert rig.content() == {}


def test_applied_beyond_the_newest_complete_checkpoint_is_refused_and_nothing_is_deleted(rig: Rig) -> None:
    rig.checkpoint({b"\0\1sa": b"1"})
    older = rig.complete
    newer = rig.checkpoint({b"\0\1sa": b"2"})
    rig.restart()
    with pytest.raises(CorruptionError, match="newest complete one"):
        rig.store.recover(*older)
    with pytest.raises(CorruptionError, match="newest complete one"):
        rig.store.recover(0, b"")
    rig.store.read_delta(newer)
    rig.store.recover(*rig.complete)
    assert rig.content() == rig.model


def test_another_digest_than_the_manifests_is_refused(rig: Rig) -> None:
    checkpoint = rig.checkpoint({b"\0\1sa": b"1"})
    rig.restart()
    with pytest.raises(CorruptionError, match="digest"):
        rig.store.recover(checkpoint, bytes(16))


def test_a_missing_newest_delta_is_refused(rig: Rig) -> None:
    rig.checkpoint({b"\0\1sa": b"1"})
    rig.restart()
    with pytest.raises(CorruptionError, match="missing"):
        rig.store.recover(checkpoint_id(1, 77), bytes(16))


def test_deltas_stay_until_a_flush_covers_them_and_the_newest_always(rig: Rig) -> None:
    made: list[int] = []
    for number in range(7):
        made.append(rig.checkpoint({b"\0\1sa": b"%d" % number}))
        rig.store.read_delta(made[-1])
    kept = []
    for checkpoint in made:
        try:
            rig.store.read_delta(checkpoint)
        except CorruptionError:
            continue
        kept.append(checkpoint)
    assert kept == made[6:]  # 1-6 are flushed


def test_restarts_do_not_put_the_flush_off_for_ever(rig: Rig) -> None:
    first = rig.checkpoint({b"\0\1sa": b"0"})
    for number in range(4):
        rig.restart()
        rig.store.recover(*rig.complete)
        rig.checkpoint({b"\0\1sa": b"%d" % number})
    with pytest.raises(CorruptionError, match="missing"):
        rig.store.read_delta(first)


def test_a_closed_store_says_so(rig: Rig) -> None:
    rig.checkpoint({b"\0\1sa": b"1"})
    rig.store.close()
    rig.store.close()
    with pytest.raises(StorageError, match="closed"):
        rig.store.get(b"\0\1sa")
    with pytest.raises(StorageError, match="closed"):
        list(rig.store.scan())
    with pytest.raises(StorageError, match="closed"):
        rig.prepare({})


def test_many_records_in_many_blocks(rig: Rig) -> None:
    changes: dict[bytes, bytes | None] = {b"%05d" % i: b"v%d" % i for i in range(9000)}
    checkpoint, blocks, summary = rig.prepare(changes)
    assert summary.records == 9000
    rig.commit(changes, checkpoint, summary)
    rig.store.apply_delta(checkpoint, blocks)
    assert rig.content() == rig.model
    rig.restart()
    rig.store.recover(*rig.complete)
    assert rig.content() == rig.model


@pytest.mark.parametrize("seed", range(3))
def test_random_life(rig: Rig, seed: int) -> None:
    """Checkpoints, aborts, deaths before and after the commit; the store always is the model of the complete ones."""
    chance = random.Random(seed)
    for number in range(40):
        changes: dict[bytes, bytes | None] = {
            bytes([0, chance.randrange(9), 0x73]): chance.choice([None, b"%d" % number]) for _ in range(chance.randrange(6))
        }
        checkpoint, blocks, summary = rig.prepare(changes, b"%d" % number)
        fate = chance.randrange(5)
        if fate == 0:
            rig.store.delete_delta(checkpoint)
        elif fate == 1:
            rig.restart()
            rig.store.recover(*rig.complete)
        elif fate == 2:
            rig.commit(changes, checkpoint, summary)
            rig.restart()
            assert rig.store.recover(*rig.complete).queues == b"%d" % number
        else:
            rig.commit(changes, checkpoint, summary)
            rig.store.apply_delta(checkpoint, blocks)
            rig.store.maintain()
        assert rig.content() == rig.model
        assert rig.store.applied == rig.complete[0]
