"""User code in a simulated shard process: messages, what is due, and calls beside the loop."""

from __future__ import annotations

from collections.abc import Callable

from shardfun.core.effects import StartCall
from shardfun.core.shard import ShardCore
from shardfun.errors import FunctionRestartError
from shardfun.simulation.file_store import AnyStore, FileStore
from shardfun.simulation.gauges import check_gauges
from shardfun.simulation.surroundings import Surroundings
from shardfun.simulation.violation import Violation

CHECKED_EVERY = 8
"""Pieces of work, of which one is followed by a look at all gauges."""


class Execution:
    """See the module.

    Args:
        restart: called when a function wants the world to fall back.
        perform: does the effects of the core.
    """

    def __init__(
        self,
        around: Surroundings,
        shard: int,
        store: AnyStore,
        restart: Callable[[ShardCore, FunctionRestartError], None],
        perform: Callable[[], None],
    ) -> None:
        self._around = around
        self._name = f"shard {shard}"
        self._store = store
        self._pieces = 0
        self._restart = restart
        self._perform = perform
        self._calls = around.beside.of_shard(shard)

    def start_call(self, effect: StartCall) -> None:
        """The core asks for a call."""
        self._calls.start(effect)

    def reset(self) -> None:
        """The incarnation is over, or the process."""
        self._calls.reset()

    # ---- pieces of work -------------------------------------------------------------------------------------------------
    def execute(self, core: ShardCore) -> bool:
        """Run some messages; whether there were any."""
        return self._guarded(core, self._run)

    def pass_time(self, core: ShardCore) -> bool:
        """Do what is due; whether anything was."""
        due_ms = core.wake_at_ms
        return due_ms is not None and due_ms <= self._around.clock.now_s * 1000 and self._guarded(core, self._advance)

    def call_step(self) -> bool:
        """A call goes on; whether there is one."""
        happened = self._calls.step(self._around.faults, self._around.trace.now)
        if happened:
            self._around.note(self._name, "call", happened)
            self._find_violations()
        return bool(happened)

    def call_result(self, core: ShardCore) -> bool:
        """The loop hears of the end of a call; whether there was one."""
        return self._guarded(core, self._calls.report)

    # ---- inside ---------------------------------------------------------------------------------------------------------
    def _run(self, core: ShardCore) -> bool:
        core.advance(self._around.clock.now_s)
        before = core.dispatcher.invocations
        target = core.run(self._around.chance.randint(1, self._around.options.run_messages))
        if target is None:
            return False
        self._around.note(self._name, "ran", f"{core.dispatcher.invocations - before} of {target.typename}")
        return True

    def _advance(self, core: ShardCore) -> bool:
        worked = core.advance(self._around.clock.now_s)
        worked |= core.expire()
        if worked:
            self._around.note(self._name, "on time", f"{core.dispatcher.waiting} messages wait")
        return worked

    def _guarded(self, core: ShardCore, work: Callable[[ShardCore], bool]) -> bool:
        """Work that runs functions: one may end the incarnation, or find something wrong.

        Raises:
            StorageError: state cannot be read, for which a node stops.
        """
        before = core.dispatcher.invocations
        store = self._store if isinstance(self._store, FileStore) else None
        if store is not None:
            store.expect(self._around.faults.trouble("read"))
        try:
            worked = work(core)
        except FunctionRestartError as error:
            self._restart(core, error)
            worked = True
        finally:
            if store is not None:
                store.expect(None)
        self._around.executed += core.dispatcher.invocations - before
        self._find_violations()
        self._pieces += 1
        if not self._pieces % CHECKED_EVERY:
            check_gauges(core)
        self._perform()
        return worked

    def _find_violations(self) -> None:
        if self._around.workload.violations:
            found = self._around.workload.violations[0]
            raise Violation("correctness", f"{self._name}: {found}", _rule_in(found))


def _rule_in(found: str) -> str:
    """What a function has found wrong, without what differs from run to run: addresses, numbers, values."""
    return ": ".join(part for part in found.split(": ") if not any(each.isdigit() or each == "/" for each in part))
