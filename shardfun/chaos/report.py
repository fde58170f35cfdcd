"""What was done to a node, when, how it came back, and what is wrong: as a value, as JSON, as lines for people."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from shardfun.chaos.plan import Fault, Kind, Plan

NOTHING: Final = "-"
RECOVERING: Final = frozenset({Kind.KILL_SHARD, Kind.KILL_SUPERVISOR, Kind.FREEZE_SHARD, Kind.FAILPOINT})
"""After these the node has to recover; the others it may get over."""


@dataclass(slots=True)
class Happened:
    """A fault as it was done.

    Args:
        at_s: seconds since the first start; ``wall_s`` by the clock of the machine.
        what: to whom, and at which failpoint.
        pid: the process that was hit; 0: none alone.
        state: of the node, and ``records`` it had read, as it said just before.
        sigkill: whether a process was ended by SIGKILL.
        restart: whether the node had to be started again; ``harmless``: an error that a process gets over.
        recovered_ms: how long until the node ran again; ``None``: there was nothing to recover from.
    """

    at_s: float
    wall_s: float
    kind: Kind
    what: str
    pid: int
    state: str
    records: int
    sigkill: bool = False
    restart: bool = False
    harmless: bool = False
    recovered_ms: float | None = None

    def __str__(self) -> str:
        recovered = NOTHING if self.recovered_ms is None else f"{self.recovered_ms:.0f} ms"
        return f"{self.at_s:9.3f} s  {self.kind:<44} {self.what:<52} {self.state:<10} {self.records:>9,} {recovered:>9}"


class Unreached(NamedTuple):
    """A fault of the plan that did not happen."""

    fault: Fault
    why: str

    def __str__(self) -> str:
        return f"{self.fault.point or self.fault.kind}: {self.why}"


TIMELINE_HEAD: Final = f"{'at':>11}  {'fault':<44} {'what':<52} {'node':<10} {'records':>9} {'recovered':>9}"


class KindFigures(NamedTuple):
    """A kind of fault: how often it was done, and of its recoveries the median, the 99th percentile and the longest, in ms."""

    kind: str
    times: int
    p50: float | None
    p99: float | None
    longest: float | None


@dataclass(slots=True)
class Report:
    """One run under a plan, and its verdict.

    Args:
        differences: what is wrong, one sentence each; empty: nothing.
        recoveries_ms: of shards, as the node logs them; ``restarts_ms`` of the whole node.
        unreached: faults that met nobody: failpoints that were armed in vain, a full disk that nobody wrote to.
        notes: what was redirected, and other things to know.
    """

    app: str
    shards: int
    plan: Plan
    timeline: list[Happened] = field(default_factory=list)
    recoveries_ms: list[float] = field(default_factory=list)
    restarts_ms: list[float] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    unreached: list[Unreached] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    records: int = 0
    duration_s: float = 0.0
    disk: str = ""
    folder: str = ""

    def count(self, *kinds: Kind) -> int:
        """Faults of these kinds."""
        return sum(fault.kind in kinds for fault in self.timeline)

    @property
    def sigkills(self) -> int:
        """Processes that were ended by SIGKILL, those that did it themselves at a failpoint included."""
        return sum(fault.sigkill for fault in self.timeline)

    @property
    def during_recovery(self) -> int:
        """Faults that hit a node which was recovering or starting."""
        return sum(fault.state != "running" for fault in self.timeline)

    @property
    def figures(self) -> list[KindFigures]:
        """One line of the table for each kind of fault that was done."""
        found = []
        for kind in Kind:
            faults = [fault for fault in self.timeline if fault.kind is kind]
            if faults:
                times = [fault.recovered_ms for fault in faults if fault.recovered_ms is not None]
                p50, p99, longest = (percentile(times, percent) for percent in (50, 99, 100))
                found.append(KindFigures(str(kind), len(faults), p50, p99, longest))
        return found

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "verdict": "different" if self.differences else "equal",
            "app": self.app,
            "seed": self.plan.seed,
            "shards": self.shards,
            "records": self.records,
            "duration_s": round(self.duration_s, 3),
            "faults": {kind.name.lower(): self.count(kind) for kind in Kind if self.count(kind)},
            "sigkills": self.sigkills,
            "during_recovery": self.during_recovery,
            "recoveries": _summary(self.recoveries_ms),
            "restarts": _summary(self.restarts_ms[1:]),
            "by_kind": [
                {"kind": kind, "times": times, "recovery_p50_ms": p50, "recovery_p99_ms": p99, "recovery_max_ms": longest}
                for kind, times, p50, p99, longest in self.figures
            ],
            "timeline": [
                {
                    "at_s": round(fault.at_s, 3),
                    "kind": fault.kind.name.lower(),
                    "what": fault.what,
                    "pid": fault.pid,
                    "state": fault.state,
                    "records": fault.records,
                    "sigkill": fault.sigkill,
                    "recovered_ms": fault.recovered_ms,
                }
                for fault in self.timeline
            ],
            "unreached": [str(missed) for missed in self.unreached],
            "differences": self.differences,
            "disk": self.disk,
            "notes": self.notes,
            "folder": self.folder,
        }

    def lines(self) -> list[str]:
        """The timeline and the table."""
        return [*timeline_lines(self.timeline), "", *table_lines(self.figures)]

    def __str__(self) -> str:
        counts = ", ".join(f"{self.count(kind)} x {kind}" for kind in Kind if self.count(kind))
        times = _summary(self.recoveries_ms)
        recoveries = (
            f"; {times['times']} recoveries, p50 {times['p50_ms']:.0f} ms, max {times['max_ms']:.0f} ms"
            if times["times"]
            else ""
        )
        verdict = f"{len(self.differences)} differences" if self.differences else "no difference"
        return f"seed {self.plan.seed}, {self.duration_s:.0f} s: {counts}; {self.during_recovery} in a recovery{recoveries}; {verdict}"


def timeline_lines(timeline: Iterable[Happened]) -> list[str]:
    """One line for each fault, below a line of headings."""
    return [TIMELINE_HEAD, *map(str, timeline)]


def table_lines(figures: Iterable[KindFigures]) -> list[str]:
    """Kinds of faults: how often, and how long recoveries took."""
    head = f"{'fault':<44} {'times':>6} {'recovery p50':>13} {'p99':>9} {'max':>9}"
    return [
        head,
        *(
            f"{kind:<44} {times:>6} {_ms(p50):>13} {_ms(p99):>9} {_ms(longest):>9}"
            for kind, times, p50, p99, longest in figures
        ),
    ]


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The nearest-rank percentile; ``None`` of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)] if ordered else None


def _summary(values: Sequence[float]) -> dict[str, Any]:
    return {
        "times": len(values),
        "p50_ms": percentile(values, 50),
        "p99_ms": percentile(values, 99),
        "max_ms": percentile(values, 100),
    }


def _ms(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0f} ms"
