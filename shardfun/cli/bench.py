"""``shardfun bench WORKLOAD``: measure this machine with real nodes, beside a reference of the same run."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Final

import msgspec

DESCRIPTION: Final = """\
Run a benchmark on this machine: real shard processes, everything on. Nothing is kept. Each result stands beside a
reference that was measured in the same run, because absolute figures move with the machine and its other work.

  counter    keyed counter: increments over 10,000 ids, half of the events cross the mesh with 2 shards
  recovery   SIGKILL a shard under load: time to its first invocation, and to the next complete checkpoint
  calls      the counter beside 1,000 async functions that await: what they cost it, and the checkpoints
  state      state larger than its cache, every id touched again and again: memory per shard, time of a restart
  map        a map with many entries in one address: an update of one entry, beside one of a single value
  timers     many pending timers: the memory they add, and how late they are while they fire at a rate
  ask        requests over HTTP at a rate: time to the exactly-once reply, with checkpoints every 100 and every 50 ms
"""
EPILOG: Final = """\
examples:
  shardfun bench counter --shards 2 --json
  shardfun bench recovery --shards 4 --json
  shardfun bench state --ids 2000000 --json
  shardfun bench map --entries 1000000 --json
  shardfun bench timers --pending 1000000 --json
  shardfun bench ask --rate 1000 --seconds 20 --json
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to the parser of ``shardfun``."""
    parser = subparsers.add_parser(
        "bench",
        help="measure throughput and recovery on this machine",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "workload", choices=("counter", "recovery", "calls", "state", "map", "timers", "ask"), help="what to measure"
    )
    parser.add_argument("--shards", type=_positive, help="shard processes (default: 2, recovery 4)")
    parser.add_argument("--events", type=_positive, default=4_000_000, help="counter: events per run (default: 4000000)")
    parser.add_argument("--repeats", type=_positive, default=5, help="counter: runs with and without checkpoints (default: 5)")
    parser.add_argument("--kills", type=_positive, default=8, help="recovery: kills with and without a spare (default: 8)")
    parser.add_argument(
        "--rate",
        type=_positive,
        help="recovery: events per second of load (default: 100000); timers: fired per second (10000); ask: requests (1000)",
    )
    parser.add_argument("--seconds", type=_positive, default=15, help="ask: length of each run (default: 15)")
    parser.add_argument("--pending", type=_positive, default=1_000_000, help="timers: pending timers (default: 1000000)")
    parser.add_argument("--calls", type=_positive, default=1000, help="calls: functions that await (default: 1000)")
    parser.add_argument("--ids", type=_positive, default=2_000_000, help="state: distinct ids (default: 2000000)")
    parser.add_argument("--rounds", type=_positive, default=3, help="state: how often each id is touched (default: 3)")
    parser.add_argument("--entries", type=_positive, default=1_000_000, help="map: entries of the map (default: 1000000)")
    parser.add_argument("--updates", type=_positive, default=500_000, help="map: updates to measure (default: 500000)")
    parser.add_argument(
        "--cache-mib",
        type=_positive,
        default=256,
        help="map: state.cache in MiB; with 16 most entries are read from disk (default: 256)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from shardfun.telemetry.logs import configure_logging

    configure_logging(level="error", json=False, stream=sys.stderr)
    result = _measure(arguments)
    if arguments.json:
        sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
        return 0
    for name, figure in result.items():
        shown = figure
        if isinstance(figure, dict) and "median" in figure:
            shown = f"{figure['median']:,} ({figure['min']:,} to {figure['max']:,})"
        sys.stdout.write(f"{name.replace('_', ' '):46} {shown}\n")
    return 0


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.workload == "counter":
        from shardfun.bench.counter import bench_counter

        return bench_counter(arguments.shards or 2, arguments.events, arguments.repeats, _progress)
    if arguments.workload == "calls":
        from shardfun.bench.calls import bench_calls

        return bench_calls(arguments.calls, arguments.events, arguments.repeats, _progress)
    if arguments.workload == "state":
        from shardfun.bench.state import bench_state

        return bench_state(arguments.shards or 2, arguments.ids, arguments.rounds, _progress)
    if arguments.workload == "map":
        from shardfun.bench.map import bench_map

        return bench_map(arguments.entries, arguments.updates, arguments.cache_mib, _progress)
    if arguments.workload == "timers":
        from shardfun.bench.timers import bench_timers

        return bench_timers(arguments.shards or 2, arguments.pending, arguments.rate or 10_000, _progress)
    if arguments.workload == "ask":
        from shardfun.bench.ask import bench_ask

        return bench_ask(arguments.shards or 2, arguments.rate or 1000, arguments.seconds, _progress)
    from shardfun.bench.recovery import bench_recovery

    return bench_recovery(arguments.shards or 4, arguments.kills, arguments.rate or 100_000, _progress)


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _positive(text: str) -> int:
    number = int(text.replace("_", ""))
    if number < 1:
        msg = f"expected a number from 1, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return number
