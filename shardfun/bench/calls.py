"""Calls: what a thousand functions that await cost those that do not.

The keyed counter in one shard, with and without calls that await all the time beside it. Both alternate, so that they see the same
weather.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from shardfun.bench.counter import CHECKPOINT_INTERVAL, IDS, RUN_TIMEOUT_S
from shardfun.bench.measure import cpu_seconds, machine, spread
from shardfun.bench.node import POLL_S, measured_node, temporary_folder

Progress = Callable[[str], None]


async def run_counter_beside(waiting: int, events: int) -> dict[str, float]:
    """One run of the counter beside ``waiting`` calls."""
    ingress: dict[str, Any] = {"events": {"kind": "generator", "count": events, "ids": IDS, "target": "bench/counter"}}
    if waiting:
        ingress["calls"] = {"kind": "generator", "count": waiting, "ids": waiting, "target": "bench/wait"}
    settings: dict[str, Any] = {
        "app": "shardfun.bench.apps:app",
        "shards": 1,
        "checkpoint": {"interval": CHECKPOINT_INTERVAL},
        "supervision": {"heartbeat_interval": "20 ms", "spares": 0},
        "calls": {"concurrency": max(waiting, 1), "concurrency_per_type": max(waiting, 1)},
        "ingress": ingress,
    }
    durations: list[float] = []
    with temporary_folder() as folder:
        async with measured_node(settings, folder) as node:
            (pid,) = [shard.pid for shard in node.status().shards]
            with trio.fail_after(RUN_TIMEOUT_S):
                while (status := node.status()).shards[0].calls < waiting:  # noqa: ASYNC110 - as in the counter
                    await trio.sleep(POLL_S)
                began, cpu_before, started = status.invocations, cpu_seconds(pid), trio.current_time()
                while (status := node.status()).invocations < events:
                    await trio.sleep(POLL_S)
                    if status.checkpoint.completed > len(durations):
                        durations.append(status.checkpoint.duration_ms)
            took, cpu = trio.current_time() - started, cpu_seconds(pid) - cpu_before
            assert status.shards[0].calls == waiting
    return {
        "events_per_s": (events - began) / took,
        "cpu_ns": cpu / (events - began) * 1e9,
        "checkpoint_ms": sorted(durations)[len(durations) // 2] if durations else 0.0,
    }


def bench_calls(waiting: int, events: int, repeats: int, progress: Progress) -> dict[str, Any]:
    """The whole benchmark.

    Args:
        waiting: calls that await at once.
        events: per run, of the counter.
        repeats: runs with and as many without calls.
        progress: told one line per run.
    """
    beside: list[dict[str, float]] = []
    alone: list[dict[str, float]] = []
    for repeat in range(repeats):
        for results, calls in ((beside, waiting), (alone, 0)):
            result = trio.run(run_counter_beside, calls, events)
            results.append(result)
            figures = f"{result['events_per_s']:,.0f} events/s, {result['cpu_ns']:.0f} ns CPU"
            progress(f"run {repeat + 1} of {repeats}, {calls} calls: {figures}, checkpoint {result['checkpoint_ms']:.1f} ms")
    pairs = list(zip(beside, alone, strict=True))
    return {
        "benchmark": "calls",
        "calls_awaiting": waiting,
        "events": events,
        "events_per_s": spread(run["events_per_s"] for run in beside),
        "events_per_s_without_calls": spread(run["events_per_s"] for run in alone),
        "cpu_ns_per_invocation": spread(run["cpu_ns"] for run in beside),
        "cpu_ns_per_invocation_without_calls": spread(run["cpu_ns"] for run in alone),
        "cpu_share_of_calls": spread((on["cpu_ns"] / off["cpu_ns"] - 1 for on, off in pairs), 3),
        "checkpoint_ms": spread((run["checkpoint_ms"] for run in beside), 1),
        "checkpoint_ms_without_calls": spread((run["checkpoint_ms"] for run in alone), 1),
        "machine": machine(),
    }
