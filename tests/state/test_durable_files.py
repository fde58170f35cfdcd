"""Durable files: whole or not at all, whatever the disk says."""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardfun.errors import CorruptionError, StorageError
from shardfun.state.files import FileForm, durable_file, make_directory, read_checked, remove_temporaries, unwrap, write_checked
from shardfun.state.filesystem import RealFileSystem

FORM = FileForm(b"sftest-\n", 3, "test file")


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """A real refusal by the operating system (EFBIG), as near to a full disk as an unprivileged test gets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def refuse(code: int) -> Any:
    def call(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return call


def test_content_comes_back_and_the_mode_is_private(tmp_path: Path) -> None:
    path = tmp_path / "f"
    assert read_checked(path, FORM) is None
    write_checked(path, FORM, b"one")
    write_checked(path, FORM, b"two")
    assert read_checked(path, FORM) == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_the_order_of_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def kind(descriptor: int) -> str:
        return "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"

    monkeypatch.setattr(os, "fsync", lambda descriptor: (steps.append(f"fsync {kind(descriptor)}"), fsync(descriptor)))
    monkeypatch.setattr(Path, "replace", lambda self, target: (steps.append("rename"), replace(self, target))[1])
    write_checked(tmp_path / "f", FORM, b"one")
    assert steps == ["fsync file", "rename", "fsync folder"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_refused_step_keeps_the_old_content_and_the_errno(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    path = tmp_path / "f"
    write_checked(path, FORM, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse(code))
        with pytest.raises(StorageError, match=str(path)) as caught:
            write_checked(path, FORM, b"new")
    assert caught.value.errno == code
    assert read_checked(path, FORM) == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_a_file_whose_fsync_failed_is_never_fsynced_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    fsynced: list[int] = []
    kept: list[int] = []  # holds the inode so that its number is not given to the next file

    def fail_once(descriptor: int) -> None:
        fsynced.append(os.fstat(descriptor).st_ino)
        if len(fsynced) == 1:
            kept.append(os.dup(descriptor))
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail_once)
    with pytest.raises(StorageError):
        write_checked(path, FORM, b"one")
    write_checked(path, FORM, b"one")
    os.close(kept[0])
    assert fsynced.count(fsynced[0]) == 1


def test_a_folder_that_cannot_be_fsynced_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RealFileSystem, "sync_folder", refuse(errno.EIO))
    with pytest.raises(StorageError) as caught:
        write_checked(tmp_path / "f", FORM, b"one")
    assert caught.value.errno == errno.EIO


def test_a_real_refusal_of_the_operating_system(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_checked(path, FORM, b"old")
    with file_size_limit(10_000), pytest.raises(StorageError, match="ulimit") as caught:
        write_checked(path, FORM, bytes(20_000))
    assert caught.value.errno == errno.EFBIG
    assert read_checked(path, FORM) == b"old"
    write_checked(path, FORM, bytes(20_000))


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data)[:7]))
    write_checked(tmp_path / "f", FORM, b"x" * 100)
    assert read_checked(tmp_path / "f", FORM) == b"x" * 100


def test_a_block_that_raises_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), durable_file(tmp_path / "f") as write:
        write(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_leftovers_are_removed(tmp_path: Path) -> None:
    (tmp_path / "f.tmp").write_bytes(b"half")
    (tmp_path / "g").write_bytes(b"whole")
    remove_temporaries(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["g"]


def test_folders_are_private_and_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    make_directory(tmp_path / "a" / "b")
    make_directory(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="file"):
        make_directory(tmp_path / "file")


def test_every_flipped_bit_and_every_cut_is_found(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_checked(path, FORM, b"content")
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CorruptionError, match=str(path)):
            read_checked(path, FORM)
        path.write_bytes(whole[:position])
        with pytest.raises(CorruptionError):
            read_checked(path, FORM)
    path.write_bytes(whole + b"x")
    with pytest.raises(CorruptionError):
        read_checked(path, FORM)


def test_another_version_is_named(tmp_path: Path) -> None:
    write_checked(tmp_path / "f", FORM, b"content")
    with pytest.raises(CorruptionError, match="version 4, got 3"):
        read_checked(tmp_path / "f", FileForm(FORM.magic, 4, FORM.what))


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_arbitrary_bytes_are_corruption(raw: bytes) -> None:
    with pytest.raises(CorruptionError):
        unwrap(Path("f"), FORM, raw)
