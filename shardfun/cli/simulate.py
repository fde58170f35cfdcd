"""``shardfun simulate``: test the protocol, or an application, in a simulated world, under injected faults, one seed after the other."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from shardfun.errors import ConfigurationError

if TYPE_CHECKING:
    from shardfun.simulation.campaign import Plan

EXIT_VIOLATION: Final = 1
EXIT_UNSUITABLE: Final = 3
DEFAULT_SEEDS: Final = "1:100"
FINDINGS_MAX: Final = 5
SHRINK_S: Final = 30.0
LAST: Final = 40

DESCRIPTION: Final = """\
Run the real core of all shards and of the supervisor in one thread, with simulated network, disk, clock and faults.

A seed decides everything: shards, limits, which faults happen and when, and what happens next. First things fail; then the world
heals, and everything that was admitted must come to its end. With --app or --config, your application runs there, and how it ends is
compared with an undisturbed run of the same input. See docs/SIMULATION.md.

The first seed that finds something is shrunk: to fewer shards, faults, records. Its last events are shown, and it is saved as a case.
"""
EPILOG: Final = """\
examples:
  shardfun simulate --seeds 1:500                         the protocol, many seeds, on all cores
  shardfun simulate --app shop:app --seeds 1:1000         an application, with the Simulation beside it
  shardfun simulate --config node.toml --records 200      an application, with the ingresses of a node
  shardfun simulate --app shop:app --input orders=orders.jsonl --twice
  shardfun simulate --seed 17                             one seed, with every event
  shardfun simulate --seed 17 --step                      one seed, step by step
  shardfun simulate --case shardfun-seed-17.json --follow shop/cart:42
  shardfun simulate --seeds 1:200 --mutation no-outbox    would a deliberate mistake be found?

exit codes: 0 nothing found, 1 an invariant was violated, 2 usage, 3 the application cannot be imported or simulated
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to the parser of ``shardfun``."""
    parser = subparsers.add_parser(
        "simulate",
        help="test the protocol or an application in a simulated world, under faults, by seed",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    which = parser.add_argument_group("which runs").add_mutually_exclusive_group()
    which.add_argument("--seeds", default=DEFAULT_SEEDS, metavar="FIRST:LAST", help="seeds to run (default: %(default)s)")
    which.add_argument("--seed", type=int, metavar="S", help="repeat one seed and print every event")
    which.add_argument("--case", type=Path, metavar="FILE", help="repeat a case that was saved, and print every event")
    what = parser.add_argument_group("what runs")
    what.add_argument("--app", metavar="MODULE:NAME", default="", help="an application, imported from the current folder")
    what.add_argument("--config", metavar="FILE", default="", help="the configuration of a node: its application and ingresses")
    what.add_argument(
        "--input", action="append", default=[], metavar="INGRESS=FILE", help="records of an ingress: JSON lines or CSV"
    )
    what.add_argument("--check", metavar="MODULE:NAME", default="", help="the Simulation to use, if not the one beside the app")
    what.add_argument("--records", type=int, metavar="N", help="records of each ingress at most (default: about a second's)")
    what.add_argument("--workload", metavar="NAME", help="pairs, bank, ring or trees (default: each seed picks one)")
    what.add_argument("--mutation", metavar="NAME", help="break the core on purpose; 'list' names the ways")
    how = parser.add_argument_group("how")
    how.add_argument("--jobs", type=int, metavar="N", help="processes (default: one per core)")
    how.add_argument("--twice", action="store_true", help="run each seed twice: is it the same run?")
    how.add_argument(
        "--max-findings", type=int, default=FINDINGS_MAX, metavar="N", help="end after so many seeds that fail (%(default)s)"
    )
    how.add_argument("--no-shrink", action="store_true", help="do not look for a smaller run that fails, too")
    how.add_argument(
        "--shrink-time", type=float, default=SHRINK_S, metavar="S", help="seconds to look for that (default: %(default)s)"
    )
    how.add_argument("--save", type=Path, metavar="FILE", help="where to save the case (default: shardfun-seed-S.json)")
    show = parser.add_argument_group("what is shown of one run")
    show.add_argument("--trace", type=Path, metavar="FILE", help="write the events to a file")
    show.add_argument("--last", type=int, default=LAST, metavar="N", help="events shown of a finding (default: %(default)s)")
    show.add_argument("--follow", metavar="WHO", help="only events of 'shard 1', supervisor, or an address as shop/cart:42")
    show.add_argument("--step", action="store_true", help="go through it step by step; 'help' there explains")
    show.add_argument("--until", metavar="WHAT", help="with --step: first go on until a step, a time (12.5s) or an event")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Run; returns the exit code.

    Raises:
        ShardfunError: an argument is wrong, or the application.
    """
    from shardfun.cli.simulating import Simulating
    from shardfun.simulation.case import read_plan
    from shardfun.simulation.mutations import MUTATIONS

    if args.mutation == "list":
        for name, mutation in MUTATIONS.items():
            print(f"{name:<22} {mutation.mistake}")
        return 0
    _check_how(args)
    source: int | dict[str, Any] | None = args.seed
    if args.case is not None:
        _refuse_with_case(args)
        plan, source = read_plan(args.case)
    else:
        plan = _plan(args)
    if source is None:
        return Simulating(plan, args).many(_seeds(args.seeds))
    return _step(args, plan, source) if args.step else Simulating(plan, args).one(source)


def _check_how(args: argparse.Namespace) -> None:
    """What does not depend on what runs."""
    for name in ("jobs", "records", "max_findings", "last"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ConfigurationError(f"--{name.replace('_', '-')} {getattr(args, name)}: expected a number from 1")
    one = args.seed is not None or args.case is not None
    if (args.step and not one) or (args.until is not None and not args.step):
        raise ConfigurationError("--step: expected a run to go through: --seed S or --case FILE; and --step beside --until")


def _plan(args: argparse.Namespace) -> Plan:
    from shardfun.simulation.application.subject import AppPlan
    from shardfun.simulation.campaign import Plan
    from shardfun.simulation.mutations import MUTATIONS
    from shardfun.simulation.options import WORKLOADS

    if args.mutation is not None and args.mutation not in MUTATIONS:
        raise ConfigurationError(f"--mutation {args.mutation}: expected one of {', '.join(MUTATIONS)}")
    if args.workload is not None and args.workload not in WORKLOADS:
        raise ConfigurationError(f"--workload {args.workload}: expected one of {', '.join(WORKLOADS)}")
    if not (args.app or args.config):
        lonely = [f"--{name}" for name in ("input", "check", "records") if getattr(args, name)]
        if lonely:
            raise ConfigurationError(f"{lonely[0]}: expected --app MODULE:NAME or --config FILE beside it")
        return Plan(args.workload, args.mutation)
    if args.workload is not None:
        raise ConfigurationError("--workload: expected either a workload or an application, not both")
    app = AppPlan(args.app, args.config, tuple(map(_input, args.input)), args.check, args.records)
    return Plan(None, args.mutation, app)


def _input(text: str) -> tuple[str, str]:
    name, equals, file = text.partition("=")
    if not name or not equals or not file:
        raise ConfigurationError(f"--input {text}: expected INGRESS=FILE, as in --input orders=orders.jsonl")
    return name, file


def _seeds(text: str) -> range:
    first, colon, last = text.partition(":")
    if not first.isdecimal() or not last.isdecimal() or not colon or int(last) < int(first):
        raise ConfigurationError(f"--seeds {text:.100}: expected FIRST:LAST, such as {DEFAULT_SEEDS}")
    return range(int(first), int(last) + 1)


def _refuse_with_case(args: argparse.Namespace) -> None:
    """A case says by itself what runs."""
    given = [name for name in ("app", "config", "input", "check", "records", "workload", "mutation") if getattr(args, name)]
    if given:
        raise ConfigurationError(f"--{given[0]}: expected nothing of this beside --case: the file says what runs")


# ---- step by step --------------------------------------------------------------------------------------------------------
PROMPT: Final = "> "


def _step(args: argparse.Namespace, plan: Plan, source: int | dict[str, Any]) -> int:
    """Ask for commands on standard input until it ends."""
    from shardfun.simulation.stepping import Stepping
    from shardfun.simulation.trace import HEADER

    asks = sys.stdin.isatty()
    with Stepping(plan, source) as stepping:
        print(HEADER)
        if args.until is not None:
            print(stepping.command(f"u {args.until}"))
        while True:
            if asks:
                print(PROMPT, end="", flush=True)
            line = sys.stdin.readline()
            if not line or line.strip() in {"q", "quit"}:
                return 0
            print(stepping.command(line), flush=True)
