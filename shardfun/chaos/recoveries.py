"""How long a node took to come back from each fault, read from its log: there it says who died, and when it ran again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from shardfun.chaos.report import RECOVERING, Happened, Report

AGAIN: Final = ("running", "recovered")
EARLY_S: Final = 0.01
"""The log has milliseconds, and the runner notes a fault just after it."""


def add_recoveries(report: Report, events: Sequence[dict[str, Any]]) -> None:
    """Add to a report what the log of its run says."""
    timed = [(at, event) for event in events if (at := _time(event)) is not None]
    for _, event in timed:
        if event.get("event") == "recovered":
            report.recoveries_ms.append(float(event["took_ms"]))
        elif event.get("event") == "running":
            report.restarts_ms.append(float(event["took_ms"]))
    for fault in report.timeline:
        if fault.kind in RECOVERING and not fault.harmless:
            fault.recovered_ms = _recovered_ms(fault, timed)


def _recovered_ms(fault: Happened, timed: list[tuple[float, dict[str, Any]]]) -> float | None:
    """From the fault to the next time that the node ran again, behind the death of the process that was hit."""
    # A supervisor that is dead when the runner looks has logged what it had to log before.
    since_s = fault.wall_s if fault.restart else fault.wall_s - EARLY_S
    behind = [(at, event) for at, event in timed if at >= since_s]
    first = 0
    if not fault.restart:
        died = next((number for number, (_, event) in enumerate(behind) if _tells_death(event, fault.pid)), None)
        if died is None:
            return None  # it has got over it
        first = died
    again = next((at for at, event in behind[first:] if event.get("event") in AGAIN), None)
    return None if again is None else round((again - fault.wall_s) * 1000, 1)


def _tells_death(event: dict[str, Any], pid: int) -> bool:
    return event.get("pid") == pid and " died " in str(event.get("event"))


def _time(event: dict[str, Any]) -> float | None:
    try:
        return datetime.fromisoformat(event["timestamp"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return None
