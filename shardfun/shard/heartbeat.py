"""The thread beside the loop: tells the supervisor that the process lives, and ends it when the supervisor is gone.

It is a thread, so that a function that runs for long is neither dead nor silent: the heartbeat names it. The end of the
supervisor shows as end of file on standard input, which only the supervisor's pipe holds open, and as a changed parent.
``PR_SET_PDEATHSIG`` would be tied to the parent *thread* that started this process, which goes away long before.
"""

from __future__ import annotations

import operator
import os
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import astuple

from shardfun.core.dispatch import Dispatcher
from shardfun.core.figures import egress_figures, function_figures, ingress_figures
from shardfun.core.shard import ShardCore
from shardfun.intake.entries import is_internal
from shardfun.model.control import Heartbeat
from shardfun.model.exits import EXIT_SUPERVISOR_GONE

ADDRESS_CHARACTERS = 200  # of an address that is named in a heartbeat
_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE


class LongRuns:
    """Tells how long one invocation has been running, from samples: as exact as they are frequent, and free for the loop."""

    def __init__(self) -> None:
        self._invocation: tuple[Any, int] = (None, 0)
        self._since = 0.0

    def look(self, dispatcher: Dispatcher, now: float) -> tuple[str, float]:
        """The address of the invocation that runs now, and the seconds since it was first seen; ``""`` if none runs.

        Args:
            now: monotonic seconds.
        """
        running, progress = dispatcher.running, dispatcher.progress
        context = getattr(dispatcher, "context", None)  # gone if the loop has retired this dispatcher a moment ago
        if running is None or context is None:
            self._invocation = (None, 0)
            return "", 0.0
        address = context._address  # noqa: SLF001 - the runners set it
        invocation = (progress, operator.length_hint(progress))
        if invocation != self._invocation:
            self._invocation = invocation
            self._since = now
        return f"{running.typename if address is None else address!s:.{ADDRESS_CHARACTERS}}", now - self._since


def figures_of(core: ShardCore, long_runs: LongRuns, resumed_at: float, away_s: float, now: float) -> Heartbeat:
    """A heartbeat of a shard that has a core.

    Args:
        away_s: how long a task that computes instead of awaiting has kept the loop away; 0: it does not.
        resumed_at: unix seconds of the first invocation in this incarnation, 0 before.
        now: monotonic seconds.
    """
    running, age_s = long_runs.look(core.dispatcher, now)
    if not running and away_s:
        running, age_s = "an async function that does not await", away_s
    logs = [log for name, log in core.egress.items() if not is_internal(name)]
    return Heartbeat(
        incarnation=core.incarnation,
        loop_age_s=age_s,
        running=running,
        records_in=core.records_in,
        invocations=core.dispatcher.invocations,
        emitted=sum(egress.emitted for egress in logs),
        published=sum(egress.published.records for egress in logs),
        backlog=core.backlog,
        dead_letters=core.dispatcher.letters.count,
        cached_bytes=core.table.cached_bytes + core.table.cells.cache.total_bytes,
        resident_bytes=resident_bytes(),
        resumed_at=resumed_at,
        calls=core.dispatcher.calls.running,
        blocked=core.dispatcher.calls.blocked,
        metrics=core.dispatcher.metrics.snapshot(),
        timers=core.dispatcher.timers.count,
        dirty_bytes=core.table.dirty_bytes,
        cpu_s=time.process_time(),
        functions=[list(astuple(found)) for found in function_figures(core)],
        ingress=[list(astuple(found)) for found in ingress_figures(core)],
        egress=[list(astuple(found)) for found in egress_figures(core)],
    )


def start_heartbeat(interval_s: float, sample: Callable[[], Heartbeat], send: Callable[[Heartbeat], None]) -> None:
    """Start the thread.

    Args:
        sample: reads the figures; called from the thread, so it must only read.
        send: must not block.
    """
    parent = os.getppid()

    def beat() -> None:
        poller = select.poll()
        poller.register(0, select.POLLIN | select.POLLHUP)
        due = time.monotonic()
        while True:
            wait_ms = max(0, int((due - time.monotonic()) * 1000))
            if poller.poll(wait_ms) and not os.read(0, 4096):
                os._exit(EXIT_SUPERVISOR_GONE)
            if os.getppid() != parent:
                os._exit(EXIT_SUPERVISOR_GONE)
            if time.monotonic() >= due:
                send(sample())
                due = time.monotonic() + interval_s

    threading.Thread(target=beat, name="heartbeat", daemon=True).start()
