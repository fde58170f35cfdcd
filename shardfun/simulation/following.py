"""Follow one address through a run: every message that it processes becomes an event."""

from __future__ import annotations

from shardfun.core.dispatch import Dispatcher
from shardfun.core.function_type import FunctionType
from shardfun.core.runner import Runner
from shardfun.model.columns import Batch
from shardfun.simulation.trace import Trace

SHOWN_CHARACTERS = 120


def followed(run: Runner, address: str, trace: Trace) -> Runner:
    """A runner that tells what one address gets, before it runs.

    Args:
        address: ``namespace/name:id``.
    """
    typename, _, id = address.partition(":")

    def run_and_tell(target: FunctionType, batch: Batch, dispatcher: Dispatcher) -> None:
        if target.typename == typename:
            for position, each in enumerate(batch.ids):
                if each == id:
                    trace.aside(
                        f"shard {dispatcher.shard}", "gets", f"{address}: {batch.values[position]!r:.{SHOWN_CHARACTERS}}"
                    )
        run(target, batch, dispatcher)

    return run_and_tell
