"""The file egress: what it refuses, and what a failing disk does."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from shardfun.egress.file import FileEgress, FileEgressOptions
from shardfun.egress.registry import find_kind
from shardfun.errors import ConfigurationError, EgressError
from shardfun.ports import Partition, PublishedPosition

NOTHING = PublishedPosition(0, 0)


def sink(path: Path, *, index: int = 0, count: int = 1, fsync: bool = True) -> FileEgress:
    return FileEgress("results", FileEgressOptions(path=path, fsync=fsync), Partition(index, count, lambda _: True))


def test_found_by_its_name() -> None:
    assert find_kind("file") is FileEgress
    with pytest.raises(ConfigurationError, match="did you mean 'stdout'"):
        find_kind("stdot")


def test_creates_private_files_in_new_folders(tmp_path: Path) -> None:
    egress = sink(tmp_path / "a/b/out-{partition}.jsonl", index=3, count=4)
    egress.open(NOTHING, [])
    egress.publish([b"1\n"])
    egress.close()
    path = tmp_path / "a/b/out-3.jsonl"
    assert path.read_bytes() == b"1\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_for_each_partition_is_demanded() -> None:
    one = FileEgressOptions(path=Path("out.jsonl"))
    assert FileEgress.check(one, 1) is None
    assert "{partition}" in (FileEgress.check(one, 2) or "")
    assert FileEgress.check(FileEgressOptions(path=Path("out-{partition}.jsonl")), 2) is None


def test_remove_outputs(tmp_path: Path) -> None:
    options = FileEgressOptions(path=tmp_path / "out-{partition}")
    for name in ("out-0", "out-1", "other"):
        (tmp_path / name).write_bytes(b"x")
    FileEgress.remove_outputs(options, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    (tmp_path / "out-0").mkdir()
    with pytest.raises(EgressError, match="cannot delete"):
        FileEgress.remove_outputs(options, 1)


def test_refuses_a_file_shorter_than_what_was_published(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"1\n")
    egress = sink(tmp_path / "out")
    with pytest.raises(EgressError, match=r"has 2 bytes, but 4 bytes \(2 records\).*--fresh"):
        egress.open(PublishedPosition(2, 4), [])
    assert (tmp_path / "out").read_bytes() == b"1\n"


@pytest.mark.parametrize("pending", [[], [b"2\n"], [b"1\n", b"3\n"], [b"1\n"]])
def test_refuses_and_keeps_a_file_it_did_not_write(tmp_path: Path, pending: list[bytes]) -> None:
    (tmp_path / "out").write_bytes(b"1\n2\n")
    egress = sink(tmp_path / "out")
    with pytest.raises(EgressError, match=r"already has 4 bytes.*--fresh"):
        egress.open(NOTHING, pending)
    assert (tmp_path / "out").read_bytes() == b"1\n2\n"


def test_a_first_write_that_was_torn_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"1\n2")
    egress = sink(tmp_path / "out")
    assert egress.open(NOTHING, [b"1\n", b"22\n"]) == 1
    egress.close()
    assert (tmp_path / "out").read_bytes() == b"1\n"


def test_cuts_off_what_does_not_follow(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"1\n2\n\0\0\0\0")
    egress = sink(tmp_path / "out")
    assert egress.open(PublishedPosition(1, 2), [b"2\n", b"3\n"]) == 1
    egress.close()
    assert (tmp_path / "out").read_bytes() == b"1\n2\n"


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    egress = sink(tmp_path / "out")
    egress.open(NOTHING, [])
    egress.publish([b"1\n"])
    real = os.pwrite
    failures = [True]

    def fail(descriptor: int, *rest: object) -> int:
        if call == "pwrite" and failures:
            failures.pop()
            return real(descriptor, b"22", 2)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(EgressError, match="No space left"):
            egress.publish([b"22222\n"])
    assert (tmp_path / "out").read_bytes() == b"1\n"
    egress.publish([b"22222\n"])
    egress.close()
    assert (tmp_path / "out").read_bytes() == b"1\n22222\n"


def test_when_even_cutting_back_fails_the_next_publish_does_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    egress = sink(tmp_path / "out")
    egress.open(NOTHING, [])

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        patch.setattr(os, "ftruncate", fail)
        with pytest.raises(EgressError):
            egress.publish([b"long record\n"])
        with pytest.raises(EgressError):
            egress.publish([b"1\n"])
    egress.publish([b"1\n"])
    egress.close()
    assert (tmp_path / "out").read_bytes() == b"1\n"


def test_fsync_can_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(os, "fsync", calls.append)
    for fsync in (False, True):
        egress = sink(tmp_path / f"{fsync}", fsync=fsync)
        egress.open(NOTHING, [])
        egress.publish([b"1\n"])
        egress.close()
        assert bool(calls) == fsync


def test_refuses_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(EgressError, match="not a regular file"):
        sink(tmp_path / "pipe").open(NOTHING, [])
    with pytest.raises(EgressError, match="cannot open"):
        sink(tmp_path).open(NOTHING, [])
