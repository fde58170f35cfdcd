"""Recovery: SIGKILL a shard under load; how long until its slots are served again, and until a checkpoint is complete again.

Times are on the clock of the killer: the replacement notes the wall clock of its first invocation, and both are on one machine.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import trio

from shardfun.bench.counter import IDS, Progress
from shardfun.bench.measure import machine, spread
from shardfun.bench.node import POLL_S, measured_node, temporary_folder
from shardfun.model.delta import CHECKPOINT_SEQUENCE_BITS
from shardfun.supervisor import Node

RECOVERY_TIMEOUT_S = 60.0
SETTLE_S = 0.5
"""Between kills, once the next spare has imported the application: time for the load to be even again."""


async def run_recovery(shards: int, kills: int, spares: int, rate: int) -> list[dict[str, float]]:
    """One node, several kills; milliseconds of each."""
    settings: dict[str, Any] = {
        "app": "shardfun.bench.apps:app",
        "shards": shards,
        "checkpoint": {"interval": "100 ms"},
        "supervision": {"heartbeat_interval": "20 ms", "spares": spares},
        "ingress": {"events": {"kind": "generator", "ids": IDS, "rate": rate, "target": "bench/counter"}},
    }
    results: list[dict[str, float]] = []
    with temporary_folder() as folder:
        async with measured_node(settings, folder) as node:
            for kill in range(kills):
                await _settle(node, spares)
                results.append(await _kill_one(node, kill % shards))
    return results


async def _settle(node: Node, spares: int) -> None:
    with trio.fail_after(RECOVERY_TIMEOUT_S):
        while node.status().spares < spares:  # noqa: ASYNC110 - a supervisor has a status, not an event
            await trio.sleep(POLL_S)
    await trio.sleep(SETTLE_S)


async def _kill_one(node: Node, victim: int) -> dict[str, float]:
    incarnation = node.status().incarnation
    killed_at = time.time()
    os.kill(node.status().shards[victim].pid, signal.SIGKILL)
    resumed_at = completed_at = 0.0
    with trio.fail_after(RECOVERY_TIMEOUT_S):
        while not (resumed_at and completed_at):
            await trio.sleep(POLL_S)
            status = node.status()
            shard = status.shards[victim]
            if shard.incarnation > incarnation:
                resumed_at = shard.resumed_at
            if not completed_at and status.checkpoint.checkpoint >> CHECKPOINT_SEQUENCE_BITS > incarnation:
                completed_at = time.time() - status.checkpoint.age_s
    return {"invocation": (resumed_at - killed_at) * 1000, "checkpoint": (completed_at - killed_at) * 1000}


def bench_recovery(shards: int, kills: int, rate: int, progress: Progress) -> dict[str, Any]:
    """The whole benchmark.

    Args:
        kills: with a warm spare, and as many without one.
        rate: events per second of load, over all shards.
    """
    result: dict[str, Any] = {"benchmark": "recovery", "shards": shards, "kills": kills, "load_events_per_s": rate}
    for spares, suffix in ((1, ""), (0, "_without_spare")):
        runs = trio.run(run_recovery, shards, kills, spares, rate)
        result["kill_to_first_invocation_ms" + suffix] = spread((run["invocation"] for run in runs), 1)
        result["kill_to_first_checkpoint_ms" + suffix] = spread((run["checkpoint"] for run in runs), 1)
        kind = "with a warm spare" if spares else "without a spare"
        progress(
            f"{kind}: first invocation after {result['kill_to_first_invocation_ms' + suffix]['median']} ms (median of {kills})"
        )
    result["machine"] = machine()
    return result
