"""What everything in a world shares: the chance, the trace, the network, the sinks, the checker. No behaviour."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from shardfun.core.shard import Program
from shardfun.simulation.calls import Beside
from shardfun.simulation.checker import Checker
from shardfun.simulation.clock import WallClock
from shardfun.simulation.disk import FileSupervisorDisk, SupervisorDisk
from shardfun.simulation.faults import Faults
from shardfun.simulation.intake import Intake
from shardfun.simulation.network import ControlSockets, Network
from shardfun.simulation.options import Options
from shardfun.simulation.sinks import Sink
from shardfun.simulation.trace import Trace
from shardfun.simulation.workloads import Workload


@dataclass(slots=True)
class Surroundings:
    """See the module.

    Args:
        sinks: by egress and shard.
        beside: runs user code that awaits or blocks.
        follow: an address whose messages become events of the trace, or nothing.
        open_share: the part of every bounded ingress that may be read by now.
    """

    options: Options
    chance: random.Random
    trace: Trace
    clock: WallClock
    faults: Faults
    network: Network
    controls: ControlSockets
    disk: SupervisorDisk | FileSupervisorDisk
    sinks: dict[tuple[str, int], Sink]
    checker: Checker
    workload: Workload
    program: Program
    beside: Beside
    intake: Intake | None = None
    holders: dict[int, object] = field(default_factory=dict)
    """By shard, the process that has its store open."""
    follow: str = ""
    open_share: float = 0.0
    executed: int = 0

    def note(self, who: str, event: str, detail: str = "") -> None:
        """Write down an event; whoever reached a dangerous point may die for it."""
        self.trace.note(who, event, detail)
        self.faults.point(who, event)
