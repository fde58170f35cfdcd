"""Ask: how long a request over HTTP takes to its exactly-once reply, at a given rate (an open loop).

Most of it is waiting: a reply is given when the checkpoint that contains it is complete. What is left is told apart: the median
minus what a request waits on average for the next cut (half the interval) and for the checkpoint itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import trio

from shardfun.bench.asker import percentiles
from shardfun.bench.measure import cpu_seconds, machine
from shardfun.bench.node import POLL_S, measured_node, temporary_folder
from shardfun.supervisor import Node

INTERVALS: Final = ("100 ms", "50 ms")
WARM_UP_S: Final = 2.0

Progress = Callable[[str], None]


async def _load(address: str, rate: int, seconds: float, wait: str, *, keys: bool) -> dict[str, Any]:
    """One run of the client."""
    command = [sys.executable, "-m", "shardfun.bench.asker", str(urlsplit(address).port), str(rate), str(seconds), wait]
    done = await trio.run_process([*command, "keys" if keys else "none"], capture_stdout=True)
    result = msgspec.json.decode(done.stdout)
    assert isinstance(result, dict)
    return result


async def _watch(node: Node, durations: list[float]) -> None:
    """Collect how long checkpoints take."""
    seen = node.status().checkpoint.completed
    while True:
        checkpoint = node.status().checkpoint
        if checkpoint.completed > seen:
            seen = checkpoint.completed
            durations.append(checkpoint.duration_ms)
        await trio.sleep(POLL_S)


async def run_asks(shards: int, interval: str, rate: int, seconds: float, *, keys: bool) -> dict[str, Any]:
    """One node, one rate."""
    settings: dict[str, Any] = {
        "app": "shardfun.bench.ask_app:app",
        "shards": shards,
        "checkpoint": {"interval": interval},
        "supervision": {"spares": 0},
        "http": {"listen": "127.0.0.1:0"},
    }
    with temporary_folder() as folder:
        async with measured_node(settings, folder) as node:
            address = node.status().http
            await _load(address, rate, WARM_UP_S, "30s", keys=keys)
            pids = {f"shard_{shard.shard}": shard.pid for shard in node.status().shards} | {"door": node.door_pid}
            before = {name: cpu_seconds(pid) for name, pid in pids.items()}
            completed, durations, started = node.status().checkpoint.completed, list[float](), trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_watch, node, durations)
                asked = await _load(address, rate, seconds, "30s", keys=keys)
                nursery.cancel_scope.cancel()
            took = trio.current_time() - started
            between_ms = took / max(1, node.status().checkpoint.completed - completed) * 1000
            cpu = {name: (cpu_seconds(pid) - before[name]) / took for name, pid in pids.items()}
            sent = await _load(address, rate, WARM_UP_S, "", keys=keys)
    return _figures(asked, sent, seconds, sorted(durations) or [0.0], between_ms, cpu)


def _figures(
    asked: dict[str, Any],
    sent: dict[str, Any],
    seconds: float,
    durations: list[float],
    between_ms: float,
    cpu: dict[str, float],
) -> dict[str, Any]:
    latency = percentiles(asked["latencies_ms"])
    checkpoint_ms = durations[len(durations) // 2]
    return {
        "latency_ms": latency,
        "durable_ms": percentiles(sent["latencies_ms"]),
        "checkpoint_ms": round(checkpoint_ms, 1),
        "between_checkpoints_ms": round(between_ms, 1),
        "beside_the_checkpoint_ms": round(latency["p50"] - between_ms / 2 - checkpoint_ms, 1),
        "answers": asked["statuses"],
        "unanswered": asked["unanswered"] + asked["unsent"],
        "sent_late_ms": asked["late_ms"],
        "connections": asked["connections"],
        "cpu_share": {name: round(share, 2) for name, share in cpu.items()} | {"client": round(asked["cpu_s"] / seconds, 2)},
    }


def bench_ask(shards: int, rate: int, seconds: int, progress: Progress) -> dict[str, Any]:
    """The whole benchmark.

    Args:
        rate: requests per second.
        seconds: of each run.
        progress: told one line per run.
    """
    result: dict[str, Any] = {"benchmark": "ask", "shards": shards, "rate_per_s": rate, "seconds": seconds}
    for interval in INTERVALS:
        for keys in (False, True):
            figures = trio.run(lambda i=interval, k=keys: run_asks(shards, i, rate, seconds, keys=k))  # type: ignore[misc]
            name = f"{interval.replace(' ', '_')}{'_with_keys' if keys else ''}"
            result[name] = figures
            progress(
                f"checkpoints every {interval}, {'with' if keys else 'without'} keys: {figures['latency_ms']}, {figures['cpu_share']}"
            )
    return {**result, "machine": machine()}
