"""Figures: spread of repeated runs, CPU time of processes, facts of the machine."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")


def spread(values: Iterable[float], digits: int = 0) -> dict[str, float]:
    """Median, least and most of some runs, rounded."""
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), digits),
        "min": round(ordered[0], digits),
        "max": round(ordered[-1], digits),
    }


def cpu_seconds(pid: int) -> float:
    """CPU time, user and system, that a process has used, all threads. Resolution: one tick, mostly 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident(pid: int) -> tuple[int, int]:
    """Resident bytes of a process, and those of them that are no pages of files (LevelDB maps its tables into memory)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    kib = {
        name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if name in {"VmRSS", "RssFile"}
    }
    return kib["VmRSS"] << 10, (kib["VmRSS"] - kib["RssFile"]) << 10


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "load": round(os.getloadavg()[0], 2),
    }
