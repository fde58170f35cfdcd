"""Go through a run step by step: a few commands, each answered with lines of text. It knows no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import cbor2

from shardfun.core.cell_keys import parse_cell_key, value_in
from shardfun.core.function import parse_state_key
from shardfun.core.shard import ShardCore
from shardfun.model.delta import checkpoint_name
from shardfun.model.letters import plain
from shardfun.simulation.checker import Checker
from shardfun.simulation.process import ShardProcess
from shardfun.simulation.supervisor import Supervisor
from shardfun.simulation.trace import HEADER, Event
from shardfun.simulation.world import World

EVENTS_MAX: Final = 200  # shown after one command
ADDRESSES_MAX: Final = 40
HELP: Final = """\
n, or an empty line    on to the next event
s [N]                  N steps (default 1); most steps are no event
u WHAT                 on until a step (u 5000), a time (u 12.5s), an event (u killed), or somebody's event (u shard 1: cut)
c                      on to the end
show                   the node: coordinator, and a line for each shard
show N                 shard N: queues, links, calls, timers, addresses in memory
show ADDRESS           the stored and the present state of an address, as in show bank/account:7
last [N]               the last N events again (default 20)
q                      quit\
"""


class Stepper:
    """See the module.

    Args:
        make: makes the world, which tells its events to what it is given.
        verdict: called at the end with what the run came to, for what is known only then; a sentence.
    """

    def __init__(self, make: Callable[[Callable[[Event], None]], World], verdict: Callable[[], str] = lambda: "") -> None:
        self._events: list[Event] = []
        self._world = make(self._events.append)
        self._verdict = verdict
        self._seen: list[Event] = []

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return self._world.outcome is not None

    def command(self, line: str) -> str:
        """Do what a line says; what there is to read."""
        word, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        match word:
            case "" | "n":
                return self._go(lambda event: event is not None)
            case "s":
                return self._steps(rest)
            case "u":
                return self._until(rest)
            case "c":
                return self._go(lambda _event: False)
            case "show":
                return "\n".join(self._show(rest))
            case "last":
                return "\n".join([HEADER, *(event.line() for event in self._seen[-(int(rest) if rest.isdecimal() else 20) :])])
            case _:
                return HELP

    # ---- moving ---------------------------------------------------------------------------------------------------------
    def _steps(self, rest: str) -> str:
        if rest and not rest.isdecimal():
            return f"s {rest}: expected a number of steps"
        until = self._world.trace.step + int(rest or 1)
        return self._go(lambda _event: self._world.trace.step >= until)

    def _until(self, what: str) -> str:
        if not what:
            return "u: expected a step, a time as 12.5s, or an event"
        if what.isdecimal():
            step = int(what)
            return self._go(lambda _event: self._world.trace.step >= step)
        if what.endswith("s") and what[:-1].replace(".", "", 1).isdecimal():
            time_s = float(what[:-1])
            return self._go(lambda _event: self._world.trace.now >= time_s)
        who, colon, name = what.partition(":")
        name, who = (name.strip(), who.strip()) if colon else (what, "")
        return self._go(lambda event: event is not None and event.event == name and who in {"", event.who})

    def _go(self, enough: Callable[[Event | None], bool]) -> str:
        """Step on until it is enough, which is asked after each step, and of each event in it; what has happened."""
        first = len(self._seen)
        while not self.over:
            self._world.advance()
            events = self._events[:]
            self._events.clear()
            self._seen += events
            if any(enough(event) for event in [*events, None]):
                break
        shown = self._seen[first:]
        lines = [event.line() for event in shown[-EVENTS_MAX:]]
        if len(shown) > EVENTS_MAX:
            lines.insert(0, f"... {len(shown) - EVENTS_MAX} events before")
        return "\n".join([*lines, *self._ended()]) or f"step {self._world.trace.step}, no event"

    def _ended(self) -> list[str]:
        outcome = self._world.outcome
        if outcome is None:
            return []
        verdict = self._verdict() if outcome.kind == "ok" else f"{outcome.kind}: {outcome.what}"
        return [f">>> the run has ended after {self._world.trace.step} steps: {verdict or 'no violation'}"]

    # ---- showing --------------------------------------------------------------------------------------------------------
    def _show(self, what: str) -> Iterator[str]:
        world = self._world
        processes = world.node.processes
        if not what:
            yield f"step {world.trace.step}, {world.trace.now:.3f} s; complete: {checkpoint_name(world.checker.complete)}"
            yield _coordinator(world.node.supervisor)
            yield from (_shard(number, process) for number, process in enumerate(processes))
        elif what.isdecimal():
            if int(what) >= len(processes):
                yield f"show {what}: there are shards 0 to {len(processes) - 1}"
            else:
                process = processes[int(what)]
                yield _shard(int(what), process)
                if process is not None and process.core is not None:
                    yield from _core(process.core)
        else:
            yield from _address(what, world.checker, processes)


def _coordinator(supervisor: Supervisor | None) -> str:
    if supervisor is None:
        return "supervisor: dead"
    coordinator = supervisor.coordinator
    return f"supervisor: {coordinator.state.name.lower()} in incarnation {coordinator.incarnation}"


def _shard(number: int, process: ShardProcess | None) -> str:
    if process is None:
        return f"shard {number}: no process"
    core = process.core
    if core is None:
        return f"shard {number}: waits, or restores its state"
    participant = core.participant
    running = "runs" if process.running else "is ready"
    return (
        f"shard {number}: {running} in incarnation {core.incarnation}; cut {checkpoint_name(participant.cut)}, "
        f"{participant.phase.name.lower()}, applied {checkpoint_name(participant.applied)}; "
        f"{core.dispatcher.waiting} messages wait here, {core.dispatcher.invocations} invocations"
    )


def _core(core: ShardCore) -> Iterator[str]:
    dispatcher = core.dispatcher
    for target in dispatcher.order:
        mailbox = len(target.mailbox)  # a snapshot of it would change how it is taken
        if mailbox or target.blocked or target.calls:
            yield f"  {target.typename}: {mailbox} in the mailbox, {len(target.blocked)} addresses busy, {target.calls} calls"
    for link in core.links:
        yield (
            f"  link with {link.peer}: sent {link.data_sent} data frames{'' if link.may_send else ' (no credit)'}, "
            f"received {link.data_received}, inbox {len(link.inbox)}, outbox {dispatcher.outgoing(link.peer)} messages"
        )
    yield f"  timers {dispatcher.timers.count}, dead letters {dispatcher.letters.count}, positions {core.positions}"
    for name, log in core.egress.items():
        yield f"  egress {name}: {log.published.records} published, {len(log.pending)} kept"
    names = [
        f"{generation.function.spec.typename}:{id}"
        for generation in core.table.generations.values()
        for records in (generation.young, generation.old)
        for id in records
    ]
    more = f" and {len(names) - ADDRESSES_MAX} more" if len(names) > ADDRESSES_MAX else ""
    yield f"  in memory: {', '.join(names[:ADDRESSES_MAX]) or 'nothing'}{more}"


def _address(what: str, checker: Checker, processes: list[ShardProcess | None]) -> Iterator[str]:
    view = checker.view
    stored = {} if view is None else {str(address): fields for address, fields in view.states.items()}
    known = what in stored
    if known:
        yield f"complete checkpoint: {_readable(stored[what])}"
    for cells in () if view is None else view.cells:
        for key, raw in cells.items():
            parsed = parse_cell_key(key)
            if parsed is not None and str(parsed.address) == what:
                known = True
                yield f"  {parsed.name} {parsed.suffix!r}: {_readable(cbor2.loads(value_in(raw)))}"
    for number, process in enumerate(processes):
        for text in () if process is None or process.core is None else _in_memory(process.core, what):
            known = True
            yield f"now, in shard {number}: {text}"
    if not known:
        yield f"show {what}: no such address has a state; expected namespace/name:id, or the number of a shard"


def _in_memory(core: ShardCore, what: str) -> Iterator[str]:
    for generation in core.table.generations.values():
        for record in generation.all().values():
            address = parse_state_key(record._key)  # noqa: SLF001 - users see records: no public names
            if str(address) == what:
                fields = generation.function.spec.fields
                yield _readable({field.name: getattr(record, field.name) for field in fields})


def _readable(fields: Any) -> str:
    if isinstance(fields, dict):
        return ", ".join(f"{name}={plain(value)!r}" for name, value in fields.items() if not str(name).startswith("_"))
    return repr(plain(fields))
