"""The processes of a simulated node and how they die: shards, supervisor, all at once."""

from __future__ import annotations

from shardfun.simulation.process import ShardProcess
from shardfun.simulation.supervisor import WHO, Supervisor
from shardfun.simulation.surroundings import JOB, Surroundings
from shardfun.state.memory import MemoryStore
from shardfun.state.options import StoreOptions

FLUSH_DELTAS = 3


class Node:
    """See the module."""

    def __init__(self, around: Surroundings) -> None:
        shards = around.options.shards
        self._around = around
        self.stores = [
            MemoryStore(
                job=JOB,
                shard=shard,
                shards=shards,
                options=StoreOptions(flush_deltas=FLUSH_DELTAS),
                keep_objects=not around.options.encoded_deltas,
            )
            for shard in range(shards)
        ]
        self.processes: list[ShardProcess | None] = [None] * shards
        self.supervisor: Supervisor | None = None
        self._unnoticed: list[tuple[ShardProcess, str]] = []
        """Dead processes that the supervisor has not noticed yet."""

    # ---- life -----------------------------------------------------------------------------------------------------------
    def boot(self) -> None:
        """Start a supervisor: what an earlier one left running is killed first."""
        for shard in range(len(self.processes)):
            self._end(shard)
            self._around.controls.reconnect(shard)
        self._unnoticed = []
        self.supervisor = Supervisor(self._around, self.stores, self._spawn)

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
            self.supervisor.exited(process.shard)
        else:
            self.supervisor.died(process.shard, why)
        return True

    @property
    def over(self) -> bool:
        """Whether the node has ended in order."""
        supervisor = self.supervisor
        return supervisor is not None and supervisor.finished is not None and supervisor.all_exited

    # ---- death ----------------------------------------------------------------------------------------------------------
    def kill(self, shard: int) -> bool:
        """SIGKILL to a shard; whether there was one."""
        process = self._end(shard)
        if process is None:
            return False
        self._unnoticed.append((process, "killed"))
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
        if self.supervisor is None:
            return False
        self.supervisor = None
        for inbox in self._around.controls.to_supervisor:
            inbox.clear()
        self._around.trace.note(WHO, "killed")
        return True

    def orphan_exits(self, shard: int) -> bool:
        """A shard notices that there is no supervisor any more."""
        return self.supervisor is None and self._end(shard) is not None

    def power_loss(self) -> None:
        """Everything stops, and what was not fsynced may be gone."""
        around = self._around
        around.trace.note("world", "power loss")
        self.kill_supervisor()
        for shard in range(len(self.processes)):
            self._end(shard)
        around.disk.power_loss(around.chance)
        for store in self.stores:
            store.power_loss(around.chance)

    def kill_by_name(self, who: str) -> None:
        """For faults at named points."""
        if who == WHO:
            self.kill_supervisor()
        else:
            self.kill(int(who.split()[1]))
