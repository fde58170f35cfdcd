"""State larger than its cache: all ids are touched again and again; how much memory a shard takes, and how long a restart."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import trio

from shardfun.bench.counter import Progress
from shardfun.bench.measure import machine
from shardfun.bench.node import measured_node, temporary_folder

CACHE = "128 MiB"
ROUNDS_TIMEOUT_S = 1800.0
SAMPLE_S = 0.1
RESTART_TIMEOUT_S = 120.0
MIB = 1 << 20


def _settings(shards: int, ids: int) -> dict[str, Any]:
    return {
        "app": "shardfun.bench.apps:app",
        "shards": shards,
        "state": {"cache": CACHE},
        "supervision": {"spares": 0},
        "ingress": {"events": {"kind": "generator", "ids": ids, "target": "bench/counter"}},
    }


async def _fill(folder: Path, shards: int, ids: int, rounds: int, progress: Progress) -> dict[str, Any]:
    """Touch every id ``rounds`` times; then everything is killed."""
    peak = 0
    async with measured_node(_settings(shards, ids), folder) as node:
        started = time.monotonic()
        said = 0
        with trio.fail_after(ROUNDS_TIMEOUT_S):
            while (status := node.status()).invocations < ids * rounds:
                peak = max(peak, *(shard.resident_bytes for shard in status.shards))
                if status.invocations >= (said + 1) * ids:
                    said += 1
                    progress(f"round {said} of {rounds} done, {peak // MIB} MiB resident in the largest shard so far")
                await trio.sleep(SAMPLE_S)
        seconds = time.monotonic() - started
        checkpoint_ms = status.checkpoint.duration_ms
    return {
        "resident_mib_per_shard_max": peak // MIB,
        "invocations_per_s": round(ids * rounds / seconds),
        "last_checkpoint_ms": round(checkpoint_ms),
    }


async def _restart(folder: Path, shards: int, ids: int) -> float:
    """Seconds from the start of the supervisor until every shard has run its first function again."""
    started = time.time()
    async with measured_node(_settings(shards, ids), folder) as node:
        with trio.fail_after(RESTART_TIMEOUT_S):
            while not all(shard.resumed_at for shard in node.status().shards):  # noqa: ASYNC110 - as above
                await trio.sleep(SAMPLE_S / 10)
        return max(shard.resumed_at for shard in node.status().shards) - started


def bench_state(shards: int, ids: int, rounds: int, progress: Progress) -> dict[str, Any]:
    """The whole benchmark.

    Args:
        rounds: how often every id is touched.
    """
    with temporary_folder() as folder:
        result: dict[str, Any] = {"benchmark": "state", "shards": shards, "ids": ids, "rounds": rounds, "cache": CACHE}
        result |= trio.run(_fill, folder, shards, ids, rounds, progress)
        result["restart_to_first_invocation_s"] = round(trio.run(_restart, folder, shards, ids), 2)
        result["store_mib"] = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) // MIB
        result["machine"] = machine()
    return result
