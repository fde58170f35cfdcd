"""The keyed counter: events over many ids, each increments a ``Value[int]``; with n shards (n-1)/n of them cross the mesh.

The reference is the bare loop of one process over the same ids: dictionary, slotted object, increment, nothing else.
Runs with and without checkpoints alternate, so that both see the same weather.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import trio

from shardfun.bench.measure import cpu_seconds, machine, spread
from shardfun.bench.node import POLL_S, measured_node, temporary_folder

IDS = 10_000
CHECKPOINT_INTERVAL = "200 ms"
RUN_TIMEOUT_S = 600.0
REFERENCE_EVENTS = 2_000_000
Progress = Callable[[str], None]


class _Count:
    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


def bare_loop() -> float:
    """Events per second of the bare loop in this process."""
    ids = [f"k{number}" for number in range(IDS)] * (REFERENCE_EVENTS // IDS)
    counts = {id: _Count() for id in ids[:IDS]}
    started = time.perf_counter()
    for id in ids:
        counts[id].count += 1
    return len(ids) / (time.perf_counter() - started)


async def run_counter(shards: int, events: int, *, checkpoints: bool) -> dict[str, float]:
    """One run; the figures of it."""
    settings: dict[str, Any] = {
        "app": "shardfun.bench.apps:app",
        "shards": shards,
        "checkpoint": {"interval": CHECKPOINT_INTERVAL} if checkpoints else {"interval": "1 h", "idle_interval": "1 h"},
        "supervision": {"heartbeat_interval": "20 ms", "spares": 0},
        "ingress": {"events": {"kind": "generator", "count": events, "ids": IDS, "target": "bench/counter"}},
    }
    with temporary_folder() as folder:
        async with measured_node(settings, folder) as node:
            pids = [shard.pid for shard in node.status().shards]
            cpu_before = sum(map(cpu_seconds, pids))
            with trio.fail_after(RUN_TIMEOUT_S):
                while (status := node.status()).invocations < events:  # noqa: ASYNC110 - a supervisor has a status, not an event
                    await trio.sleep(POLL_S)
            ended = time.time()
            cpu = sum(map(cpu_seconds, pids)) - cpu_before
            started = min(shard.resumed_at for shard in status.shards)
            completed, duration = status.checkpoint.completed, status.checkpoint.duration_ms
    return {
        "events_per_s": events / (ended - started),
        "cpu_ns": cpu / events * 1e9,
        "checkpoints": completed,
        "checkpoint_ms": duration,
    }


def bench_counter(shards: int, events: int, repeats: int, progress: Progress) -> dict[str, Any]:
    """The whole benchmark.

    Args:
        events: per run.
        repeats: runs with and as many without checkpoints.
        progress: told one line per run.
    """
    with_checkpoints: list[dict[str, float]] = []
    without: list[dict[str, float]] = []
    reference: list[float] = []
    for repeat in range(repeats):
        reference.append(bare_loop())
        for results, on in ((with_checkpoints, True), (without, False)):
            result = trio.run(lambda on=on: run_counter(shards, events, checkpoints=on))  # type: ignore[misc]
            results.append(result)
            kind = f"{result['checkpoints']:.0f} checkpoints" if on else "no checkpoints"
            progress(
                f"run {repeat + 1} of {repeats}: {result['events_per_s']:,.0f} events/s, {result['cpu_ns']:.0f} ns CPU, {kind}"
            )
    events_per_s = spread(run["events_per_s"] for run in with_checkpoints)
    bare = spread(reference)
    pairs = [on["cpu_ns"] / off["cpu_ns"] - 1 for on, off in zip(with_checkpoints, without, strict=True)]
    return {
        "benchmark": "counter",
        "shards": shards,
        "events": events,
        "ids": IDS,
        "crossing_share": round((shards - 1) / shards, 3),
        "checkpoint_interval": CHECKPOINT_INTERVAL,
        "events_per_s": events_per_s,
        "events_per_s_without_checkpoints": spread(run["events_per_s"] for run in without),
        "cpu_ns_per_invocation": spread(run["cpu_ns"] for run in with_checkpoints),
        "cpu_ns_per_invocation_without_checkpoints": spread(run["cpu_ns"] for run in without),
        "checkpoint_cpu_share": spread(pairs, 3),
        "checkpoints_per_run": spread(run["checkpoints"] for run in with_checkpoints),
        "checkpoint_ms": spread((run["checkpoint_ms"] for run in with_checkpoints), 1),
        "bare_loop_events_per_s": bare,
        "ratio_to_bare_loop": round(events_per_s["median"] / bare["median"], 3),
        "machine": machine(),
    }
