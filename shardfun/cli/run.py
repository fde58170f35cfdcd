"""``shardfun run``: a node in the foreground, until it has finished or is told to stop.

The supervisor does the work. This file starts it, shows how it is, turns signals into requests to stop, and sums up.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import trio

from shardfun.cli.figures import count, duration
from shardfun.cli.progress import Display, keep_showing, open_display, say
from shardfun.config import Config, load_config
from shardfun.errors import ConfigurationError
from shardfun.model.status import NodeStatus
from shardfun.telemetry.logs import configure_logging

EXIT_DECLINED: Final = 1
EXIT_STOPPED_NOW: Final = 130

DESCRIPTION: Final = """\
Start a node and go on where it stopped: at its last complete checkpoint, or at the beginning if there is none.

Ctrl-C stops it at a checkpoint, a second one at once; SIGTERM is like the first Ctrl-C. Starting again goes on from there.
Progress and log lines go to standard error; standard output has only the records of egresses of kind 'stdout', and --json.
"""
EPILOG: Final = """\
examples:
  shardfun run conf/flights.toml
  shardfun run conf/flights.toml --fresh --yes                    from the beginning
  shardfun run conf/flights.toml --set shards=4 --set 'checkpoint.interval=500 ms'
  SHARDFUN_CHECKPOINT__INTERVAL='1 s' shardfun run conf/flights.toml --json >summary.json
"""


class RunningNode(Protocol):
    """What this command needs of the supervisor."""

    async def run(self) -> NodeStatus:
        """Until finished, stopped or failed."""

    def status(self) -> NodeStatus:
        """Now."""

    def request_stop(self) -> None:
        """Stop at a checkpoint."""

    def stop_now(self) -> None:
        """Stop at once."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What ``--json`` prints at the end. Counters move back with a recovery, so they count what is in the final state."""

    verdict: str
    """``finished`` or ``stopped``."""
    stopped_now: bool
    """Stopped without a last checkpoint: the next start goes back to the one named."""
    name: str
    data_dir: str
    records: int
    invocations: int
    emitted: int
    published: int
    dead_letters: int
    checkpoint: str
    checkpoints: int
    checkpoints_aborted: int
    recoveries: int
    last_recovery_ms: float | None
    duration_s: float
    notes: list[str]
    """What could not be restored at the start, since the application has changed."""


def add_parser(subparsers: Any) -> None:
    """Add the command to the parser of ``shardfun``."""
    parser = subparsers.add_parser(
        "run",
        help="start a node and go on where it stopped",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="the TOML file of the node")
    parser.add_argument("--fresh", action="store_true", help="delete the state and the outputs of earlier runs first")
    parser.add_argument(
        "--accept-loss", action="store_true", help="if the newest checkpoint is damaged, go back to an older one: see the error"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask whether --fresh is meant")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="a setting, as in checkpoint.interval=1s",
    )
    parser.add_argument("--log-json", action="store_true", help="log lines as JSON")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), help="the least severe log lines written")
    parser.add_argument("--log-file", type=Path, metavar="FILE", help="log lines go to this file, as JSON")
    parser.add_argument("--no-progress", action="store_true", help="show no progress")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON on standard output")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """Run the node that ``options`` name; returns the exit code.

    Raises:
        ShardfunError: it could not be started, or failed.
    """
    config = _with_log_options(load_config(options.config, overrides=options.overrides), options)
    if options.fresh and not options.yes and not _confirmed(config):
        say("shardfun: nothing was deleted, and nothing started")
        return EXIT_DECLINED
    from shardfun.supervisor import Node

    records_on_stdout = any(egress.kind == "stdout" for egress in config.egress.values())
    with open_display(wanted=not options.no_progress, stdout_has_records=records_on_stdout) as display:
        # After the display is up: then ``sys.stderr`` is what writes above it.
        log = config.log
        configure_logging(level=log.level, json=log.format == "json", file=log.file, stream=sys.stderr)
        summary = trio.run(run_node, Node(config, fresh=options.fresh, accept_loss=options.accept_loss), display)
    if options.json:
        print(msgspec.json.encode(summary).decode(), flush=True)
    else:
        for line in summary_lines(summary, options.config):
            say(line)
    return EXIT_STOPPED_NOW if summary.stopped_now else 0


# ---- before --------------------------------------------------------------------------------------------------------------
def _with_log_options(config: Config, options: argparse.Namespace) -> Config:
    """The configuration with the ``--log-...`` options, which win over ``--set``."""
    log = config.log
    if options.log_level is not None:
        log = msgspec.structs.replace(log, level=options.log_level)
    if options.log_json:
        log = msgspec.structs.replace(log, format="json")
    if options.log_file is not None:
        log = msgspec.structs.replace(log, file=options.log_file.absolute())
    return msgspec.structs.replace(config, log=log)


def _confirmed(config: Config) -> bool:
    """Ask whether ``--fresh`` is meant.

    Raises:
        ConfigurationError: there is nobody to ask.
    """
    if not sys.stdin.isatty():
        raise ConfigurationError(
            f"--fresh: expected --yes beside it, since there is no terminal to ask on; it deletes the state in {config.data_dir} "
            "and its outputs"
        )
    print(f"delete the state in {config.data_dir} and its outputs? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


# ---- while it runs -------------------------------------------------------------------------------------------------------
async def run_node(node: RunningNode, display: Display) -> Summary:
    """Run a node, show how it is, and obey signals.

    Raises:
        ShardfunError: it failed; inside an exception group, as nurseries have it.
    """
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        obedience = Obedience(node)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(obedience.obey, signals)
            nursery.start_soon(keep_showing, display, node.status)
            status = await node.run()
            nursery.cancel_scope.cancel()
    display.show(status, trio.current_time())
    return summarize(status, stopped_now=obedience.stopped_now and status.state != "finished")


class Obedience:
    """What signals make of a node: the first asks it to stop at a checkpoint, a Ctrl-C after that stops it at once."""

    def __init__(self, node: RunningNode) -> None:
        self._node = node
        self._asked = False
        self.stopped_now = False

    async def obey(self, signals: AsyncIterator[int]) -> None:
        """Obey until cancelled."""
        async for number in signals:
            if not self._asked:
                self._asked = True
                say("stopping at a checkpoint... (Ctrl-C again: stop now)")
                self._node.request_stop()
            elif number == signal.SIGINT and not self.stopped_now:  # a service manager may repeat SIGTERM and means no harm
                self.stopped_now = True
                say("stopping now; the next start goes on from the last complete checkpoint")
                self._node.stop_now()


# ---- after ---------------------------------------------------------------------------------------------------------------
def summarize(status: NodeStatus, *, stopped_now: bool) -> Summary:
    """The summary of a node that has ended."""
    last = status.checkpoint
    return Summary(
        verdict="finished" if status.state == "finished" else "stopped",
        stopped_now=stopped_now,
        name=status.name,
        data_dir=status.data_dir,
        records=status.records_in,
        invocations=status.invocations,
        emitted=status.emitted,
        published=status.published,
        dead_letters=status.dead_letters,
        checkpoint=last.name,
        checkpoints=last.completed,
        checkpoints_aborted=last.aborted,
        recoveries=status.recoveries,
        last_recovery_ms=status.last_recovery_ms,
        duration_s=status.uptime_s,
        notes=status.notes,
    )


def summary_lines(summary: Summary, place: Path) -> list[str]:
    """The summary for people.

    Args:
        place: what names the node on the command line, for the hint what to do next.
    """
    aborted = f", {count(summary.checkpoints_aborted)} aborted" if summary.checkpoints_aborted else ""
    lines = [
        f"{summary.name} {summary.verdict} after {duration(summary.duration_s)}",
        f"  records in    {count(summary.records)}",
        f"  invocations   {count(summary.invocations)}",
        f"  egress out    {count(summary.published)}",
        f"  checkpoints   {count(summary.checkpoints)} complete{aborted}; the last is {summary.checkpoint}",
    ]
    if summary.recoveries:
        took = "" if summary.last_recovery_ms is None else f"; the last took {duration(summary.last_recovery_ms / 1000)}"
        lines.append(f"  recoveries    {count(summary.recoveries)}{took}")
    if summary.dead_letters:
        command = f"shardfun inspect {shlex.quote(str(place))} --dead-letters"
        lines.append(f"  dead letters  {count(summary.dead_letters)}; see: {command}")
    lines += [f"  not restored  {note}" for note in summary.notes]
    if summary.verdict == "stopped":
        lines.append(f"  the next start goes on from checkpoint {summary.checkpoint}")
    return lines
