"""What a shard process died of, as far as it can be told: its exit, why it was killed if we did it, and its breadcrumbs."""

from __future__ import annotations

import signal
from pathlib import Path

from shardfun.core.poison import Cause, Death
from shardfun.model.crumbs import Crumb, read_crumbs
from shardfun.model.exits import EXPLAINED, crumbs_name
from shardfun.supervisor.pool import ShardHandle

FAULTS = frozenset(
    (
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGABRT,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGTRAP,
        signal.SIGSYS,
        signal.SIGXCPU,
        signal.SIGXFSZ,
    )
)
"""Signals that come from what a process does itself."""


def examine(handle: ShardHandle, runtime_dir: Path) -> Death:
    """The death of a process that was reaped. Its breadcrumbs are read and removed."""
    path = runtime_dir / crumbs_name(handle.pid)
    crumbs = None
    try:
        crumbs = read_crumbs(path.read_bytes())
        path.unlink()
    except OSError:
        crumbs = None  # it was not careful, or has not come so far
    return Death(_cause(handle, crumbs), crumbs, handle.exit_text())


def _cause(handle: ShardHandle, crumbs: tuple[Crumb, ...] | None) -> Cause:
    code = handle.process.returncode
    if handle.kill_reason:
        if handle.kill_cause is Cause.OUTSIDE and not crumbs and not (handle.beat is not None and handle.beat.running):
            return Cause.EXPLAINED  # silent, but no function was running
        return handle.kill_cause
    if code in EXPLAINED:
        return Cause.EXPLAINED
    if code is None or (code < 0 and -code not in FAULTS):
        return Cause.OUTSIDE
    return Cause.INSIDE
