"""``shardfun chaos``: real processes of a node under real faults, and whether the results are those of an undisturbed run."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from shardfun.errors import ApplicationImportError, ConfigurationError

if TYPE_CHECKING:
    from shardfun.chaos.plan import Counts, Plan
    from shardfun.chaos.report import Report
    from shardfun.model.status import NodeStatus

EXIT_DIFFERENT: Final = 1
LIST: Final = "list"
KILLS_DEFAULT: Final = 20
SHOW_EVERY_S: Final = 0.5
NOTE_WIDTH: Final = 16

DESCRIPTION: Final = """\
Run a private copy of a node and do to it what production does sooner or later: kill and stop shards, spares and the supervisor at
random moments and at named steps of a checkpoint or a recovery, fill the disk. Then compare what it has published and stored
with an undisturbed run, or ask a check of yours.

Your data, outputs and ports are not touched: everything is redirected to a temporary folder, and what cannot be is refused.
A supervisor that was killed is started again with the same command.
"""
EPILOG: Final = """\
examples:
  shardfun chaos conf/bank.toml --kills 50 --seed 7
  shardfun chaos conf/shop.toml --kills 20 --records 50000 --replace hook --json >report.json
  shardfun chaos conf/shop.toml --check shop.checks:nothing_lost
  shardfun chaos conf/bank.toml --kills 0 --failpoint manifest-renamed --failpoint delta-written=ENOSPC
  shardfun chaos --failpoint list

Exit codes: 0 nothing differs, 1 something does (it is printed), 2 configuration or usage, 3 the application or the check cannot be
run, 4 the undisturbed run's data cannot be read, 6 nor can an input, 9 the run shows nothing: faults fell outside of it or met
nobody, or undisturbed runs differ already.
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to the parser of ``shardfun``."""
    parser = subparsers.add_parser(
        "chaos",
        help="kill and stop the processes of a private copy of a node, and compare its results",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("config", type=Path, nargs="?", metavar="CONFIG", help="the TOML file of the node")
    faults = parser.add_argument_group("faults", "what is not given follows --kills")
    faults.add_argument(
        "--kills", type=_count, default=KILLS_DEFAULT, metavar="N", help="SIGKILLs of shards and spares (default: 20)"
    )
    faults.add_argument(
        "--supervisor-kills", type=_count, metavar="N", help="of the supervisor (default: a fifth of the kills)"
    )
    faults.add_argument(
        "--freezes", type=_count, metavar="N", help="SIGSTOPs, most beyond the heartbeat limit (default: a tenth)"
    )
    faults.add_argument(
        "--failpoints", type=_count, metavar="N", help="faults at named steps, drawn (default: half of the kills)"
    )
    faults.add_argument(
        "--full-disk", type=_count, metavar="N", help="times that the disk is full (default: 1 from 10 kills on)"
    )
    faults.add_argument(
        "--failpoint",
        action="append",
        default=[],
        metavar="NAME[=ACTION]",
        help="one more, by its name, which has to be reached; 'list' names them",
    )
    faults.add_argument("--seed", type=_count, default=0, metavar="S", help="draws what is done and when (default: 0)")
    faults.add_argument("--plan-only", action="store_true", help="print the plan, and do nothing")
    node = parser.add_argument_group("the private copy")
    node.add_argument("--shards", type=_positive, metavar="N", help="other than in the configuration")
    node.add_argument("--records", type=_positive, metavar="N", help="take at most so many records of each ingress")
    node.add_argument(
        "--duration", type=_seconds, metavar="SECONDS", help="reading takes at least so long (default: as the plan needs)"
    )
    node.add_argument(
        "--input", action="append", default=[], metavar="NAME=FILE", help="records for an ingress, instead of its own"
    )
    node.add_argument(
        "--replace", action="append", default=[], metavar="NAME", help="an egress that reaches outside: into a file instead"
    )
    node.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="a setting, as in checkpoint.interval=1s",
    )
    verdict = parser.add_argument_group("the verdict")
    verdict.add_argument(
        "--check", metavar="MODULE:FUNCTION", help="ask check(published, records) instead of comparing with an undisturbed run"
    )
    verdict.add_argument(
        "--order",
        action="append",
        default=[],
        metavar="EGRESS=FIELD",
        help="records with the same FIELD have to keep their order",
    )
    verdict.add_argument(
        "--no-state", action="store_true", help="compare only what is published, not what is stored in the end"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--keep",
        action="store_true",
        help="keep the folder with configurations, logs, data and outputs; it is kept anyway if anything differs or fails",
    )
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code.

    Raises:
        ShardfunError: see ``run_chaos``.
    """
    if LIST in options.failpoint:
        return _list_points()
    if options.config is None:
        raise ConfigurationError("expected the configuration of a node: shardfun chaos CONFIG")
    counts = _counts(options)
    if options.plan_only:
        return _print_plan(options, counts)
    from shardfun.chaos.trial import run_chaos
    from shardfun.telemetry.logs import configure_logging

    configure_logging(level="error", json=False, stream=sys.stderr)
    with_progress = Progress(len(counts.kinds()) + len(options.failpoint))
    try:
        report = run_chaos(
            options.config,
            counts=counts,
            seed=options.seed,
            shards=options.shards,
            inputs=_pairs("--input", options.input),
            records=options.records,
            overrides=options.overrides,
            replace=options.replace,
            points=tuple(options.failpoint),
            check=None if options.check is None else _find_check(options.check),
            order=_pairs("--order", options.order),
            state=not options.no_state,
            duration_s=options.duration,
            keep=options.keep,
            show=with_progress.show,
        )
    except BaseException as error:
        with_progress.end()
        for note in getattr(error, "__notes__", ()):
            print(note, file=sys.stderr)
        raise
    with_progress.end()
    if options.json:
        from shardfun.chaos.trial import describe

        print(describe(report).decode())
    else:
        _print_report(report)
    return EXIT_DIFFERENT if report.differences else 0


# ---- arguments -----------------------------------------------------------------------------------------------------------
def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number from 0, got {text!r}")
    return int(text)


def _positive(text: str) -> int:
    number = _count(text.replace("_", ""))
    if not number:
        raise argparse.ArgumentTypeError(f"expected a number from 1, got {text!r}")
    return number


def _seconds(text: str) -> float:
    try:
        seconds = float(text.removesuffix("s").strip())
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of seconds, got {text!r}")
    return seconds


def _pairs(option: str, texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise ConfigurationError(f"{option} {text}: expected two parts with '=' between them, as its help says")
        pairs[name] = value
    return pairs


def _counts(options: argparse.Namespace) -> Counts:
    from shardfun.chaos.plan import Counts

    counts = Counts.of(
        options.kills,
        supervisor_kills=options.supervisor_kills,
        freezes=options.freezes,
        failpoints=options.failpoints,
        full_disk=options.full_disk,
    )
    if not counts.kinds() and not options.failpoint:
        raise ConfigurationError(
            "expected at least one fault: --kills, --supervisor-kills, --freezes, --failpoints, --full-disk"
        )
    return counts


def _find_check(reference: str) -> Callable[..., Any]:
    from shardfun.sdk.importing import import_object, search_here

    module_name, colon, name = reference.partition(":")
    if not (module_name and colon and name):
        raise ConfigurationError(f"--check {reference}: expected MODULE:FUNCTION")
    search_here()
    found = import_object(reference, f"--check {reference}")
    if not callable(found):
        raise ApplicationImportError(f"--check {reference}: expected a function, got {found!r:.80}")
    checked: Callable[..., Any] = found
    return checked


# ---- output --------------------------------------------------------------------------------------------------------------
class Progress:
    """One line on a terminal that says how far it is; nothing elsewhere.

    Args:
        total: faults.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._terminal = sys.stderr.isatty()
        self._began = self._shown_at = time.monotonic()
        self._write("an undisturbed run first")

    def show(self, done: int, status: NodeStatus | None) -> None:
        """Called for each fault."""
        now = time.monotonic()
        if now - self._shown_at < SHOW_EVERY_S and done < self._total:
            return
        self._shown_at = now
        node = "starting" if status is None else f"{status.state}, {status.records_in:,} records"
        self._write(f"{done} of {self._total} faults, {now - self._began:.0f} s, node {node}")

    def end(self) -> None:
        """Take the line away."""
        self._write("")

    def _write(self, text: str) -> None:
        if self._terminal:
            print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)


def _list_points() -> int:
    from shardfun.chaos.points import STEPS
    from shardfun.failpoints import DISK_POINTS

    for point, step in STEPS.items():
        errors = ", ENOSPC, EIO" if point in DISK_POINTS else ""
        print(f"{point:<20} {step.role:<11} {step.when:<11} kill, stop{errors:<14} {step.what}")
    return 0


def _print_plan(options: argparse.Namespace, counts: Counts) -> int:
    plan = _plan_of(options, counts)
    if options.json:
        import msgspec

        print(msgspec.json.encode({"seed": plan.seed, "faults": [str(fault) for fault in plan.faults]}).decode())
        return 0
    print(f"seed {plan.seed}: {len(plan.faults)} faults, about {plan.duration_s:.0f} s of reading")
    for number, fault in enumerate(plan.faults, 1):
        print(f"{number:4}  {fault}")
    return 0


def _plan_of(options: argparse.Namespace, counts: Counts) -> Plan:
    """The same plan that a run would draw."""
    from shardfun.chaos.plan import make_plan
    from shardfun.config import load_config

    config = load_config(options.config, overrides=options.overrides)
    return make_plan(
        options.seed,
        counts,
        shards=options.shards or config.shards,
        spares=config.supervision.spares,
        publishes=bool(config.egress),
        points=tuple(options.failpoint),
    )


def _print_report(report: Report) -> None:
    for note in report.notes:
        print(f"{'private copy':<{NOTE_WIDTH}} {note}")
    print()
    for line in report.lines():
        print(line)
    print()
    for text in report.unreached:
        print(f"{'not reached':<{NOTE_WIDTH}} {text}")
    if report.folder:
        print(f"{'kept':<{NOTE_WIDTH}} {report.folder}")
    for sentence in report.differences:
        print(f"{'different':<{NOTE_WIDTH}} {sentence}")
    print(report)
