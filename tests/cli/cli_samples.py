"""Made-up statuses and data directories for the tests of the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cbor2

from shardfun.core.function import DEAD_LETTER_KIND, state_key
from shardfun.core.timer_index import TIMER_PREFIX, timer_suffix
from shardfun.model.delta import DeltaHeader, RecordBlock, checkpoint_id
from shardfun.model.keyspace import owner_of, slot_of, slot_range
from shardfun.model.status import CheckpointStatus, NodeStatus, ShardStatus
from shardfun.state.directory import DataDirectory
from shardfun.state.manifest import Manifest, ShardDelta
from shardfun.state.store import LevelDBStore

APP = "shop.app:app"
SHARDS = 2


def shardfun(
    *arguments: str | Path, stdin: str = "", python: Sequence[str] = (), **environ: str
) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, without a terminal."""
    return subprocess.run(
        [sys.executable, *python, "-m", "shardfun", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | {"COLUMNS": "100"} | environ,
    )


def node_status(**changes: Any) -> NodeStatus:
    """A node in the middle of its work; ``shards`` may be given as the invocations of each."""
    incarnation = changes.get("incarnation", 3)
    invocations = changes.pop("per_shard", [600, 400])
    shards = [
        ShardStatus(
            shard=shard,
            pid=4000 + shard,
            state="running",
            incarnation=incarnation,
            restarts=shard,
            invocations=count,
            backlog=1234 * shard,
            resident_bytes=50 << 20,
        )
        for shard, count in enumerate(invocations)
    ]
    values: dict[str, Any] = {
        "name": "shop",
        "app": APP,
        "data_dir": "/srv/[shop]/data",
        "pid": 3999,
        "state": "running",
        "incarnation": incarnation,
        "uptime_s": 75.0,
        "recoveries": 0,
        "shards": shards,
        "checkpoint": CheckpointStatus(
            checkpoint=checkpoint_id(3, 17), name="3.17", age_s=0.12, duration_ms=21.0, bytes=80_000, completed=90, aborted=1
        ),
        "records_in": 500,
        "invocations": sum(invocations),
        "emitted": 60,
        "published": 50,
    }
    return NodeStatus(**(values | changes))


class DataDirectoryWriter:
    """Writes checkpoints as a node would; ``close`` before anybody looks."""

    def __init__(self, path: Path) -> None:
        self.directory = DataDirectory(path)
        self.directory.acquire()
        self.identity = self.directory.prepare(app=APP, shards=SHARDS)
        self.incarnation = self.directory.next_incarnation()
        self.stores = [
            LevelDBStore.open(self.directory.shard(shard), job=self.identity.job, shard=shard, shards=SHARDS)
            for shard in range(SHARDS)
        ]
        for store in self.stores:
            store.recover(0, b"")
        self._sequence = 0
        self._parent = 0
        self._digests = [b""] * SHARDS

    def checkpoint(self, records: dict[bytes, Any], *, applied: bool = True, positions: Sequence[Any] = (10, 20)) -> int:
        """A complete checkpoint with these changes; ``applied``: it is in LevelDB, too."""
        self._sequence += 1
        checkpoint = checkpoint_id(self.incarnation, self._sequence)
        parts = []
        for shard, store in enumerate(self.stores):
            first, end = slot_range(shard, SHARDS)
            own = sorted(key for key in records if first <= _slot_of(key) < end)
            values = [None if records[key] is None else cbor2.dumps(records[key]) for key in own]
            header = DeltaHeader(
                self.identity.job, shard, SHARDS, (first, end), self.incarnation, checkpoint, self._parent, self._digests[shard]
            )
            blocks = [RecordBlock(own, values)]
            summary = store.write_delta(header, blocks, b"")
            self._digests[shard] = summary.digest
            parts.append(ShardDelta(shard, summary.digest, len(summary.digest), summary.records))
            if applied:
                store.apply_delta(checkpoint, blocks)
        manifest = Manifest(
            job=self.identity.job,
            checkpoint=checkpoint,
            parent=self._parent,
            incarnation=self.incarnation,
            created_at=1_700_000_000.0 + self._sequence,
            shards=parts,
            ingress={"orders": list(positions)},
        )
        self.directory.manifests.write(manifest)
        self._parent = checkpoint
        return checkpoint

    def close(self) -> None:
        """What a node leaves behind when it is killed: no locks."""
        for store in self.stores:
            store.close()
        self.directory.release()


def _slot_of(key: bytes) -> int:
    return int.from_bytes(key[-2:] if key.startswith(TIMER_PREFIX) else key[:2], "big")


def timer(number: int, due_s: float, token: str = "") -> dict[bytes, Any]:
    """A pending timer as the core writes it."""
    id = f"c{number}"
    suffix = timer_suffix(int(due_s * 1000), number, slot_of(id))
    return {TIMER_PREFIX + suffix: [token, "shop/cart", f"to-{id}", "shop/cart", id, "shop.app.Idle", {"n": number}]}


def cart(id: str) -> bytes:
    """The key of a cart's state."""
    return state_key("shop/cart", id)


def letter(number: int, checkpoint: int, reason: str = "ValueError: no [such] item") -> dict[bytes, Any]:
    """A dead letter as the core writes it."""
    id = f"c{number}"
    key = (
        cart(id)[:2]
        + DEAD_LETTER_KIND
        + checkpoint.to_bytes(8, "big")
        + number.to_bytes(4, "big")
        + owner_of(id, 2).to_bytes(2, "big")
    )
    return {
        key: {
            "payload_type": "shop.app.Order",
            "payload": {"item": "x", "raw": b"\xff\x00"},
            "target": ["shop/cart", id],
            "sender": ["shop/till", "t1"],
            "reason": reason,
            "traceback": "Traceback (most recent call last):\n  ...\nValueError: no [such] item\n",
            "attempts": 4,
            "checkpoint": checkpoint,
            "time": 1_700_000_000.0,
        }
    }
