"""``shardfun simulate``: test the protocol in a simulated world, under injected faults, one seed after the other."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from shardfun.errors import ConfigurationError

if TYPE_CHECKING:
    from shardfun.simulation.campaign import Finding, Plan, Summary

EXIT_VIOLATION: Final = 1
PROGRESS_EVERY_S: Final = 0.5
DEFAULT_SEEDS: Final = "1:100"

DESCRIPTION: Final = """\
Run the real core of all shards and of the supervisor in one thread, with simulated network, disk, clock and faults.

A seed decides everything: shards, limits, which faults happen and when, and what happens next. First things fail; then the world
heals, and everything that was admitted must come to its end. Exit code 1 if an invariant was violated.
"""
EPILOG: Final = """\
examples:
  shardfun simulate --seeds 1:500                    many seeds, on all cores
  shardfun simulate --seed 17                        one seed, with every event
  shardfun simulate --seeds 1:200 --mutation no-outbox   would a deliberate mistake be found?
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to the parser of ``shardfun``."""
    parser = subparsers.add_parser(
        "simulate",
        help="test the protocol in a simulated world, under faults, by seed",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seeds", default=DEFAULT_SEEDS, metavar="FIRST:LAST", help="seeds to run (default: %(default)s)")
    which.add_argument("--seed", type=int, metavar="S", help="repeat one seed and print every event")
    parser.add_argument("--workload", metavar="NAME", help="pairs, bank, ring or trees (default: each seed picks one)")
    parser.add_argument("--mutation", metavar="NAME", help="break the core on purpose; 'list' names the ways")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes (default: one per core)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Run; returns the exit code.

    Raises:
        ConfigurationError: an argument is wrong.
    """
    from shardfun.simulation.campaign import Plan, run_seeds
    from shardfun.simulation.mutations import MUTATIONS
    from shardfun.simulation.options import WORKLOADS

    if args.mutation == "list":
        for name, mutation in MUTATIONS.items():
            print(f"{name:<22} {mutation.mistake}")
        return 0
    if args.mutation is not None and args.mutation not in MUTATIONS:
        raise ConfigurationError(f"--mutation {args.mutation}: expected one of {', '.join(MUTATIONS)}")
    if args.workload is not None and args.workload not in WORKLOADS:
        raise ConfigurationError(f"--workload {args.workload}: expected one of {', '.join(WORKLOADS)}")
    if args.jobs is not None and args.jobs < 1:
        raise ConfigurationError(f"--jobs {args.jobs}: expected a number from 1")
    plan = Plan(args.workload, args.mutation)
    if args.seed is not None:
        return _replay(args.seed, plan, as_json=args.json)
    summary = run_seeds(_seeds(args.seeds), plan, args.jobs, _progress(args.seeds))
    if args.json:
        print(json.dumps(_as_json(summary, plan)))
    else:
        for finding in summary.findings:
            print(_finding(finding, plan))
        print(_table(summary))
    return EXIT_VIOLATION if summary.findings else 0


def _seeds(text: str) -> range:
    first, colon, last = text.partition(":")
    if not first.isdecimal() or not last.isdecimal() or not colon or int(last) < int(first):
        raise ConfigurationError(f"--seeds {text}: expected FIRST:LAST, such as {DEFAULT_SEEDS}")
    return range(int(first), int(last) + 1)


def _progress(what: str) -> Callable[[Summary], None] | None:
    """Shows how far it is, on a terminal."""
    if not sys.stderr.isatty():
        return None
    shown_at = 0.0
    total = len(_seeds(what))

    def show(summary: Summary) -> None:
        nonlocal shown_at
        now = time.monotonic()
        if now - shown_at < PROGRESS_EVERY_S and summary.seeds < total:
            return
        shown_at = now
        end = "\n" if summary.seeds == total else ""
        line = f"{summary.seeds} of {total} seeds, {len(summary.findings)} found something, {summary.wall_s:.0f} s"
        print(f"\r{line}\x1b[K", end=end, file=sys.stderr, flush=True)

    return show


# ---- output --------------------------------------------------------------------------------------------------------------
def _replay(seed: int, plan: Plan, *, as_json: bool) -> int:
    from shardfun.simulation.campaign import Summary, run_seed
    from shardfun.simulation.options import draw
    from shardfun.simulation.trace import HEADER

    summary = Summary()
    if as_json:
        summary.add(seed, plan, run_seed(seed, plan))
        print(json.dumps(_as_json(summary, plan)))
        return EXIT_VIOLATION if summary.findings else 0
    print(draw(seed, plan.workload))
    print(HEADER)
    outcome = run_seed(seed, plan, lambda event: print(event.line()))
    summary.add(seed, plan, outcome)
    print()
    print("no violation" if outcome.kind == "ok" else f"{outcome.kind}: {outcome.what}")
    print(f"digest of the trace: {outcome.digest}")
    print(_table(summary))
    return EXIT_VIOLATION if summary.findings else 0


def _finding(finding: Finding, plan: Plan) -> str:
    again = f"shardfun simulate --seed {finding.seed}"
    again += f" --workload {plan.workload}" if plan.workload else ""
    again += f" --mutation {plan.mutation}" if plan.mutation else ""
    options = "\n".join(f"  {name:<16} {value}" for name, value in finding.options.items())
    events = "\n".join(finding.last)
    return f"seed {finding.seed}: {finding.kind}: {finding.what}\n\n{options}\n\n{events}\n\nrepeat: {again}\n"


def _table(summary: Summary) -> str:
    rows = [("seeds", summary.seeds), ("found something", len(summary.findings))]
    rows += [(name.replace("_", " "), round(value)) for name, value in summary.figures.items()]
    return "\n".join(f"{name:<18} {value:>12,}" for name, value in rows)


def _as_json(summary: Summary, plan: Plan) -> dict[str, Any]:
    return {
        "seeds": summary.seeds,
        "workload": plan.workload,
        "mutation": plan.mutation,
        "figures": {name: round(value, 3) for name, value in summary.figures.items()},
        "findings": [
            {
                "seed": finding.seed,
                "kind": finding.kind,
                "what": finding.what,
                "options": finding.options,
                "last_events": finding.last,
            }
            for finding in summary.findings
        ],
        "digests": {str(seed): digest for seed, digest in summary.digests.items()},
        "wall_s": round(summary.wall_s, 3),
    }
