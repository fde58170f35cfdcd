"""Does a plan to a node, watches that every fault falls inside the run, and says what happened.

*Inside* is shown, not hoped for: before the first fault a complete checkpoint has records, and checkpoints are never undone;
after the last fault the whole node is seen running, in one incarnation, with records still to be read.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import time
from dataclasses import dataclass, field

from chaos_node import Node
from chaos_plan import Fault, Kind, Plan

from shardfun.model.status import NodeStatus
from shardfun.supervisor.leftovers import process_start

HEARTBEAT_TIMEOUT_S = 1.0
"""Set in every configuration of these tests; the default is longer than a test wants to wait."""

FREEZE_S = 1.6 * HEARTBEAT_TIMEOUT_S
BLINK_S = 0.3 * HEARTBEAT_TIMEOUT_S
END_S = 120.0
ORPHANS_S = 2.0
"""A shard whose supervisor is gone ends within this time, by itself."""


@dataclass(frozen=True, slots=True)
class Happened:
    """A fault as it was done. ``records`` and ``state`` as the node said just before; seconds since the first start."""

    at_s: float
    kind: Kind
    pid: int
    state: str
    records: int

    def __str__(self) -> str:
        return f"{self.at_s:8.3f} s  {self.kind}: process {self.pid}; node {self.state}, {self.records} records"


@dataclass(slots=True)
class Report:
    """What a plan did to a node."""

    plan: Plan
    happened: list[Happened] = field(default_factory=list)
    recoveries_ms: list[float] = field(default_factory=list)
    restarts_ms: list[float] = field(default_factory=list)
    duration_s: float = 0.0

    def count(self, *kinds: Kind) -> int:
        """Faults of these kinds."""
        return sum(fault.kind in kinds for fault in self.happened)

    @property
    def during_recovery(self) -> int:
        """Faults that hit a node which was recovering or starting."""
        return sum(fault.state != "running" for fault in self.happened)

    def __str__(self) -> str:
        counts = ", ".join(f"{self.count(kind)} x {kind}" for kind in Kind if self.count(kind))
        times = ""
        if self.recoveries_ms:
            middle, longest = statistics.median(self.recoveries_ms), max(self.recoveries_ms)
            times = f"; {len(self.recoveries_ms)} recoveries, p50 {middle:.0f} ms, max {longest:.0f} ms"
        return f"seed {self.plan.seed}, {self.duration_s:.0f} s: {counts}; {self.during_recovery} in a recovery{times}"


class Chaos:
    """One run of a node to its end, under a plan.

    Args:
        records: how many the input has.
    """

    def __init__(self, node: Node, plan: Plan, records: int) -> None:
        self._node = node
        self._records = records
        self._report = Report(plan)
        self._frozen: list[tuple[float, int, int | None]] = []  # until when, pid, when that process started
        self._began = 0.0

    def run(self) -> Report:
        """Until the node has finished.

        Raises:
            AssertionError: it did not, or a fault fell outside the run.
        """
        node, report = self._node, self._report
        self._began = time.monotonic()
        node.start()
        try:
            first = node.until(lambda status: status.state == "running" and status.records_in > 0)
            node.until(lambda status: status.checkpoint.completed > first.checkpoint.completed + 1)
            for fault in report.plan.faults:
                if fault.recovered:
                    self._let_go()
                    node.until(all_running)
                self._pass_time(time.monotonic() + fault.gap_s)
                self._do(fault)
            self._let_go()
            last = node.until(all_running)
            assert last.records_in < self._records, f"the input was used up before the last fault: {self}"
            code = node.wait(END_S + 2 * report.plan.duration_s)
            assert code == 0, f"exit code {code}\n{self}\n{node.log_tail()}"
        except BaseException as error:
            error.add_note(str(self))
            raise
        report.duration_s = time.monotonic() - self._began
        for event in node.events():
            if event.get("event") == "recovered":
                report.recoveries_ms.append(event["took_ms"])
            elif event.get("event") == "running":
                report.restarts_ms.append(event["took_ms"])
        return report

    def __str__(self) -> str:
        return "\n".join([f"seed {self._report.plan.seed}", *map(str, self._report.happened)])

    def _pass_time(self, until: float) -> None:
        """Wait, and let go on what was stopped for long enough (if it still is the same process)."""
        while True:
            now = time.monotonic()
            for entry in [entry for entry in self._frozen if entry[0] <= now]:
                self._frozen.remove(entry)
                _, pid, started = entry
                if process_start(pid) == started:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)
            if now >= until:
                return
            time.sleep(max(0.0, min([until, *(at for at, _, _ in self._frozen)]) - now))

    def _let_go(self) -> None:
        """Wait until nothing is stopped any more."""
        self._pass_time(max([time.monotonic(), *(until for until, _, _ in self._frozen)]))

    # ---- faults ----------------------------------------------------------------------------------------------------------
    def _do(self, fault: Fault) -> None:
        node = self._node
        assert not node.ended, f"the node ended by itself: exit code {node.wait(0)}\n{node.log_tail()}"
        match fault.kind:
            case Kind.KILL_SUPERVISOR:
                assert node.process is not None
                status = node.status()
                self._note(fault, node.process.pid, status)
                node.kill()
                node.wait(END_S)
                node.start()
            case Kind.FREEZE_SUPERVISOR:
                assert node.process is not None
                status = node.until(lambda _: True)
                self._note(fault, node.process.pid, status)
                node.kill(signal.SIGSTOP)
                self._pass_time(time.monotonic() + FREEZE_S)
                node.kill(signal.SIGCONT)
            case Kind.KILL_SPARE:
                self._hit(fault, signal.SIGKILL, 0.0)
            case Kind.KILL_SHARD:
                self._hit(fault, signal.SIGKILL, 0.0)
            case Kind.FREEZE_SHARD:
                self._hit(fault, signal.SIGSTOP, FREEZE_S)
            case Kind.BLINK_SHARD:
                self._hit(fault, signal.SIGSTOP, BLINK_S)

    def _hit(self, fault: Fault, number: int, frozen_s: float) -> None:
        """Send a signal to one of the processes that the fault is about, as soon as there is one."""
        deadline = time.monotonic() + END_S
        while True:
            status = self._node.until(lambda _: True)
            pids = self._targets(fault.kind, status)
            if pids:
                pid = pids[int(fault.choice * len(pids))]
                started = process_start(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
                    self._note(fault, pid, status)
                    if frozen_s:
                        self._frozen.append((time.monotonic() + frozen_s, pid, started))
                    return
            assert time.monotonic() < deadline, f"nothing to hit for {fault}: {status}"
            self._pass_time(time.monotonic() + 0.01)

    def _targets(self, kind: Kind, status: NodeStatus) -> list[int]:
        serving = [shard.pid for shard in status.shards if shard.pid]
        if kind is not Kind.KILL_SPARE:
            return [pid for pid in serving if process_start(pid) is not None]
        return [pid for pid in sorted(self._node.processes()) if pid not in {*serving, status.pid}]

    def _note(self, fault: Fault, pid: int, status: NodeStatus | None) -> None:
        state, records = ("starting", 0) if status is None else (status.state, status.records_in)
        self._report.happened.append(Happened(time.monotonic() - self._began, fault.kind, pid, state, records))


def all_running(status: NodeStatus) -> bool:
    """Every shard runs, in one incarnation, and has said so."""
    return status.state == "running" and all(
        shard.state == "running" and shard.incarnation == status.incarnation for shard in status.shards
    )
