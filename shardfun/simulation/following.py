"""Follow one address through a run: every message that it processes becomes an event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shardfun.core.careful import Breadcrumb, Crumbs
from shardfun.core.dispatch import Dispatcher
from shardfun.core.function_type import FunctionType
from shardfun.core.runner import Runner
from shardfun.model.columns import Batch
from shardfun.model.control import Poison
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
                    _tell(trace, dispatcher.shard, address, batch.values[position])
        run(target, batch, dispatcher)

    return run_and_tell


class FollowedBreadcrumb(Breadcrumb):
    """The same in careful mode, which has a runner of its own."""

    def __init__(
        self, crumbs: Crumbs, poison: Sequence[Poison], suspects: Sequence[bytes], address: str, trace: Trace, shard: int
    ) -> None:
        super().__init__(crumbs, poison, suspects)
        self._address = address
        self._trace = trace
        self._shard = shard

    def begin(self, target: FunctionType, id: str, sender: Any, sender_type: str | None, value: Any) -> int | None:
        """Tell it first."""
        if target.function.spec.options.style == "plain" and f"{target.typename}:{id}" == self._address:
            _tell(self._trace, self._shard, self._address, value)
        return super().begin(target, id, sender, sender_type, value)


def _tell(trace: Trace, shard: int, address: str, value: Any) -> None:
    trace.aside(f"shard {shard}", "gets", f"{address}: {value!r:.{SHOWN_CHARACTERS}}")
