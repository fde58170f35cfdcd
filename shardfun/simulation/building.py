"""Puts a world together: everything that is not a process."""

from __future__ import annotations

import random

from shardfun.core.runner import compile_runner, run_plain
from shardfun.core.shard import Program
from shardfun.simulation.checker import Checker
from shardfun.simulation.clock import WallClock
from shardfun.simulation.disk import FileSupervisorDisk, SupervisorDisk
from shardfun.simulation.faults import Faults
from shardfun.simulation.following import followed
from shardfun.simulation.intake import Intake, ReplySink, is_reply
from shardfun.simulation.network import ControlSockets, Network
from shardfun.simulation.operator import Operator
from shardfun.simulation.options import Options
from shardfun.simulation.sinks import Sink
from shardfun.simulation.surroundings import Surroundings
from shardfun.simulation.trace import Trace
from shardfun.simulation.workloads.workload import Workload


def surroundings_of(
    options: Options, workload: Workload, trace: Trace, chance: random.Random, faults: Faults, follow: str
) -> Surroundings:
    """The surroundings of a run.

    Args:
        follow: an address whose messages become events of the trace, or nothing.
    """
    workload.clock = WallClock(trace)
    functions = workload.functions()
    runners = [run_plain if options.plain_runners else compile_runner(function) for function in functions]
    if follow:
        runners = [followed(runner, follow, trace) for runner in runners]
    network = Network(options.shards, options.pipe_frames)
    checker = Checker(options.shards, functions, workload, network)
    sinks = {
        (name, shard): (ReplySink if is_reply(name) else Sink)(
            f"egress {name} of shard {shard}", records, counts=options.sink_counts and not is_reply(name)
        )
        for name, parts in checker.emitted.items()
        for shard, records in enumerate(parts)
    }
    intake = None
    if workload.orders is not None:
        intake = Intake(workload.orders, options.shards, chance, trace, faults, checker)
        for sink in sinks.values():
            if isinstance(sink, ReplySink):
                sink.intake = intake
    return Surroundings(
        intake=intake,
        follow=follow,
        options=options,
        chance=chance,
        trace=trace,
        clock=workload.clock,
        faults=faults,
        network=network,
        controls=ControlSockets(options.shards),
        disk=FileSupervisorDisk() if options.files else SupervisorDisk(),
        sinks=sinks,
        checker=checker,
        workload=workload,
        program=Program(functions, runners, workload.routes, workload.egresses, workload.context),
        beside=workload.calls_beside(chance),
    )


def operator_of(around: Surroundings) -> Operator:
    """Who looks at dead letters and states in a run."""
    typenames = [function.spec.typename for function in around.program.functions]
    named = [typename for typename in typenames if not typename.endswith("*")]
    return Operator(
        around.chance, around.checker, named, unreadable=around.options.rates.flip > 0 or around.options.rates.read > 0
    )


def figures_of(around: Surroundings, operator: Operator | None) -> dict[str, float]:
    """Counts of what has happened in a run."""
    events = around.trace.events
    return {
        "messages": around.executed,
        "steps": around.trace.step,
        "virtual_s": round(around.trace.now, 3),
        "checkpoints": around.checker.completed,
        "aborts": events["aborted"],
        "incarnations": events["incarnation"],
        "kills": events["killed"],
        "bit_flips": events["bit flips"],
        "refusals": events["start refused"],
        "storage_failures": events["storage fails"],
        "power_losses": events["power loss"],
        "broken_pipes": events["pipe breaks"],
        "stale_frames": events["stale"],
        "call_steps": events["call"],
        "restarts": events["restart"],
        "shut_sinks": events["sink fails"],
        "careful_starts": events["careful"],
        "repeated_records": sum(sink.repeated for sink in around.sinks.values()),
        **({} if operator is None else operator.counts),
        **({} if around.intake is None else around.intake.figures),
        "faults": around.faults.total,
        **{f"faults_{kind}": count for kind, count in sorted(around.faults.counts.items())},
    }
