"""Manifests: the newest decides, and is never guessed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardfun.errors import CorruptionError, IncompatibleDataError, StorageError
from shardfun.model.delta import checkpoint_id
from shardfun.state import files
from shardfun.state.manifest import Manifest, Manifests, ShardDelta, decode_manifest, encode_manifest

JOB = "ab" * 16


def manifest(sequence: int) -> Manifest:
    return Manifest(
        job=JOB,
        checkpoint=checkpoint_id(2, sequence),
        parent=checkpoint_id(2, sequence - 1) if sequence > 1 else 0,
        incarnation=2,
        created_at=1_700_000_000.5,
        shards=[ShardDelta(0, b"0" * 16, 100, 7), ShardDelta(1, b"1" * 16, 200, 9)],
        end_sent=True,
        ingress={"orders": [{"path": "a.jsonl", "offset": 17, "print": b"\xff"}, None, ["x", 1.5]]},
        figures={"records_in": 12},
    )


@pytest.fixture
def manifests(tmp_path: Path) -> Manifests:
    made = Manifests(tmp_path / "manifests")
    for sequence in (1, 2, 3):
        made.write(manifest(sequence))
    return made


def damage(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def test_round_trip(manifests: Manifests) -> None:
    newest = manifests.newest(JOB)
    assert newest == manifest(3)
    assert newest is not None
    assert newest.digest(1) == b"1" * 16
    assert manifests.path(checkpoint_id(2, 3)).name == "manifest-0000000200000003"


def test_none_before_the_first(tmp_path: Path) -> None:
    assert Manifests(tmp_path / "manifests").newest(JOB) is None


def test_the_newest_three_are_kept(manifests: Manifests) -> None:
    manifests.write(manifest(4))
    manifests.write(manifest(5))
    assert manifests.checkpoints() == [checkpoint_id(2, sequence) for sequence in (5, 4, 3)]


def test_a_failed_clean_up_does_not_hide_the_commit(manifests: Manifests, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, *_: object) -> None:
        raise StorageError(str(path))

    monkeypatch.setattr("shardfun.state.manifest.remove_file", fail)
    manifests.write(manifest(4))
    assert manifests.checkpoints()[0] == checkpoint_id(2, 4)


def test_the_newest_is_made_durable_again_as_a_new_file(manifests: Manifests, monkeypatch: pytest.MonkeyPatch) -> None:
    path = manifests.path(checkpoint_id(2, 3))
    with path.open("rb") as held:
        before = os.fstat(held.fileno()).st_ino
        fsynced: list[int] = []
        monkeypatch.setattr(files.os, "fsync", lambda descriptor: fsynced.append(os.fstat(descriptor).st_ino))
        manifests.newest(JOB)
        assert path.stat().st_ino != before
    assert fsynced == [path.stat().st_ino, manifests.folder.stat().st_ino]


@pytest.mark.parametrize("how", ["flip", "cut", "empty", "renamed"])
def test_a_damaged_newest_one_stops_the_start(manifests: Manifests, how: str) -> None:
    path = manifests.path(checkpoint_id(2, 3))
    match how:
        case "flip":
            damage(path)
        case "cut":
            path.write_bytes(path.read_bytes()[:-5])
        case "empty":
            path.write_bytes(b"")
        case _:
            path = path.rename(manifests.path(checkpoint_id(2, 4)))
    with pytest.raises(CorruptionError, match="--accept-loss") as caught:
        manifests.newest(JOB)
    assert str(path) in str(caught.value)


def test_accept_loss_goes_back_and_keeps_the_damaged_file_aside(manifests: Manifests) -> None:
    damage(manifests.path(checkpoint_id(2, 3)))
    damage(manifests.path(checkpoint_id(2, 2)))
    assert manifests.newest(JOB, accept_loss=True) == manifest(1)
    assert manifests.newest(JOB) == manifest(1)
    assert len(list(manifests.folder.glob("*.damaged"))) == 2


def test_accept_loss_with_nothing_to_go_back_to_changes_nothing(manifests: Manifests) -> None:
    for sequence in (1, 2, 3):
        damage(manifests.path(checkpoint_id(2, sequence)))
    with pytest.raises(CorruptionError, match="all manifests"):
        manifests.newest(JOB, accept_loss=True)
    with pytest.raises(CorruptionError, match="--accept-loss"):
        manifests.newest(JOB)


def test_damage_of_an_older_one_does_not_matter(manifests: Manifests) -> None:
    damage(manifests.path(checkpoint_id(2, 2)))
    assert manifests.newest(JOB) == manifest(3)
    with pytest.raises(CorruptionError):
        manifests.read(checkpoint_id(2, 2))


def test_a_foreign_job_is_refused(manifests: Manifests) -> None:
    with pytest.raises(IncompatibleDataError, match="of job"):
        manifests.newest("cd" * 16)


def test_half_written_ones_do_not_count(manifests: Manifests) -> None:
    (manifests.folder / "manifest-0000000200000009.tmp").write_bytes(b"half")
    assert manifests.newest(JOB) == manifest(3)
    assert not list(manifests.folder.glob("*.tmp"))


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 255))
@settings(max_examples=200)
def test_arbitrary_content_is_a_manifest_or_corruption(raw: bytes, position: int, byte: int) -> None:
    with pytest.raises(CorruptionError):
        decode_manifest(raw)
    changed = bytearray(encode_manifest(manifest(3)))
    changed[position % len(changed)] = byte
    with suppress(CorruptionError):
        assert isinstance(decode_manifest(bytes(changed)), Manifest)
