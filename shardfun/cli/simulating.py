"""What ``shardfun simulate`` runs and prints: a campaign of seeds, or one run; for people or as JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from shardfun.cli.simulate import EXIT_UNSUITABLE, EXIT_VIOLATION
from shardfun.errors import ConfigurationError
from shardfun.simulation.campaign import (
    HOPELESS,
    NONDETERMINISM,
    Finding,
    Plan,
    Summary,
    Workers,
    of_both,
    options_of,
    run_options,
    run_seeds,
    watched,
)
from shardfun.simulation.case import Case, case_of, encode_case
from shardfun.simulation.options import Options
from shardfun.simulation.shrink import Shrinker, Shrunk
from shardfun.simulation.trace import HEADER, Event
from shardfun.simulation.world import Outcome

PROGRESS_EVERY_S: Final = 0.5
NOT_SHRUNK: Final = HOPELESS | {NONDETERMINISM, "died"}
FAULTS_SHOWN: Final = 12
LANDMARKS: Final = frozenset({"killed", "incarnation", "manifest durable", "power loss", "heals", "reset", "started"})
"""Events that are shown beside those of an address that is followed."""

LINE_WIDTH: Final = 120

T = TypeVar("T")


class Simulating:
    """See the module. An application runs in other processes only, where its modules are always the same.

    Args:
        args: of the command line.
    """

    def __init__(self, plan: Plan, args: argparse.Namespace) -> None:
        self._plan = plan
        self._args = args
        self._workers: Workers | None = None
        self._shown_at = 0.0

    def _there(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function where the application is."""
        if self._plan.app is None:
            return function(*arguments)
        if self._workers is None:
            self._workers = Workers()
        return self._workers.submit(function, *arguments).result()

    def _close(self) -> None:
        if self._workers is not None:
            self._workers.__exit__()
            self._workers = None

    # ---- many -----------------------------------------------------------------------------------------------------------
    def many(self, seeds: Sequence[int]) -> int:
        """Run seeds; returns the exit code."""
        args = self._args
        try:
            summary = run_seeds(
                seeds,
                self._plan,
                args.jobs,
                self._campaign_progress(len(seeds)),
                findings_max=args.max_findings,
                twice=args.twice,
            )
            self._end_progress()
            return self._report(summary)
        finally:
            self._close()

    def _report(self, summary: Summary) -> int:
        found = summary.findings
        shrunk = self._shrunk(found[0]) if found else None
        if self._args.json:
            self._save(shrunk, found)
            print(json.dumps(self._as_json(summary, shrunk)))
        else:
            for number, finding in enumerate(found):
                first = number == 0
                print("\n".join(self._finding(finding, shrunk if first else None, whole=first)))
                print()
            print(_table(summary))
        return _exit_code(found)

    # ---- one ------------------------------------------------------------------------------------------------------------
    def one(self, source: int | dict[str, Any]) -> int:
        """Run a seed, or what a case file holds, and show its events; returns the exit code."""
        args = self._args
        try:
            if isinstance(source, int):
                options = self._there(options_of, source, self._plan)
            else:
                options = self._there(case_of, self._plan, source).options
            outcome, events = self._watched(options)
            summary = Summary()
            summary.add(options, outcome)
            if args.twice:
                self._again(summary, options, outcome, events)
            shown = [event.line() for event in events if _wanted(event, args.follow)]
            if args.trace is not None:
                _write(args.trace, shown)
                shown = []
            if args.json:
                print(json.dumps(self._as_json(summary, None)))
                return _exit_code(summary.findings)
            print("\n".join([*_options(options), "", HEADER, *shown, _mark(outcome), ""]))
            for finding in summary.findings:
                if finding.kind == NONDETERMINISM:
                    print(f"{finding.kind}: {finding.what}")
            print(f"digest of the trace: {outcome.digest}")
            print(_table(summary))
            return _exit_code(summary.findings)
        finally:
            self._close()

    def _watched(self, options: Options) -> tuple[Outcome, list[Event]]:
        follow = self._args.follow or ""
        return self._there(watched, options, self._plan, follow if ":" in follow else "")

    def _again(self, summary: Summary, options: Options, outcome: Outcome, events: list[Event]) -> None:
        """Run it once more under another seed of hashes, and tell where it differs."""
        with Workers(hash_seed="1") as workers:
            other, others = workers.submit(watched, options, self._plan).result()
        both = of_both(outcome, other)
        if both is outcome:
            return
        pairs = zip(events, others, strict=False)
        where = next((f"{ours.line()}\n{theirs.line()}" for ours, theirs in pairs if ours != theirs), "")
        where = where or "all events are the same, but the results are not"
        summary.findings.append(Finding(options.seed, both.kind, f"{both.what}:\n{where}", options, [], outcome.faults))

    # ---- shrinking ------------------------------------------------------------------------------------------------------
    def _shrunk(self, finding: Finding) -> Shrunk | None:
        if self._args.no_shrink or finding.kind in NOT_SHRUNK:
            return None
        outcome = self._there(run_options, finding.options, self._plan)  # once more, for the figures of this one run
        if outcome.kind != finding.kind:
            return None
        shrunk = Shrinker(finding.options, outcome, self._attempt, self._args.shrink_time, self._shrink_progress).shrink()
        self._end_progress()
        return shrunk

    def _attempt(self, options: Options, steps_max: int) -> Outcome:
        return self._there(run_options, options, self._plan, None, steps_max)

    def _save(self, shrunk: Shrunk | None, found: list[Finding]) -> str:
        """Write the case file; its name, or empty if there is none. With ``--json`` only where ``--save`` says."""
        path: Path | None = self._args.save
        if not found or (path is None and (shrunk is None or self._args.json)):
            return ""
        path = path or Path(f"shardfun-seed-{found[0].seed}.json")
        _write(path, [json.dumps(self._case(found[0], shrunk), indent=2)])
        return str(path)

    def _case(self, finding: Finding, shrunk: Shrunk | None) -> dict[str, Any]:
        """The smallest case that is known."""
        options, outcome = finding.options, finding
        case = (
            Case(self._plan, options, outcome.kind, outcome.what)
            if shrunk is None
            else Case(self._plan, shrunk.options, shrunk.outcome.kind, shrunk.outcome.what)
        )
        return encode_case(case, self._there(options_of, finding.seed, self._plan))

    # ---- for people -----------------------------------------------------------------------------------------------------
    def _finding(self, finding: Finding, shrunk: Shrunk | None, *, whole: bool) -> Iterator[str]:
        yield f"seed {finding.seed}: {finding.kind}: {finding.what}"
        again = self._command(f"--seed {finding.seed}")
        if not whole:
            yield f"repeat: {again}"
            return
        yield ""
        yield from _options(finding.options if shrunk is None else shrunk.options)
        if shrunk is not None:
            yield ""
            yield from _shrinking(finding, shrunk)
        last = finding.last if shrunk is None else shrunk.outcome.last
        if last:
            yield ""
            yield HEADER
            yield from last[-self._args.last :]
            yield _mark(finding if shrunk is None else shrunk.outcome)
        yield ""
        if finding.kind == NONDETERMINISM:
            yield NONDETERMINISTIC.format(command=f"{again} --twice")
            return
        yield f"repeat: {again}"
        saved = self._save(shrunk, [finding])
        if saved:
            yield f"the smaller run: shardfun simulate --case {saved}    step by step: add --step"

    def _command(self, which: str) -> str:
        plan = self._plan
        parts = [f"shardfun simulate {which}"]
        parts += [f"--{name} {value}" for name, value in (("workload", plan.workload), ("mutation", plan.mutation)) if value]
        if plan.app is not None:
            app = plan.app
            named = (("app", app.app), ("config", app.config), ("check", app.check), ("records", app.records))
            parts += [f"--{name} {value}" for name, value in named if value]
            parts += [f"--input {name}={file}" for name, file in app.inputs]
        return " ".join(parts)

    def _as_json(self, summary: Summary, shrunk: Shrunk | None) -> dict[str, Any]:
        return {
            "seeds": summary.seeds,
            "workload": self._plan.workload,
            "mutation": self._plan.mutation,
            "app": None if self._plan.app is None else dataclasses.asdict(self._plan.app),
            "figures": {name: round(value, 3) for name, value in summary.figures.items()},
            "findings": [
                {
                    "seed": finding.seed,
                    "kind": finding.kind,
                    "what": finding.what,
                    "options": dataclasses.asdict(finding.options),
                    "faults": finding.faults,
                    "last_events": finding.last,
                    "shrunk": None if shrunk is None or number else self._shrunk_as_json(finding, shrunk),
                }
                for number, finding in enumerate(summary.findings)
            ],
            "digests": {str(seed): digest for seed, digest in summary.digests.items()},
            "wall_s": round(summary.wall_s, 3),
        }

    def _shrunk_as_json(self, finding: Finding, shrunk: Shrunk) -> dict[str, Any]:
        return {
            "what": shrunk.outcome.what,
            "size": shrunk.size,
            "attempts": shrunk.attempts,
            "seconds": round(shrunk.seconds, 3),
            "finished": shrunk.finished,
            "last_events": shrunk.outcome.last,
            "case": self._case(finding, shrunk),
        }

    # ---- progress -------------------------------------------------------------------------------------------------------
    def _campaign_progress(self, total: int) -> Callable[[Summary], None] | None:
        if not sys.stderr.isatty():
            return None
        return lambda summary: self._show(
            f"{summary.seeds} of {total} seeds, {len(summary.findings)} found something, {summary.wall_s:.0f} s"
        )

    def _shrink_progress(self, shrunk: Shrunk) -> None:
        if sys.stderr.isatty():
            size = ", ".join(f"{count:,} {name}" for name, count in shrunk.size.items())
            self._show(f"shrinking: {size}; attempt {shrunk.attempts}, {shrunk.seconds:.0f} s")

    def _show(self, line: str) -> None:
        now = time.monotonic()
        if now - self._shown_at >= PROGRESS_EVERY_S:
            self._shown_at = now
            print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)

    @staticmethod
    def _end_progress() -> None:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


NONDETERMINISTIC: Final = """\
The code that runs is not deterministic: perhaps it reads the clock (time.time(), use ctx.now), draws random numbers (random, uuid4;
use ctx.random), iterates over a set, or keeps something in a module. A run that fails can then not be repeated.
see where they part: {command}"""


def _exit_code(found: list[Finding]) -> int:
    if not found:
        return 0
    return EXIT_UNSUITABLE if found[0].kind == "unsuitable" else EXIT_VIOLATION


def _wanted(event: Event, follow: str | None) -> bool:
    """Whether an event is one of those to be shown."""
    if not follow or event.who in {follow, "world"}:
        return True
    if ":" in follow:
        return event.event == "gets" or event.event in LANDMARKS
    return False


def _mark(outcome: Outcome | Finding) -> str:
    """The line under the last event."""
    return "no violation" if outcome.kind == "ok" else f">>> {outcome.kind}: {outcome.what}"


def _options(options: Options) -> list[str]:
    found = dataclasses.asdict(options)
    faults = found.pop("faults")
    found["faults"] = "as drawn" if faults is None else f"{len(faults)} of those drawn"
    return [line for name, value in found.items() for line in _setting(name, value)]


def _setting(name: str, value: Any) -> Iterator[str]:
    """One setting; those that are groups have several to a line."""
    if not isinstance(value, dict):
        yield f"  {name:<16} {value}"
        return
    line = f"  {name:<16}"
    for part, number in value.items():
        text = f" {part}={number}"
        if len(line) + len(text) > LINE_WIDTH:
            yield line
            line = f"  {'':<16}"
        line += text
    yield line


def _shrinking(finding: Finding, shrunk: Shrunk) -> Iterator[str]:
    how = "nothing smaller was found" if shrunk.finished else "time was up (see --shrink-time)"
    yield f"shrunk in {shrunk.attempts} attempts, {shrunk.seconds:.0f} s; {how}:"
    before = {"shards": finding.options.shards, "faults": len(finding.faults), "records": finding.options.records}
    for name, count in shrunk.size.items():
        was = f"{before[name]:>8,}" if name in before else f"{'':>8}"
        yield f"  {name:<10} {was} -> {count:>8,}" if name in before else f"  {name:<10} {was}    {count:>8,}"
    names = shrunk.outcome.faults
    more = f" and {len(names) - FAULTS_SHOWN} more" if len(names) > FAULTS_SHOWN else ""
    yield f"faults that are left: {', '.join(names[:FAULTS_SHOWN]) or 'none'}{more}"


def _table(summary: Summary) -> str:
    rows = [("seeds", summary.seeds), ("found something", len(summary.findings))]
    rows += [(name.replace("_", " "), round(value)) for name, value in summary.figures.items()]
    return "\n".join(f"{name:<18} {value:>12,}" for name, value in rows)


def _write(path: Path, lines: list[str]) -> None:
    try:
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path}: expected a file that can be written: {error.strerror}") from error
