"""Does a plan to a node, and watches that every fault falls inside the run.

*Inside* is shown, not hoped for: before the first fault a complete checkpoint has records, and checkpoints are never undone; after
the last fault the whole node is seen running, in one incarnation, and it reads more records before it ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable
from typing import Final, assert_never

from shardfun.chaos.armory import Armory
from shardfun.chaos.disk import FillableDisk
from shardfun.chaos.node import Node, NodeFailedError, NodeFinishedError
from shardfun.chaos.plan import BLINK_S, FREEZE_S, FULL_S, Fault, Kind
from shardfun.chaos.points import STEPS
from shardfun.chaos.recoveries import add_recoveries
from shardfun.chaos.report import Happened, Report, Unreached
from shardfun.errors import InconclusiveError, StorageError
from shardfun.failpoints import Action, Point
from shardfun.model.status import NodeStatus
from shardfun.supervisor.leftovers import process_start

END_S: Final = 120.0
REACHED_S: Final = 30.0
"""A failpoint that nobody has come to after this time is given up."""
REACHED_CHECKPOINTS: Final = 5
"""The same after so many more complete checkpoints than it is to be passed."""
LOOK_S: Final = 0.2
NO_SPACE: Final = os.strerror(errno.ENOSPC).encode()
WATCH_S: Final = 0.003
PROCESS_S: Final = 0.01

Show = Callable[[int, NodeStatus | None], None]
"""Told how many faults are done, and the status if it was just asked for."""


class Chaos:
    """One run of a node to its end, under a plan.

    Args:
        report: has the plan; what happens is added to it.
        end_s: how long the node may go on after the last fault.
        strict: nothing may be left in its temporary folder, not even of the application's functions.
        armory: the node's failpoints; ``None``: it has none.
        disk: that the node writes to, if it can be filled.
    """

    def __init__(
        self,
        node: Node,
        report: Report,
        *,
        end_s: float,
        strict: bool = False,
        armory: Armory | None = None,
        disk: FillableDisk | None = None,
        show: Show | None = None,
    ) -> None:
        self._node = node
        self._report = report
        self._end_s = end_s
        self._strict = strict
        self._armory = armory
        self._disk = disk
        self._show: Show = show or (lambda _done, _status: None)
        self._frozen: list[tuple[float, int, int | None]] = []  # until when, pid, when that process started
        self._began = 0.0
        self._silent = False  # a failpoint of publishing was not reached: the application publishes at its end only
        self._last_status: NodeStatus | None = None

    def run(self) -> None:
        """Until the node has finished.

        Raises:
            NodeFailedError: it did not, or left something behind.
            InconclusiveError: a fault fell outside the run.
        """
        node, report = self._node, self._report
        self._began = time.monotonic()
        node.start()
        try:
            read = self._until_after_all_faults()
            code = node.wait(self._end_s)
        except NodeFinishedError:
            raise InconclusiveError(self._outside()) from None
        finally:
            report.duration_s = time.monotonic() - self._began
            events = node.events()
            add_recoveries(report, events)
        if code:
            node.raise_ended()
        report.records = next((event["records"] for event in reversed(events) if event.get("verdict") == "finished"), 0)
        left = node.leftovers(strict=self._strict)
        if left:
            msg = f"the node has left something behind: {', '.join(left)}"
            raise NodeFailedError(msg)
        if report.records <= read:
            raise InconclusiveError(self._outside())

    def _until_after_all_faults(self) -> int:
        """Returns how many records were read when the last fault was over."""
        node, report = self._node, self._report
        first = node.until(lambda status: status.state == "running" and status.records_in > 0)
        node.until(lambda status: status.checkpoint.completed > first.checkpoint.completed + 1)
        faults = report.plan.faults
        for number, fault in enumerate(faults):
            if fault.point is Point.FINISH:
                continue
            if fault.recovered:
                self._let_go()
                node.until(all_running)
            self._show(number, self._last_status)
            self._pass_time(time.monotonic() + fault.gap_s)
            self._do(fault)
        self._let_go()
        last = node.until(all_running)
        for fault in faults:
            if fault.point is Point.FINISH:
                self._at_the_end(fault)
        self._show(len(faults), last)
        return last.records_in

    def _outside(self) -> str:
        return (
            f"the input was used up before the last of {len(self._report.plan.faults)} faults ({len(self._report.timeline)} were done): "
            "take more records, let reading take longer (--duration), or plan fewer faults"
        )

    # ---- time ------------------------------------------------------------------------------------------------------------
    def _pass_time(self, until: float) -> None:
        """Let time pass, and continue what was stopped when its time is over (if it still is the same process)."""
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
        if node.ended:
            node.raise_ended()
        assert node.process is not None
        match fault.kind:
            case Kind.KILL_SUPERVISOR:
                status = node.status()
                self._note(fault, f"supervisor ({node.process.pid})", node.process.pid, status, sigkill=True, restart=True)
                node.kill()
                self._start_again()
            case Kind.FREEZE_SUPERVISOR:
                status = node.until(lambda _: True)
                self._note(fault, f"supervisor ({node.process.pid})", node.process.pid, status)
                self._freeze_supervisor()
            case Kind.KILL_SPARE | Kind.KILL_SHARD:
                self._hit(fault, signal.SIGKILL, 0.0)
            case Kind.FREEZE_SHARD:
                self._hit(fault, signal.SIGSTOP, FREEZE_S)
            case Kind.BLINK_SHARD:
                self._hit(fault, signal.SIGSTOP, BLINK_S)
            case Kind.FAILPOINT:
                self._at_failpoint(fault)
            case Kind.FULL_DISK:
                self._fill_disk(fault)
            case _:
                assert_never(fault.kind)

    def _start_again(self) -> None:
        """After the supervisor was killed, and has not ended by itself just before."""
        node = self._node
        if node.wait(END_S) != -signal.SIGKILL:
            node.raise_ended()
        node.start()

    def _freeze_supervisor(self) -> None:
        self._node.kill(signal.SIGSTOP)
        self._pass_time(time.monotonic() + FREEZE_S)
        self._node.kill(signal.SIGCONT)

    def _hit(self, fault: Fault, number: int, frozen_s: float) -> None:
        """Send a signal to one of the processes that the fault is about, as soon as there is one."""
        deadline = time.monotonic() + END_S
        while True:
            status = self._node.until(lambda _: True)
            targets = self._targets(fault.kind, status)
            if targets:
                what, pid = targets[int(fault.choice * len(targets))]
                started = process_start(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
                    self._note(fault, f"{what} ({pid})", pid, status, sigkill=number == signal.SIGKILL)
                    if frozen_s:
                        self._frozen.append((time.monotonic() + frozen_s, pid, started))
                    return
            if time.monotonic() > deadline:
                msg = f"no process that could be hit by: {fault}; the last status: {status}"
                raise NodeFailedError(msg)
            self._pass_time(time.monotonic() + PROCESS_S)

    def _targets(self, kind: Kind, status: NodeStatus) -> list[tuple[str, int]]:
        serving = [(f"shard {shard.shard}", shard.pid) for shard in status.shards if shard.pid]
        if kind is not Kind.KILL_SPARE:
            return [(what, pid) for what, pid in serving if process_start(pid) is not None]
        known = {status.pid, *(pid for _, pid in serving)}
        return [("spare", pid) for pid in sorted(self._node.processes()) if pid not in known]

    # ---- failpoints ------------------------------------------------------------------------------------------------------
    def _at_failpoint(self, fault: Fault) -> None:
        node, armory, point = self._node, self._armory, fault.point
        assert armory is not None
        assert point is not None
        step = STEPS[point]
        if step.when == "publishing" and self._silent:
            self._miss(fault, "nothing is published before the end")
            return
        status = node.until(lambda _: True)
        serial = armory.arm(point, fault.action, fault.passes)
        if step.when == "recovery":
            self._hit(Fault(Kind.KILL_SHARD, recovered=True, gap_s=0.0, choice=fault.choice), signal.SIGKILL, 0.0)
        until = status.checkpoint.completed + fault.passes + REACHED_CHECKPOINTS
        pid = self._taken(point, serial, REACHED_S, None if step.when == "recovery" else until)
        if pid is None:
            self._silent |= step.when == "publishing"
            self._miss(fault, "nobody came there in time")
            return
        self._note_point(fault, pid, status)
        self._see_to(fault, pid)

    def _taken(self, point: Point, serial: str, within_s: float, checkpoints: int | None = None) -> int | None:
        """Wait until somebody has come there; which process.

        Args:
            checkpoints: give up when so many are complete.
        """
        armory = self._armory
        assert armory is not None
        now = time.monotonic()
        deadline, look_at = now + within_s, now + LOOK_S
        while (pid := armory.taken_by(point, serial)) is None:
            if self._node.ended:
                break  # it may have come there with its last breath
            now = time.monotonic()
            if checkpoints is not None and now >= look_at:
                status = self._node.status()
                if status is not None and status.checkpoint.completed >= checkpoints:
                    break
                look_at = time.monotonic() + LOOK_S
            if now > deadline:
                break
            self._pass_time(now + WATCH_S)
        return armory.disarm(point, serial) if pid is None else pid

    def _see_to(self, fault: Fault, pid: int) -> None:
        """What the runner has to do after a process has obeyed."""
        node = self._node
        assert node.process is not None
        supervisor = pid == node.process.pid
        match fault.action:
            case Action.KILL:
                if supervisor:
                    self._start_again()
            case Action.STOP:
                if supervisor:
                    self._freeze_supervisor()
                else:
                    self._frozen.append((time.monotonic() + FREEZE_S, pid, process_start(pid)))
            case Action.EIO:
                if fault.point is Point.MANIFEST_WRITTEN:  # whether that checkpoint is complete only another start can tell
                    code = node.wait(END_S)
                    if code != StorageError.exit_code:
                        msg = f"a manifest could not be written: expected exit code {StorageError.exit_code}, got {code}\n{node.log_tail()}"
                        raise NodeFailedError(msg)
                    node.start()
            case Action.ENOSPC:
                pass
            case _:
                assert_never(fault.action)

    def _at_the_end(self, fault: Fault) -> None:
        """Of a bounded run: the point is reached when everything was read."""
        armory, point = self._armory, fault.point
        assert armory is not None
        assert point is not None
        serial = armory.arm(point, fault.action, fault.passes)
        pid = self._taken(point, serial, self._end_s)
        if pid is None:
            self._miss(fault, "nobody came there")
            return
        self._note_point(fault, pid, self._node.status())
        self._see_to(fault, pid)
        self._let_go()

    def _note_point(self, fault: Fault, pid: int, status: NodeStatus | None) -> None:
        assert fault.point is not None
        process = self._node.process
        supervisor = process is not None and process.pid == pid
        who = "supervisor" if supervisor else _served_by(pid, status)
        kills = fault.action is Action.KILL
        restart = supervisor and (kills or fault.action is Action.EIO)
        happened = self._note(
            fault, f"{fault.point}: {fault.action}, {who} ({pid})", pid, status, sigkill=kills, restart=restart
        )
        happened.harmless = not restart and fault.action in {Action.ENOSPC, Action.EIO}

    # ---- disk ------------------------------------------------------------------------------------------------------------
    def _fill_disk(self, fault: Fault) -> None:
        disk = self._disk
        assert disk is not None
        status = self._node.until(lambda _: True)
        happened = self._note(fault, disk.name, 0, status)
        logged = self._node.log.stat().st_size
        disk.fill()
        self._pass_time(time.monotonic() + FULL_S)
        before = self._node.until(lambda _: True).checkpoint.completed
        disk.free()
        freed_at = time.monotonic()
        if NO_SPACE not in self._node.log.read_bytes()[logged:]:
            self._report.timeline.remove(happened)
            self._miss(fault, "nobody wrote to it meanwhile")
            return
        self._node.until(lambda status: all_running(status) and status.checkpoint.completed > before)
        happened.recovered_ms = round((time.monotonic() - freed_at) * 1000, 1)

    def _miss(self, fault: Fault, why: str) -> None:
        self._report.unreached.append(Unreached(fault, why))

    def _note(
        self, fault: Fault, what: str, pid: int, status: NodeStatus | None, *, sigkill: bool = False, restart: bool = False
    ) -> Happened:
        self._last_status = status
        state, records = ("starting", 0) if status is None else (status.state, status.records_in)
        at_s = time.monotonic() - self._began
        happened = Happened(at_s, time.time(), fault.kind, what, pid, state, records, sigkill, restart)
        self._report.timeline.append(happened)
        return happened


def _served_by(pid: int, status: NodeStatus | None) -> str:
    shards = () if status is None else status.shards
    return next((f"shard {shard.shard}" for shard in shards if shard.pid == pid), "shard")


def all_running(status: NodeStatus) -> bool:
    """Every shard runs, in one incarnation, and has said so."""
    return status.state == "running" and all(
        shard.state == "running" and shard.incarnation == status.incarnation for shard in status.shards
    )
