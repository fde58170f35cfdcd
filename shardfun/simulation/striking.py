"""How faults strike that come at any step: what becomes of processes, pipes, clocks, sinks and disks."""

from __future__ import annotations

from shardfun.core.coordinator import State
from shardfun.simulation.network import News
from shardfun.simulation.node import Node
from shardfun.simulation.surroundings import Surroundings

STEP_S = 0.001


class Strikes:
    """See the module."""

    def __init__(self, around: Surroundings, node: Node) -> None:
        self._around = around
        self._node = node
        self._faults = around.faults
        self._trace = around.trace
        self._losses: list[tuple[int, int, int]] = []
        """``(shard, peer, incarnation)``: broken pipes that the shard has not been told of yet."""

    def strike(self, fault: str) -> bool:
        """A fault strikes; whether it had an effect."""
        shard = self._faults.detail.randrange(self._around.options.shards)
        match fault:
            case "crash":
                return self._node.kill(shard)
            case "supervisor":
                return self._node.kill_supervisor()
            case "power":
                self._node.power_loss()
                return True
            case "drop":
                return self._break_pipe()
            case "misjudge":
                return self._node.misjudge(shard)
            case "pause":
                return self._node.hold(shard, self._faults.pause_steps * STEP_S)
            case "stuck":
                return self._node.hold(shard, self._faults.stuck_s)
            case "freeze":
                return self._node.freeze(shard, self._faults.freeze_share * self._around.options.silence_s)
            case "jump":
                return self._pass_timeout()
            case "door":
                return self._around.intake is not None and self._around.intake.kill_door()
            case "down":
                return self._sink_goes_down()
            case "clock":
                by_s = self._faults.clock_set_s
                self._around.clock.set(by_s)
                self._trace.note("world", "clock is set", f"by {by_s:+} s")
                return True
            case "flip":
                return self._flip()
            case _:
                raise AssertionError(fault)

    def _sink_goes_down(self) -> bool:
        sinks = list(self._around.sinks.values())
        if not sinks:
            return False
        sinks[self._faults.detail.randrange(len(sinks))].down_until = self._trace.now + self._faults.down_s
        self._trace.note("world", "sink goes down")
        return True

    def _pass_timeout(self) -> bool:
        """A checkpoint that is undecided takes longer than it may."""
        if self._node.supervisor is None or self._node.supervisor.coordinator.state is not State.ALIGNING:
            return False
        self._trace.now += self._around.options.timing.timeout * 1.01
        self._trace.note("world", "time passes")
        return True

    def _flip(self) -> bool:
        machine = self._around.disk.machine
        path = None if machine is None else machine.flip(self._faults.detail)
        if path is not None:
            self._trace.note("world", "bit flips", str(path))
        return path is not None

    def _break_pipe(self) -> bool:
        """A pipe loses its tail. Both ends hear of it at once, or nobody does, and a gap or the next barrier has to show it."""
        pipes = [(channel, pipe) for channel, pipe in self._around.network.pipes.items() if pipe]
        if not pipes:
            return False
        chance = self._faults.detail
        (sender, receiver), pipe = pipes[chance.randrange(len(pipes))]
        incarnation = pipe[-1].incarnation
        self._around.network.cut_tail((sender, receiver), chance.randint(1, len(pipe)))
        told = not self._faults.lose_notice
        self._trace.note("world", "pipe breaks", f"{sender} to {receiver}, {'noticed' if told else 'unnoticed'}")
        if told:
            self._losses += [(receiver, sender, incarnation), (sender, receiver, incarnation)]
        return True

    def _hears(self, shard: int) -> bool:
        process = self._node.processes[shard]
        return process is None or process.asleep_until <= self._trace.now

    def notice_loss(self) -> bool:
        """A shard hears that a pipe of it is broken; whether there was one."""
        awake = [loss for loss in self._losses if self._hears(loss[0])]
        if not awake:
            return False
        self._losses.remove(awake[0])
        shard, peer, incarnation = awake[0]
        process = self._node.processes[shard]
        if process is not None and process.running_core is not None and process.running_core.incarnation == incarnation:
            process.lose(peer)
            self._around.network.wake(shard, News.CONTROL)
        return True
