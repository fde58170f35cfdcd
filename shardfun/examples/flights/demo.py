"""The demonstration: kill a shard in the middle of the flights, and show that nobody can tell from the result.

    python -m shardfun.examples.flights.demo

It uses only what a user has: the command ``shardfun run`` on this terminal, ``shardfun status --json``, a SIGKILL. Then the
plain program computes the same from the same file and ``compare`` gives the verdict. Exit code 0 only if a shard was killed,
the run finished and all published records are equal.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from shardfun.examples.compare import compare_folder, published_files
from shardfun.examples.flights.compare import ADDRESS, EGRESSES, report
from shardfun.examples.flights.plain import compute, read_rows
from shardfun.model.status import NodeStatus

CONFIG = Path(__file__).resolve().parents[3] / "conf" / "flights.toml"
START_TIMEOUT_S = 60.0
RUN_TIMEOUT_S = 600.0
RECOVERY_TIMEOUT_S = 60.0
STATUS_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 40.0
INTERRUPT_GRACE_S = 10.0
"""Ctrl-C reaches the node, too: it has this long to stop at a checkpoint before it is told again."""
POLL_INTERVAL_S = 0.2
EXIT_FAILED = 1
EXIT_DIFFERENT = 3
EXIT_INTERRUPTED = 130


class DemoError(Exception):
    """The demonstration could not be carried out: what was expected, what came, what to do."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run, and where its data lies.

    Args:
        command: how ``shardfun`` is started.
        config: the configuration file.
        source: the flights that the ingress reads.
        published: the folder of the egress files.
        shard: the shard to kill.
        after: kill it once this share of the records was read, between 0 and 1.
    """

    command: str
    config: Path
    source: Path
    published: Path
    shard: int
    after: float


def make_plan(config: Path, shard: int, after: float) -> Plan:
    """Read from the configuration what the demonstration has to know.

    Raises:
        DemoError: the command or the configuration is missing, or is not one of the flights.
    """
    command = Path(sysconfig.get_path("scripts")) / "shardfun"
    if not command.exists():
        raise DemoError(f"{command}: expected the command of the installed package; run 'pip install -e .' in the clone first")
    try:
        settings: dict[str, Any] = tomllib.loads(config.read_text())
        source = config.parent / settings["ingress"]["flights"]["path"]
        folders = {(config.parent / settings["egress"][egress]["path"]).parent.resolve() for egress in EGRESSES}
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise DemoError(
            f"{config}: expected the configuration of the flights example: {type(error).__name__}: {error}"
        ) from error
    if len(folders) != 1:
        raise DemoError(f"{config}: expected both egresses in one folder, found {sorted(map(str, folders))}")
    return Plan(str(command), config, source.resolve(), folders.pop(), shard, after)


def say(text: str) -> None:
    """One line of the demonstration's own, apart from the progress display of the node on the same terminal."""
    print(f"\n>>> {text}", file=sys.stderr, flush=True)


# ---- the node ------------------------------------------------------------------------------------------------------------
def start(plan: Plan) -> subprocess.Popen[bytes]:
    """Start the node on this terminal, from the beginning."""
    for egress in EGRESSES:  # --fresh removes the files of its own shards; those of a run with more would be compared, too
        for path in published_files(plan.published, egress):
            path.unlink()
    arguments = [plan.command, "run", str(plan.config), "--fresh", "--yes"]
    say(" ".join(["shardfun", *arguments[1:]]))
    return subprocess.Popen(arguments)


def node_status(plan: Plan) -> NodeStatus | None:
    """What the node says of itself; ``None`` if it does not answer (not started yet, or ended)."""
    arguments = [plan.command, "status", str(plan.config), "--json"]
    try:
        finished = subprocess.run(arguments, capture_output=True, check=False, timeout=STATUS_TIMEOUT_S)
        return msgspec.json.decode(finished.stdout, type=NodeStatus) if finished.returncode == 0 else None
    except (subprocess.TimeoutExpired, msgspec.DecodeError):
        return None


def wait_until(
    plan: Plan, node: subprocess.Popen[bytes], timeout_s: float, what: str, reached: Callable[[NodeStatus], bool]
) -> NodeStatus:
    """Ask for the status until it is as wanted.

    Raises:
        DemoError: the node ended, or the time passed, before that.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        status = node_status(plan)
        if status is not None and reached(status):
            return status
        if (code := node.poll()) is not None:
            raise DemoError(f"expected the node to be {what}, but it ended with exit code {code}")
        time.sleep(POLL_INTERVAL_S)
    raise DemoError(f"expected the node to be {what} within {timeout_s:g} s; its last status: {node_status(plan)}")


def share_read(status: NodeStatus, records: int) -> float:
    """How much of the file was read: by the node's own total if it has one, else of ``records``."""
    return status.records_in / (status.records_total or records)


def kill_shard(plan: Plan, status: NodeStatus, records: int) -> None:
    """SIGKILL the chosen shard: no handler runs, nothing is flushed.

    Raises:
        DemoError: there is no such shard, or it is not there any more.
    """
    pids = {shard.shard: shard.pid for shard in status.shards}
    if plan.shard not in pids:
        raise DemoError(f"--shard {plan.shard}: expected one of {sorted(pids)}")
    say(
        f"{status.records_in} of {status.records_total or records} flights read. SIGKILL to shard {plan.shard}, process {pids[plan.shard]}."
    )
    try:
        os.kill(pids[plan.shard], signal.SIGKILL)
    except ProcessLookupError as error:
        raise DemoError(f"shard {plan.shard}: process {pids[plan.shard]} is gone already; see the log of the node") from error


def stop(node: subprocess.Popen[bytes]) -> None:
    """End the node if it still runs: politely first, then not."""
    for send in (node.terminate, node.kill):
        if node.poll() is not None:
            return
        send()
        try:
            node.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            continue


# ---- the demonstration ---------------------------------------------------------------------------------------------------
def run_and_kill(plan: Plan, records: int) -> None:
    """Run the node to its end with one SIGKILL in the middle.

    Raises:
        DemoError: it did not come to that end.
    """
    node = start(plan)
    try:
        wait_until(plan, node, START_TIMEOUT_S, "running", lambda status: status.state == "running")
        middle = wait_until(
            plan,
            node,
            RUN_TIMEOUT_S,
            "in the middle",
            lambda status: status.state == "running" and share_read(status, records) >= plan.after,
        )
        if share_read(middle, records) >= 1:
            raise DemoError(f"all {records} flights were read before a shard could be killed; lower 'rate' in {plan.config}")
        kill_shard(plan, middle, records)
        recovered = wait_until(
            plan,
            node,
            RECOVERY_TIMEOUT_S,
            "running again",
            lambda status: (
                status.recoveries > middle.recoveries and status.last_recovery_ms is not None and status.state != "recovering"
            ),
        )
        say(f"Recovered in {recovered.last_recovery_ms:.0f} ms, by the node's own clock.")
        code = node.wait(RUN_TIMEOUT_S)
        if code != 0:
            raise DemoError(f"expected the node to finish, but it ended with exit code {code}; see its output above")
    except subprocess.TimeoutExpired as error:
        raise DemoError(f"expected the node to finish within {RUN_TIMEOUT_S:g} s after the recovery") from error
    except KeyboardInterrupt:
        with contextlib.suppress(subprocess.TimeoutExpired):
            node.wait(INTERRUPT_GRACE_S)
        raise
    finally:
        stop(node)


def verdict(plan: Plan) -> bool:
    """Compute the same without shardfun, compare, and print the outcome."""
    say(f"The plain single-threaded program computes the same from {plan.source.name}.")
    expected = compute(read_rows(plan.source))
    return report([compare_folder(plan.published, egress, expected[egress], address=ADDRESS) for egress in EGRESSES])


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--config", type=Path, default=CONFIG, help="default: conf/flights.toml of this clone")
    parser.add_argument("--shard", type=int, default=1, help="the shard to kill (default 1)")
    parser.add_argument("--after", type=float, default=0.4, help="share of the flights read before the kill (default 0.4)")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the node is stopped then, too
    try:
        plan = make_plan(options.config.resolve(), options.shard, options.after)
        records = sum(1 for _ in read_rows(plan.source))
        run_and_kill(plan, records)
        return 0 if verdict(plan) else EXIT_DIFFERENT
    except (DemoError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        say("Interrupted. The node has been stopped; 'shardfun run' would continue from its last checkpoint.")
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
