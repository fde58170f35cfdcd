"""A disk that refuses: the checkpoint fails, reads go on, and when there is space again nothing is missing."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from shardfun.errors import StorageError
from shardfun.model.delta import DeltaHeader, RecordBlock, checkpoint_id
from shardfun.state.options import StoreOptions
from shardfun.state.store import LevelDBStore

JOB = "ab" * 16


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """A real refusal by the operating system (EFBIG), which LevelDB's own writes meet, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LevelDBStore]:
    made = LevelDBStore.open(tmp_path, job=JOB, shard=0, shards=1, options=StoreOptions(flush_deltas=2))
    made.recover(0, b"")
    yield made
    made.close()


def blocks_of(value: bytes, count: int = 5000) -> list[RecordBlock]:
    return [RecordBlock([b"\0\1s%05d" % i for i in range(count)], [value + os.urandom(20) for _ in range(count)])]


def header(sequence: int, parent: tuple[int, bytes] = (0, b"")) -> DeltaHeader:
    return DeltaHeader(JOB, 0, 1, (0, 32768), 1, checkpoint_id(1, sequence), *parent)


def content(blocks: list[RecordBlock]) -> dict[bytes, bytes | None]:
    return dict(zip(blocks[0].keys, blocks[0].values, strict=True))


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_delta_that_finds_the_disk_full_leaves_nothing(
    store: LevelDBStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(StorageError, match="disk is full") as caught:
            store.write_delta(header(1), blocks_of(b"1"), b"")
    assert caught.value.errno == errno.ENOSPC
    assert list((tmp_path / "deltas").iterdir()) == []
    blocks = blocks_of(b"1")
    store.write_delta(header(2), blocks, b"")
    store.apply_delta(checkpoint_id(1, 2), blocks)
    assert dict(store.scan()) == content(blocks)


def test_an_apply_that_is_refused_is_done_again(store: LevelDBStore) -> None:
    first, second = blocks_of(b"1"), blocks_of(b"2")
    one = store.write_delta(header(1), first, b"")
    store.apply_delta(checkpoint_id(1, 1), first)
    two = store.write_delta(header(2, (checkpoint_id(1, 1), one.digest)), second, b"q")
    for limit in (250_000, 100_000):  # refuses first the log, then the table that opening again makes of the log
        with file_size_limit(limit), pytest.raises(StorageError) as caught:
            store.apply_delta(checkpoint_id(1, 2), second)
        assert caught.value.errno == errno.EFBIG
        assert store.applied <= checkpoint_id(1, 1)
    with pytest.raises(StorageError, match="not yet recovered"):  # never something older than the applied checkpoint
        store.get(b"\0\1s00000")
    store.apply_delta(checkpoint_id(1, 2), second)
    assert store.applied == checkpoint_id(1, 2)
    assert dict(store.scan()) == content(second)
    store.maintain()
    stored = store.recover(checkpoint_id(1, 2), two.digest)
    assert stored is not None
    assert stored.queues == b"q"


def test_reads_go_on_after_a_refused_apply(store: LevelDBStore) -> None:
    first, second = blocks_of(b"1"), [RecordBlock([b"\0\2s"], [bytes(400_000)])]
    one = store.write_delta(header(1), first, b"")
    store.apply_delta(checkpoint_id(1, 1), first)
    store.write_delta(header(2, (checkpoint_id(1, 1), one.digest)), second, b"")
    with file_size_limit(300_000):
        with pytest.raises(StorageError, match="File too large") as caught:
            store.apply_delta(checkpoint_id(1, 2), second)
        assert caught.value.errno == errno.EFBIG
        assert dict(store.scan()) == content(first)
    store.apply_delta(checkpoint_id(1, 2), second)
    assert dict(store.scan()) == {**content(first), b"\0\2s": bytes(400_000)}


def test_without_space_to_open_again_reads_are_kept(store: LevelDBStore, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = blocks_of(b"1"), [RecordBlock([b"\0\2s"], [bytes(400_000)])]
    one = store.write_delta(header(1), first, b"")
    store.apply_delta(checkpoint_id(1, 1), first)
    store.write_delta(header(2, (checkpoint_id(1, 1), one.digest)), second, b"")
    with file_size_limit(300_000), pytest.raises(StorageError):
        store.apply_delta(checkpoint_id(1, 2), second)
    with monkeypatch.context() as patch:
        patch.setattr("shardfun.state.store.free_bytes", lambda *_: 1000)
        with pytest.raises(StorageError, match="free some space") as caught:
            store.apply_delta(checkpoint_id(1, 2), second)
        assert caught.value.errno == errno.ENOSPC
        assert dict(store.scan()) == content(first)
    store.apply_delta(checkpoint_id(1, 2), second)
    assert store.get(b"\0\2s") == bytes(400_000)


def test_no_read_sees_what_opening_again_leaves_half_done(store: LevelDBStore, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = blocks_of(b"1"), [RecordBlock([b"\0\2s"], [bytes(400_000)])]
    one = store.write_delta(header(1), first, b"")
    store.apply_delta(checkpoint_id(1, 1), first)
    two = store.write_delta(header(2, (checkpoint_id(1, 1), one.digest)), second, b"")
    with file_size_limit(300_000), pytest.raises(StorageError):
        store.apply_delta(checkpoint_id(1, 2), second)

    def refuse(*_: Any, **__: Any) -> None:
        raise StorageError("refused")

    with monkeypatch.context() as patch:
        patch.setattr(store, "_bring_to", refuse)
        with pytest.raises(StorageError, match="refused"):
            store.apply_delta(checkpoint_id(1, 2), second)
    with pytest.raises(StorageError, match="closed"):
        store.get(b"\0\1s00000")
    store.recover(checkpoint_id(1, 2), two.digest)
    assert dict(store.scan()) == {**content(first), b"\0\2s": bytes(400_000)}


def test_a_database_that_could_not_be_opened_again_is_tried_with_the_next_delta(
    store: LevelDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if some of it had been applied again: then it is behind what it was, and its marks are ahead."""
    first, second, third = blocks_of(b"1"), blocks_of(b"2"), blocks_of(b"3")
    one = store.write_delta(header(1), first, b"")
    store.apply_delta(checkpoint_id(1, 1), first)
    two = store.write_delta(header(2, (checkpoint_id(1, 1), one.digest)), second, b"")
    store.apply_delta(checkpoint_id(1, 2), second)
    third_header = header(3, (checkpoint_id(1, 2), two.digest))
    for limit in (250_000, 100_000):  # refuses first the flush, then what opening again writes
        with file_size_limit(limit), pytest.raises(StorageError):
            store.maintain()
    with monkeypatch.context() as patch:
        apply, done = store._apply, list[int]()

        def refuse_the_second(header: DeltaHeader, *rest: Any) -> None:
            if done:
                raise StorageError("refused")
            done.append(header.checkpoint)
            apply(header, *rest)

        patch.setattr(store, "_apply", refuse_the_second)
        patch.setattr(store, "_lost_power", lambda: True)  # so that everything since the flush is applied again
        with pytest.raises(StorageError, match="refused"):
            store.write_delta(third_header, third, b"")
    store.write_delta(third_header, third, b"")
    assert dict(store.scan()) == content(second)
    store.apply_delta(checkpoint_id(1, 3), third)
    assert dict(store.scan()) == content(third)


def test_a_store_that_was_closed_stays_closed(store: LevelDBStore) -> None:
    store.close()
    with pytest.raises(StorageError, match="closed"):
        store.write_delta(header(1), blocks_of(b"1"), b"")


def test_a_flush_that_is_refused_is_noticed_and_moves_no_mark(store: LevelDBStore, tmp_path: Path) -> None:
    parent: tuple[int, bytes] = (0, b"")
    blocks = blocks_of(b"1")
    for sequence in (1, 2):
        summary = store.write_delta(header(sequence, parent), blocks, b"")
        parent = checkpoint_id(1, sequence), summary.digest
        store.apply_delta(parent[0], blocks)
    with file_size_limit(100_000), pytest.raises(StorageError):
        store.maintain()
    assert not (tmp_path / "flushed").exists()
    assert len(list((tmp_path / "deltas").iterdir())) == 2
    assert dict(store.scan()) == content(blocks)
    store.maintain()
    assert (tmp_path / "flushed").exists()
    assert len(list((tmp_path / "deltas").iterdir())) == 1
    assert dict(store.scan()) == content(blocks)
