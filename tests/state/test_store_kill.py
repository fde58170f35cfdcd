"""SIGKILL at real moments of a real process, in the middle of writing and applying."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shardfun.model.delta import DeltaHeader, RecordBlock, checkpoint_id
from shardfun.state.options import StoreOptions
from shardfun.state.store import LevelDBStore

JOB = "ab" * 16
RECORDS = 30_000

# The parent reads a line per step: the digest of a durable delta ("complete"), then the end of its apply ("applied").
CHILD = """
import sys, pathlib
sys.path.insert(0, sys.argv[1])
from test_store_kill import open_store, write
store = open_store(pathlib.Path(sys.argv[2]))
store.recover(0, b"")
complete = (0, b"")
sequence = 0
while True:
    sequence += 1
    complete, blocks = write(store, sequence, complete)
    print("complete", sequence, complete[1].hex(), flush=True)
    store.apply_delta(complete[0], blocks)
    store.maintain()
    print("applied", sequence, flush=True)
"""


def open_store(path: Path) -> LevelDBStore:
    return LevelDBStore.open(path, job=JOB, shard=0, shards=1, options=StoreOptions(flush_deltas=3, write_buffer_bytes=1 << 20))


def changes(sequence: int) -> RecordBlock:
    return RecordBlock([b"\0\1s%06d" % i for i in range(RECORDS)], [b"%d" % sequence * 40 for _ in range(RECORDS)])


def write(store: LevelDBStore, sequence: int, complete: tuple[int, bytes]) -> tuple[tuple[int, bytes], list[RecordBlock]]:
    blocks = [changes(sequence)]
    header = DeltaHeader(JOB, 0, 1, (0, 32768), 1, checkpoint_id(1, sequence), *complete)
    summary = store.write_delta(header, blocks, b"queues %d" % sequence)
    return (header.checkpoint, summary.digest), blocks


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("after", "delay_s"), [("complete 5", 0.002), ("complete 4", 0.01), ("complete 2", 0.03), ("applied 3", 0.02)]
)
def test_a_killed_process_leaves_what_recovery_makes_whole(tmp_path: Path, after: str, delay_s: float) -> None:
    arguments = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(tmp_path)]
    complete = (0, b"")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            word, sequence, *digest = line.split()
            if word == "complete":
                complete = checkpoint_id(1, int(sequence)), bytes.fromhex(digest[0])
            if line.startswith(after):
                time.sleep(delay_s)
                process.send_signal(signal.SIGKILL)
                break
        for line in process.stdout:  # what it still said before it died
            word, sequence, *digest = line.split()
            if word == "complete":
                complete = checkpoint_id(1, int(sequence)), bytes.fromhex(digest[0])
        assert process.wait() == -signal.SIGKILL
    store = open_store(tmp_path)
    try:
        stored = store.recover(*complete)
        assert stored is not None
        sequence = stored.header.checkpoint & 0xFFFFFFFF
        assert stored.queues == b"queues %d" % int(sequence)
        assert store.applied == complete[0]
        assert dict(store.scan()) == dict(zip(*changes(int(sequence)), strict=True))
        write(store, int(sequence) + 1, complete)
    finally:
        store.close()
