"""What is seen while a node runs: a display that is drawn again and again on a terminal, now and then a line elsewhere.

Everything goes to standard error, since standard output belongs to the records of ``stdout`` egresses and to ``--json``. While
the display is up, ``sys.stderr`` writes above it: log lines and warnings stay readable. Knows of the node only its status.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Protocol

import trio
from rich.console import Console, RenderableType
from rich.live import Live

from shardfun.cli.node_view import node_line, node_view
from shardfun.cli.rates import Rates
from shardfun.model.status import NodeStatus

REFRESH_INTERVAL_S: Final = 0.25
LINE_INTERVAL_S: Final = 5.0


class Display(Protocol):
    """A way to show progress."""

    interval_s: float
    """How often ``show`` is called."""

    def show(self, status: NodeStatus, now: float) -> None:
        """Show the node as it is; ``now`` in monotonic seconds."""


class LiveDisplay:
    """A table that is drawn over itself.

    Args:
        live: started by whoever made it.
    """

    interval_s = REFRESH_INTERVAL_S

    def __init__(self, live: Live) -> None:
        self._live = live
        self._rates = Rates()

    def show(self, status: NodeStatus, now: float) -> None:
        """Draw it again."""
        self._rates.add(status, now)
        with suppress(OSError):  # a terminal that has gone away is no reason to stop
            self._live.update(node_view(status, self._rates), refresh=True)


class LineDisplay:
    """A line every few seconds.

    Args:
        write: takes a line without its newline.
    """

    interval_s = LINE_INTERVAL_S

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._rates = Rates()

    def show(self, status: NodeStatus, now: float) -> None:
        """Write a line."""
        self._rates.add(status, now)
        self._write(node_line(status, self._rates))


class NoDisplay:
    """Nothing, for ``--no-progress``."""

    interval_s = 3600.0

    def show(self, status: NodeStatus, now: float) -> None:
        """Show nothing."""


@contextmanager
def open_display(*, wanted: bool, stdout_has_records: bool) -> Iterator[Display]:
    """The display that suits where standard error goes.

    Args:
        wanted: ``False`` for none.
        stdout_has_records: the node writes records to standard output; if that is this terminal, too, they would be drawn over.
    """
    if not wanted:
        yield NoDisplay()
    elif sys.stderr.isatty() and not (stdout_has_records and sys.stdout.isatty()):
        console = Console(stderr=True)
        nothing: RenderableType = ""
        # Not transient: what is left on the screen is the last state. Never rich's own thread: it would draw while we do.
        with Live(nothing, console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=True) as live:
            yield LiveDisplay(live)
    else:
        yield LineDisplay(say)


def say(text: str) -> None:
    """One line on standard error, above the display if there is one."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


async def keep_showing(display: Display, status: Callable[[], NodeStatus]) -> None:
    """Show the status again and again until cancelled.

    Args:
        status: cheap; asked once for each time it is shown.
    """
    while True:
        await trio.sleep(display.interval_s)
        display.show(status(), trio.current_time())
