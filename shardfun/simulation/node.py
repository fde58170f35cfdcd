"""The processes of a simulated node and how they die: shards, supervisor, all at once."""

from __future__ import annotations

from collections.abc import Iterator

from shardfun.simulation.crumbs import SILENT
from shardfun.simulation.disk import JOB
from shardfun.simulation.door import WHO as DOOR
from shardfun.simulation.faults import MACHINE
from shardfun.simulation.file_store import AnyStore, FileStore
from shardfun.simulation.process import ShardProcess
from shardfun.simulation.supervisor import WHO, Supervisor
from shardfun.simulation.surroundings import Surroundings
from shardfun.state.chain import Identity
from shardfun.state.memory import MemoryStore
from shardfun.state.options import StoreOptions

FLUSH_DELTAS = 3


class Node:
    """See the module."""

    def __init__(self, around: Surroundings) -> None:
        shards = around.options.shards
        self._around = around
        self.stores = [self._store(shard) for shard in range(shards)]
        self.processes: list[ShardProcess | None] = [None] * shards
        self.supervisor: Supervisor | None = None
        self.boots_at = 0.0
        """Nobody starts it before; virtual seconds."""
        self._booting = False
        """There is a supervisor that has not read yet what is stored."""
        self._unnoticed: list[tuple[ShardProcess, str]] = []
        """Dead processes that the supervisor has not noticed yet."""

    def _store(self, shard: int) -> AnyStore:
        options, machine = self._around.options, self._around.disk.machine
        if machine is not None:
            return FileStore(machine, Identity(JOB, shard, options.shards), 1 + options.seed % FLUSH_DELTAS)
        return MemoryStore(
            job=JOB,
            shard=shard,
            shards=options.shards,
            options=StoreOptions(flush_deltas=FLUSH_DELTAS),
            keep_objects=not options.encoded_deltas,
        )

    # ---- life -----------------------------------------------------------------------------------------------------------
    def boot(self) -> None:
        """Start a supervisor, in two steps: what an earlier one left running is killed first, then it reads what is stored."""
        if self._booting:
            if not self._around.faults.power_fails("boot"):
                self._booting = False
                self.supervisor = Supervisor(self._around, self.stores, self._spawn)
            return
        if self._around.intake is not None:
            self._around.intake.kill_door()
        for shard in range(len(self.processes)):
            self._end(shard)
            self._around.controls.reconnect(shard)
        self._unnoticed = []
        self._booting = True
        self._around.note(WHO, "boots")

    def _spawn(self, shard: int) -> None:
        self._end(shard)
        self._around.controls.reconnect(shard)
        self._unnoticed = [(process, why) for process, why in self._unnoticed if process.shard != shard]
        self.processes[shard] = ShardProcess(self._around, shard, self.stores[shard])
        self._around.note(f"shard {shard}", "spawned")

    def _end(self, shard: int) -> ShardProcess | None:
        process, self.processes[shard] = self.processes[shard], None
        if process is not None and not process.exited:
            process.kill()
        return process

    def collect_exits(self) -> None:
        """Processes that have ended in order are there no more."""
        for shard, process in enumerate(self.processes):
            if process is not None and process.exited:
                self.processes[shard] = None
                self._unnoticed.append((process, "exit"))

    def notice_death(self) -> bool:
        """The supervisor notices that a process is gone."""
        if self.supervisor is None or not self._unnoticed:
            return False
        process, why = self._unnoticed.pop(0)
        if why == "exit":
            self.supervisor.exited(process.shard, process.crumbs.death(why))
        else:
            self.supervisor.died(process.shard, why, process.crumbs.death(why))
        return True

    @property
    def over(self) -> bool:
        """Whether the node has ended in order."""
        supervisor = self.supervisor
        return supervisor is not None and supervisor.finished is not None and supervisor.all_exited

    # ---- silence --------------------------------------------------------------------------------------------------------
    def hold(self, shard: int, seconds: float) -> bool:
        """A shard's loop does nothing for a while (a function computes, the machine is slow); its heartbeat goes on."""
        process = self.processes[shard]
        if process is None:
            return False
        process.asleep_until = max(process.asleep_until, self._around.trace.now + seconds)
        process.note("held up", f"for {seconds:.3f} s")
        return True

    def freeze(self, shard: int, seconds: float) -> bool:
        """SIGSTOP to a shard, or to the supervisor if there is none; SIGCONT later, if it still lives."""
        around, process = self._around, self.processes[shard]
        until = around.trace.now + seconds
        if process is None:
            if self.supervisor is not None:
                self.supervisor.asleep_until = until
                around.trace.note(WHO, "stopped", f"for {seconds:.3f} s")
            return self.supervisor is not None
        if process.silent_since is None:
            process.silent_since = around.trace.now
        process.asleep_until = max(process.asleep_until, until)
        process.note("stopped", f"for {seconds:.3f} s")
        return True

    def silence_ends(self) -> Iterator[float]:
        """When stopped processes count as dead."""
        for process in self.processes:
            if process is not None and process.silent_since is not None and process.asleep_until > self._around.trace.now:
                yield process.silent_since + self._around.options.silence_s

    def notice_silence(self) -> bool:
        """The supervisor kills what gives no sign of life; that it is dead it hears when it is reaped."""
        now = self._around.trace.now
        for shard, process in enumerate(self.processes):
            if process is None or process.silent_since is None:
                continue
            if process.asleep_until <= now:
                process.silent_since = None
            elif now >= process.silent_since + self._around.options.silence_s:
                process.note("silent")
                return self.kill(shard, SILENT)
        return False

    def wake_up(self) -> None:
        """Nobody is stopped or held up any more."""
        for process in self.processes:
            if process is not None:
                process.asleep_until, process.silent_since = 0.0, None
        if self.supervisor is not None:
            self.supervisor.asleep_until = 0.0

    # ---- death ----------------------------------------------------------------------------------------------------------
    def kill(self, shard: int, why: str = "killed") -> bool:
        """SIGKILL to a shard; whether there was one."""
        process = self._end(shard)
        if process is None:
            return False
        self._unnoticed.append((process, why))
        return True

    def misjudge(self, shard: int) -> bool:
        """The supervisor takes a live shard for dead. It goes on until it is replaced."""
        process = self.processes[shard]
        if process is None or self.supervisor is None:
            return False
        if all(other is not process for other, _ in self._unnoticed):
            self._unnoticed.append((process, "no heartbeat"))
        return True

    def kill_supervisor(self) -> bool:
        """SIGKILL to the supervisor. Shards notice sooner or later, and exit."""
        if self._booting:
            self._booting = False
            self._around.disk.die_in_boot(self._around.chance)
        elif self.supervisor is not None:
            self.supervisor.die()
            self.supervisor = None
        else:
            return False
        for inbox in self._around.controls.to_supervisor:
            inbox.clear()
        self._around.trace.note(WHO, "killed")
        return True

    def orphan_exits(self, shard: int) -> bool:
        """A shard notices that there is no supervisor any more."""
        return self.supervisor is None and self._end(shard) is not None

    def stop(self) -> None:
        """Everything stops."""
        self.kill_supervisor()
        for shard in range(len(self.processes)):
            self._end(shard)

    def power_loss(self) -> None:
        """Everything stops, and what was not fsynced may be gone."""
        around = self._around
        around.trace.note("world", "power loss")
        self.stop()
        around.disk.power_loss(around.chance)
        for store in self.stores:
            store.power_loss(around.chance)
        if around.intake is not None:
            around.intake.power_loss(around.chance)

    def kill_by_name(self, who: str) -> bool:
        """For faults at named points; whether there was somebody."""
        if who == MACHINE:
            self.power_loss()
            return True
        if who == DOOR:
            return self._around.intake is not None and self._around.intake.kill_door()
        return self.kill_supervisor() if who == WHO else self.kill(int(who.split()[1]))
