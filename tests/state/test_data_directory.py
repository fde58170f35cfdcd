"""The data directory: one supervisor, one application, no incarnation twice."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import cbor2
import pytest

from shardfun.errors import CorruptionError, DirectoryInUseError, IncompatibleDataError, LocalProtocolError, StorageError
from shardfun.state import directory as directory_module
from shardfun.state.directory import DataDirectory, NodeRecord, ProcessMark
from shardfun.state.files import write_checked
from shardfun.state.manifest import Manifest, ShardDelta

APP = "shop.app:app"


@pytest.fixture
def data(tmp_path: Path) -> DataDirectory:
    made = DataDirectory(tmp_path / "data")
    made.acquire()
    made.prepare(app=APP, shards=4)
    yield made
    made.release()


def manifest(job: str, incarnation: int) -> Manifest:
    return Manifest(
        job=job,
        checkpoint=incarnation << 32 | 1,
        parent=0,
        incarnation=incarnation,
        created_at=0.0,
        shards=[ShardDelta(0, b"", 0, 0)],
    )


def test_first_use_makes_it_ours(data: DataDirectory) -> None:
    identity = data.prepare(app=APP, shards=4)
    assert identity == data.identity()
    assert (identity.app, identity.shards, len(identity.job)) == (APP, 4, 32)
    assert stat.S_IMODE(data.path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(entry.stat().st_mode) for entry in data.path.iterdir() if entry.is_file()} == {0o600}


def test_another_application_is_refused_with_both_names(data: DataDirectory) -> None:
    with pytest.raises(IncompatibleDataError, match=r"'shop\.app:app', not to 'bank\.app:app'"):
        data.prepare(app="bank.app:app", shards=4)


def test_another_number_of_shards_is_refused_with_both_numbers(data: DataDirectory) -> None:
    with pytest.raises(IncompatibleDataError, match="4 shards, and 8 are configured"):
        data.prepare(app=APP, shards=8)


def test_another_format_is_refused_with_both_numbers(data: DataDirectory) -> None:
    write_checked(data.path / "job", directory_module._JOB_FORM, cbor2.dumps({"format": 9, "new": True}))
    with pytest.raises(IncompatibleDataError, match="format 1, got format 9"):
        data.prepare(app=APP, shards=4)


@pytest.mark.parametrize("content", [b"", b"\xa1", cbor2.dumps({"format": 1}), cbor2.dumps([1])])
def test_a_strange_job_file_is_corruption(data: DataDirectory, content: bytes) -> None:
    write_checked(data.path / "job", directory_module._JOB_FORM, content)
    with pytest.raises(CorruptionError, match="job"):
        data.identity()


@pytest.mark.parametrize("what", ["shard-0", "intake"])
def test_a_missing_job_file_with_data_is_not_a_first_use(data: DataDirectory, what: str) -> None:
    (data.path / what).mkdir()
    (data.path / "job").unlink()
    with pytest.raises(CorruptionError, match="'job' is missing"):
        data.prepare(app=APP, shards=4)


def test_a_first_use_that_was_cut_short_is_done_again(data: DataDirectory) -> None:
    (data.path / "job").rename(data.path / "job.tmp")
    assert data.prepare(app=APP, shards=4) == data.identity()


def test_incarnations_rise_over_restarts(data: DataDirectory) -> None:
    assert [data.next_incarnation() for _ in range(3)] == [1, 2, 3]
    data.release()
    again = DataDirectory(data.path)
    again.acquire()
    assert again.next_incarnation() == 4
    again.release()


def test_a_missing_or_old_incarnation_file_is_refused(data: DataDirectory) -> None:
    identity = data.prepare(app=APP, shards=4)
    data.manifests.write(manifest(identity.job, 3))
    with pytest.raises(CorruptionError, match="at least 3"):
        data.next_incarnation()
    (data.path / "incarnation").unlink()
    with pytest.raises(CorruptionError, match="is missing"):
        data.next_incarnation()


def test_a_second_lock_is_refused_with_the_holders_pid(data: DataDirectory) -> None:
    with pytest.raises(DirectoryInUseError, match=f"pid {os.getpid()}"):
        DataDirectory(data.path).acquire()
    data.release()
    data.release()
    second = DataDirectory(data.path)
    second.acquire()
    second.release()


def test_a_lock_ends_with_its_process_however_it_ends(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, time; from shardfun.state.directory import DataDirectory\n"
        "DataDirectory(pathlib.Path(sys.argv[1])).acquire(); print('held', flush=True); time.sleep(60)"
    )
    path = tmp_path / "data"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(DirectoryInUseError, match=f"pid {process.pid}"):
            DataDirectory(path).acquire()
        process.send_signal(signal.SIGKILL)
        process.wait()
    data = DataDirectory(path)
    data.acquire()
    data.release()


def test_changes_need_the_lock(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path)
    for change in (data.next_incarnation, data.erase, data.remove_node):
        with pytest.raises(LocalProtocolError, match="lock"):
            change()


def test_a_folder_of_others_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir(mode=0o755)
    with pytest.raises(IncompatibleDataError, match="photos"):
        DataDirectory(tmp_path).acquire()
    assert [entry.name for entry in tmp_path.iterdir()] == ["photos"]


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"")
    with pytest.raises(StorageError, match="data"):
        DataDirectory(tmp_path / "data").acquire()


def test_the_node_record(data: DataDirectory) -> None:
    assert data.read_node() is None
    node = NodeRecord(pid=7, url="ipc:///tmp/x", runtime_dir="/tmp/r", processes=[ProcessMark(8, 12345)])
    data.write_node(node)
    assert DataDirectory(data.path).read_node() == node
    (data.path / "node.json").write_bytes(b"{\xff")
    assert data.read_node() is None
    data.remove_node()
    data.remove_node()
    assert data.read_node() is None


def test_erase_removes_what_is_ours_and_nothing_else(data: DataDirectory) -> None:
    data.shard(0).mkdir()
    (data.shard(0) / "x").write_bytes(b"")
    outside = data.path.parent / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"")
    data.shard(1).symlink_to(outside)
    (data.path / "intake" / "http").mkdir(parents=True)
    (data.path / "notes.txt").write_bytes(b"")
    data.erase()
    assert sorted(entry.name for entry in data.path.iterdir()) == ["lock", "notes.txt"]
    assert (outside / "kept").exists()


def test_erase_and_first_use_again(data: DataDirectory) -> None:
    before = data.identity()
    data.next_incarnation()
    data.erase()
    data.erase()
    assert data.prepare(app="other:app", shards=2) != before
    assert data.next_incarnation() == 1


def test_erase_refuses_what_is_not_a_data_directory(data: DataDirectory) -> None:
    data.shard(0).mkdir()
    (data.path / "job").write_bytes(b"a list of jobs")
    with pytest.raises(IncompatibleDataError, match="not of shardfun"):
        data.erase()
    (data.path / "job").unlink()
    with pytest.raises(IncompatibleDataError, match="not known"):
        data.erase()
    assert data.shard(0).exists()
