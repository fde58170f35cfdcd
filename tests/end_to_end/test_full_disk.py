"""A disk that is full for a while: the node says so, waits, and goes on exactly when there is space again."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_node import FILE_EGRESS, SECTIONS, Node, file_ingress, wait_for

COUNT = 1200
RECORDS = [{"id": f"a{i % 7}", "do": "report", "n": i} for i in range(COUNT)]
SMALL = '[state]\nwrite_buffer = "64 KiB"\n'


@pytest.fixture
def disk(node: Node) -> Iterator[Path]:
    """A disk of its own, of 3 MiB."""
    folder = node.folder / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small disk is not permitted here")
    yield folder
    node.close()
    subprocess.run(["umount", folder], check=True)


def fill(disk: Path) -> None:
    """Take all the space, down to the last page."""
    with (disk / "ballast").open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def logged(node: Node, *texts: str) -> int:
    """How many lines of the log have all of the texts."""
    log = node.folder / "node.log"
    return sum(all(text in line for text in texts) for line in log.read_text().splitlines()) if log.exists() else 0


def feed(node: Node, records: list[dict[str, object]]) -> None:
    """Append to the file that the node follows."""
    with (node.folder / "in.jsonl").open("a") as file:
        file.writelines(f"{json.dumps(record)}\n" for record in records)


def check_exact(node: Node, pattern: str) -> None:
    out = node.out(pattern)
    assert sorted(record["n"] for record in out if "n" in record) == list(range(COUNT))
    totals: dict[str, int] = {}
    for record in out:
        totals[record["id"]] = max(record["total"], totals.get(record["id"], 0))
    assert totals == {f"a{k}": sum(range(k, COUNT, 7)) for k in range(7)}


def test_a_full_disk_under_the_data_is_waited_for(node: Node, disk: Path) -> None:
    node.configure(file_ingress(more="rate = 500\nfollow = true") + FILE_EGRESS + SMALL, shards=2, data_dir="disk/data")
    parts = [RECORDS[: COUNT // 3], RECORDS[COUNT // 3 : COUNT // 3 * 2], RECORDS[COUNT // 3 * 2 :]]
    node.lines("in.jsonl", parts[0])
    process = node.start("--log-file", "node.log")
    wait_for(lambda: node.published() > 50, "the first results")
    for times in (1, 2):
        fill(disk)
        feed(node, parts[times])
        wait_for(
            lambda times=times: logged(node, "No space left on device") >= 2 * times, "the node to say that the disk is full"
        )
        before = node.published()
        assert before < sum(map(len, parts[: times + 1]))
        (disk / "ballast").unlink()
        wait_for(lambda before=before: node.published() > before, "results again")
    wait_for(lambda: node.published() == COUNT, "all results")
    code, stderr = node.end(process, signal.SIGTERM)
    assert code == 0, stderr
    assert logged(node, "died") == 0
    assert logged(node, "checkpoint", "No space left on device", "free some space") > 0
    check_exact(node, "out-*.jsonl")


def test_a_shard_that_dies_on_a_full_disk_waits_for_space_to_restore(node: Node, disk: Path) -> None:
    """For longer than a start may take otherwise. The supervisor and the other shard have room on their disk."""
    sections = f'{SECTIONS}start_timeout = "8 s"\n{SMALL}'  # a busy machine takes seconds to start a shard
    node.configure(file_ingress(more="rate = 500\nfollow = true") + FILE_EGRESS, shards=2, sections=sections)
    node.lines("in.jsonl", RECORDS[: COUNT // 2])
    process = node.start("--log-file", "node.log")
    wait_for(lambda: node.published() > 50, "the first results")
    assert node.end(process, signal.SIGTERM)[0] == 0
    shutil.move(node.data / "shard-1", disk)
    (node.data / "shard-1").symlink_to(disk / "shard-1")
    process = node.start("--log-file", "node.log")
    wait_for(lambda: len(node.running_shards()) == 2, "both shards")
    fill(disk)
    node.kill_shard(1)
    wait_for(
        lambda: logged(node, "disk full, waiting for space to restore", "No space left on device") >= 10, "it to say so"
    )  # once a second
    feed(node, RECORDS[COUNT // 2 :])
    (disk / "ballast").unlink()
    wait_for(lambda: node.published() == COUNT, "all results")
    code, stderr = node.end(process, signal.SIGTERM)
    assert code == 0, stderr
    assert logged(node, "not restored after") == 0
    check_exact(node, "out-*.jsonl")


def test_a_full_disk_under_an_egress_is_waited_for(node: Node, disk: Path) -> None:
    egress = FILE_EGRESS.replace('"out-', '"disk/out-')
    node.configure(file_ingress(more="rate = 500") + egress, sections=SECTIONS)
    node.lines("in.jsonl", RECORDS)
    process = node.start("--log-file", "node.log")
    wait_for(lambda: node.published("disk/out-*") > 50, "the first results")
    fill(disk)
    wait_for(lambda: logged(node, "egress failed, will try again", "No space left on device") >= 1, "the node to say so")
    (disk / "ballast").unlink()
    code, stderr = node.end(process)
    assert code == 0, stderr
    assert logged(node, "died") == 0
    check_exact(node, "disk/out-*")
