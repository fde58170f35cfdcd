"""A map with many entries in one address: how long an update of one entry takes, checkpoints included, and how much of it the function
runs, which reads the entry and writes it.

The reference is an update of a single value, which takes the same way through the same kind of node. What is updated is spread evenly,
so as much of the map is in memory as the cache holds: a million small entries need about 190 MiB. With a smaller cache an update
reads its entry from LevelDB, as it does in a map that is larger than memory.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import trio

from shardfun.bench.counter import Progress
from shardfun.bench.map_app import FILL_ENTRIES
from shardfun.bench.measure import cpu_seconds, machine
from shardfun.bench.node import measured_node, temporary_folder

TIMEOUT_S = 1800.0
SAMPLE_S = 0.05
SETTLE_S = 1.0  # after filling, before measuring: the last checkpoint of it
MIB = 1 << 20


def _settings(ingress: dict[str, Any], cache_mib: int) -> dict[str, Any]:
    return {
        "app": "shardfun.bench.map_app:app",
        "shards": 1,
        "supervision": {"spares": 0},
        "state": {"cache": cache_mib * MIB},
        "ingress": ingress,
    }


async def _measured(folder: Path, settings: dict[str, Any], filling: int, updates: int) -> dict[str, float]:
    """Wait for ``filling`` invocations, then measure ``updates`` more."""
    async with measured_node(settings, folder) as node:
        with trio.fail_after(TIMEOUT_S):
            while node.status().invocations < filling:  # noqa: ASYNC110 - a supervisor has a status, not an event
                await trio.sleep(SAMPLE_S)
            await trio.sleep(SETTLE_S)
            before, started = node.status(), time.monotonic()
            cpu_before = cpu_seconds(before.shards[0].pid)
            while (status := node.status()).invocations < before.invocations + updates:  # noqa: ASYNC110 - as above
                await trio.sleep(SAMPLE_S)
        done = status.invocations - before.invocations
        return {
            "us": (time.monotonic() - started) / done * 1e6,
            "running_us": (status.shards[0].running_s - before.shards[0].running_s) / done * 1e6,
            "cpu_us": (cpu_seconds(status.shards[0].pid) - cpu_before) / done * 1e6,
            "checkpoint_ms": status.checkpoint.duration_ms,
            "resident_mib": status.shards[0].resident_bytes / MIB,
        }


def bench_map(entries: int, updates: int, cache_mib: int, progress: Progress) -> dict[str, Any]:
    """The whole benchmark.

    Args:
        entries: of the map; rounded up to thousands.
        updates: measured ones, of entries all over the map.
        cache_mib: ``state.cache``.
    """
    fills = -(-entries // FILL_ENTRIES)
    entries = fills * FILL_ENTRIES
    events = {"kind": "generator", "ids": entries}
    with temporary_folder() as folder:
        reference = trio.run(_measured, folder / "reference", _settings({"values": events}, cache_mib), 0, updates)
        progress(f"an update of a single value takes {reference['us']:.1f} us; filling the map")
        filled = {"fill": {"kind": "generator", "ids": fills, "count": fills}, "updates": events}
        # updates run meanwhile, too; when each entry could have been updated once, the filling is long over
        result = trio.run(_measured, folder / "map", _settings(filled, cache_mib), fills + entries, updates)
        progress(
            f"an update of one of {entries:,} entries takes {result['us']:.1f} us, {result['running_us']:.1f} of these in the function"
        )
    return {
        "benchmark": "map",
        "entries": entries,
        "updates": updates,
        "cache_mib": cache_mib,
        "us_per_update": round(result["us"], 2),
        "running_us_per_update": round(result["running_us"], 2),
        "cpu_us_per_update": round(result["cpu_us"], 2),
        "us_per_update_of_a_single_value": round(reference["us"], 2),
        "running_us_per_update_of_a_single_value": round(reference["running_us"], 2),
        "cpu_us_per_update_of_a_single_value": round(reference["cpu_us"], 2),
        "last_checkpoint_ms": round(result["checkpoint_ms"]),
        "resident_mib": round(result["resident_mib"]),
        "machine": machine(),
    }
