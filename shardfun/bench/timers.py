"""Many pending timers: the memory they add, and how late they are when they fire at a rate, while each makes another one.

The reference for memory is the same node after the same events, whose functions make no timers. Lateness is measured inside the
function that gets the message: it has the loop, the queue and everything before it in it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import trio

from shardfun.bench.apps import Plan
from shardfun.bench.counter import Progress
from shardfun.bench.measure import cpu_seconds, machine, resident
from shardfun.bench.node import measured_node, temporary_folder
from shardfun.model.status import NodeStatus
from shardfun.supervisor import Node

IDS = 1000
MADE_PER_S = 15_000  # what a machine makes for sure, which decides when the first one may be due
LEAD_S = 5.0
SETTLE_S = 2.0  # for the last checkpoints after all timers are made
MEASURED_S = 15.0
SAMPLE_S = 0.2
TIMEOUT_S = 1200.0
MIB = 1 << 20


def _settings(shards: int, pending: int, value: str) -> dict[str, Any]:
    return {
        "app": "shardfun.bench.apps:app",
        "shards": shards,
        "supervision": {"spares": 0},
        "ingress": {
            "events": {"kind": "generator", "count": pending, "ids": IDS, "value": value, "target": "bench/timers"},
            "endless": {"kind": "generator", "rate": 0.01, "value": "", "target": "bench/timers"},  # else the run would end
        },
        "egress": {"lateness": {"kind": "file", "path": "lateness-{partition}.jsonl"}},
    }


async def _until(node: Node, done: Callable[[NodeStatus], bool]) -> None:
    """Until the node's status is so, and a little longer."""
    with trio.fail_after(TIMEOUT_S):
        while not done(node.status()):  # noqa: ASYNC110 - a supervisor has a status, not an event
            await trio.sleep(SAMPLE_S)
    await trio.sleep(SETTLE_S)


def _timers(status: NodeStatus) -> int:
    return sum(shard.timers for shard in status.shards)


def _memory(node: Node) -> tuple[int, int]:
    """Of all shards: resident bytes, and those of them that are no pages of files."""
    parts = [resident(shard.pid) for shard in node.status().shards]
    return sum(all for all, _ in parts), sum(own for _, own in parts)


async def _reference(folder: Path, shards: int, pending: int) -> tuple[int, int]:
    async with measured_node(_settings(shards, pending, ""), folder) as node:
        await _until(node, lambda status: status.invocations >= pending)
        return _memory(node)


async def _measure(folder: Path, shards: int, pending: int, rate: int, progress: Progress) -> dict[str, Any]:
    span_s = pending / rate
    started = time.time()
    plan = Plan(started + LEAD_S + pending / MADE_PER_S, span_s, -(-pending // IDS))
    async with measured_node(_settings(shards, pending, msgspec.json.encode(plan).decode()), folder) as node:
        pids = [shard.pid for shard in node.status().shards]
        cpu = [sum(map(cpu_seconds, pids))]
        await _until(node, lambda status: _timers(status) >= pending)
        made_s = time.time() - SETTLE_S - started
        idle = _memory(node)
        progress(f"{pending:,} timers made in {made_s:.1f} s, {idle[0] / MIB:.0f} MiB resident")
        begin = max(plan.begin, time.time())
        end = min(begin + MEASURED_S, plan.begin + span_s)
        peak = idle[0]
        cpu.append(sum(map(cpu_seconds, pids)))
        while time.time() < end:
            peak = max(peak, _memory(node)[0])
            await trio.sleep(SAMPLE_S)
        cpu.append(sum(map(cpu_seconds, pids)))
        await trio.sleep(SETTLE_S)  # for the last results to be published
        status = node.status()
    late = sorted(late for due, late in _lateness(folder) if begin + 1 <= due < end)
    return {
        "made_per_s": round(pending / made_s),
        "cpu_us_per_timer_made": round((cpu[1] - cpu[0]) / pending * 1e6, 1),
        "cpu_us_per_timer_fired_and_made_again": round((cpu[2] - cpu[1]) / max(1, (end - begin) * rate) * 1e6, 1),
        "pending_at_the_end": _timers(status),
        "fired_per_s": round(len(late) / (end - begin - 1)),
        "measured": len(late),
        "lateness_ms": {
            "p50": _milliseconds(late, 0.5),
            "p99": _milliseconds(late, 0.99),
            "p999": _milliseconds(late, 0.999),
            "max": _milliseconds(late, 1),
        },
        "earliest_ms": _milliseconds(late, 0),
        "memory": idle,
        "peak": peak,
    }


def _lateness(folder: Path) -> list[tuple[float, float]]:
    """Due time and lateness of each message, in seconds."""
    return [json.loads(line) for file in folder.glob("lateness-*.jsonl") for line in file.read_text().splitlines()]


def _milliseconds(ordered: list[float], part: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(part * len(ordered)))] * 1000, 1) if ordered else 0.0


def bench_timers(shards: int, pending: int, rate: int, progress: Progress) -> dict[str, Any]:
    """The whole benchmark.

    Args:
        pending: timers in all shards together.
        rate: at which they fire, per second, in all shards together.
    """
    with temporary_folder() as folder:
        reference, reference_own = trio.run(_reference, folder, shards, pending)
    progress(f"the same events without timers: {reference / MIB:.0f} MiB resident")
    with temporary_folder() as folder:
        found = trio.run(_measure, folder, shards, pending, rate, progress)
    (resident_bytes, own), peak = found.pop("memory"), found.pop("peak")
    return {
        "benchmark": "timers",
        "shards": shards,
        "pending": pending,
        "rate": rate,
        "resident_mib_without_timers": round(reference / MIB),
        "added_mib": round((resident_bytes - reference) / MIB),
        "added_mib_without_pages_of_files": round((own - reference_own) / MIB),
        "added_mib_peak_while_firing": round((peak - reference) / MIB),
        **found,
        "machine": machine(),
    }
