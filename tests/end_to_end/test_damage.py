"""A node that was killed in mid-run, then damaged: what can be repaired goes on exactly, the rest is refused by name.

One run is killed; every test damages its own copy.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_node import FILE_EGRESS, Node, error_lines, file_ingress, wait_for

COUNT = 900
RECORDS = [{"id": f"a{i % 7}", "do": "report", "n": i} for i in range(COUNT)]
ID = "?" * 16
CHECKPOINTS = 25  # more than lie between two flushes of LevelDB, so that there are table files, and a log


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(tmp_path_factory.mktemp("killed"))
    try:
        node.configure(file_ingress(more="rate = 200\npartition_by = 'id'") + FILE_EGRESS, shards=2)
        node.lines("in.jsonl", RECORDS)
        process = node.start()
        wait_for(lambda: newest(node.data / "manifests", f"manifest-{ID}") >= CHECKPOINTS, "checkpoints")
        node.kill(process)
        yield node
    finally:
        node.close()


def newest(folder: Path, pattern: str) -> int:
    """The sequence number in the name of the newest file."""
    return max((int(path.name[-8:], 16) for path in folder.glob(pattern)), default=0)


@pytest.fixture
def damaged(killed: Node, node: Node) -> Node:
    shutil.copytree(killed.folder, node.folder, dirs_exist_ok=True)
    node.config.write_text(node.config.read_text().replace("rate = 200\n", ""))
    return node


def flip(path: Path, offset: int) -> None:
    """Turn all bits of one byte."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


def assert_exact(node: Node) -> None:
    """Run to the end: every record had its effect once, in order, and was published once."""
    summary = node.finish()
    assert (summary["verdict"], summary["dead_letters"]) == ("finished", 0)
    check_out(node)


def check_out(node: Node) -> None:
    out = node.out()
    reports = [record for record in out if "n" in record]
    assert sorted(record["n"] for record in reports) == list(range(COUNT))
    for id in {record["id"] for record in RECORDS}:
        mine = [record for record in RECORDS if record["id"] == id]
        assert [record["n"] for record in reports if record["id"] == id] == [record["n"] for record in mine]
        seen = [record["seen"] for record in out if record["id"] == id and "seen" in record]
        assert seen == [[record["n"] for record in mine]]


def refused(node: Node, *arguments: str) -> str:
    done = node.run(*arguments)
    assert done.returncode == 4, done.stderr
    assert "recovering" not in done.stderr, "damage does not go away by trying again"
    lines = error_lines(done.stderr)
    assert len(lines) == 1, lines
    assert node.processes() == []
    return lines[0]


def newest_of(folder: Path, pattern: str) -> Path:
    return max(folder.glob(pattern))


def test_without_damage_it_goes_on_exactly(damaged: Node) -> None:
    assert_exact(damaged)


def test_a_damaged_log_of_leveldb_is_written_again_from_the_deltas(damaged: Node) -> None:
    log = newest_of(damaged.data / "shard-0" / "leveldb", "*.log")
    for offset in (8, log.stat().st_size // 2):
        flip(log, offset)
    assert_exact(damaged)


def test_a_damaged_delta_of_the_newest_checkpoint_is_refused_by_name(damaged: Node) -> None:
    manifest = newest_of(damaged.data / "manifests", f"manifest-{ID}")  # a newer delta may belong to no complete checkpoint
    delta = damaged.data / "shard-1" / "deltas" / manifest.name.replace("manifest", "delta")
    flip(delta, delta.stat().st_size // 2)
    line = refused(damaged)
    assert str(delta) in line
    assert "restore the data directory from a backup" in line.lower()


def test_a_damaged_table_of_leveldb_is_refused_by_name(damaged: Node) -> None:
    table = newest_of(damaged.data / "shard-0" / "leveldb", "*.ldb")
    flip(table, 20)
    line = refused(damaged)
    assert str(damaged.data / "shard-0" / "leveldb") in line
    assert "restore the data directory from a backup" in line.lower()


def test_a_deleted_leveldb_is_refused_and_not_begun_anew(damaged: Node) -> None:
    shutil.rmtree(damaged.data / "shard-0" / "leveldb")
    line = refused(damaged)
    assert f"{damaged.data}/shard-0/leveldb: the database is missing" in line
    assert "restore the data directory from a backup" in line.lower()


def test_a_damaged_newest_manifest_is_refused_until_the_loss_is_accepted(damaged: Node) -> None:
    """As if it had been written for a checkpoint that no store has applied."""
    manifests = damaged.data / "manifests"
    last = newest_of(manifests, f"manifest-{ID}")
    later = last.with_name(f"manifest-{int(last.name[-16:], 16) + 1:016x}")
    shutil.copy(last, later)
    flip(later, later.stat().st_size // 2)
    line = refused(damaged)
    assert str(later) in line
    assert "Restore the file, or start with --accept-loss to go back to an older checkpoint" in line
    assert damaged.finish("--accept-loss")["verdict"] == "finished"
    check_out(damaged)
    assert later.with_name(f"{later.name}.damaged").exists()


def test_what_a_store_has_applied_cannot_be_taken_back(damaged: Node) -> None:
    for path in sorted((damaged.data / "manifests").glob(f"manifest-{ID}"))[-2:]:  # the older of them is applied for certain
        flip(path, path.stat().st_size // 2)
    line = refused(damaged, "--accept-loss")
    assert "holds changes of checkpoint" in line or "delta is missing" in line
    assert "restore the" in line
