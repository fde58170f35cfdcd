"""``Simulation``: how an application is run by ``shardfun simulate``: with which input, and what has to hold.

It stands beside the application, or in a module of its own. Importing it loads nothing of the simulator.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from shardfun.core.limits import AtEnd
from shardfun.errors import DefinitionError
from shardfun.model.address import Address
from shardfun.model.letters import DeadLetter
from shardfun.sdk.app import App
from shardfun.testing.results import Sent

Records = Mapping[str, Sequence[Any]]
"""Records by the name of their ingress."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One complete checkpoint of a simulated node: what it would go on from after a failure.

    Args:
        admitted: by ingress, the records whose effects are in it.
        states: of all addresses that have some: values as they are, maps as dicts, buffers as lists.
        waiting: messages that were sent and not yet processed, delayed ones, too.
        emitted: by egress, all records up to here, as a reader of JSON finds them.
        dead_letters: what could not be processed.
        last: the run has come to its end, so nothing waits but delayed messages that are kept.
    """

    admitted: dict[str, list[Any]]
    states: dict[Address, SimpleNamespace]
    waiting: list[Sent]
    emitted: dict[str, list[Any]]
    dead_letters: list[DeadLetter]
    last: bool

    def of_type(self, typename: str) -> dict[str, SimpleNamespace]:
        """The states of the addresses of one function type, by id."""
        return {address.id: state for address, state in self.states.items() if address.typename == typename}


Check = Callable[[Checkpoint], object]
LATER = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)


class Simulation:
    """See the module.

    Without ``check``, the end of each run is compared with an undisturbed run of the same input: states, records, dead letters. That
    is for applications whose result does not depend on how messages of different senders interleave.

    Args:
        app: the application.
        inputs: records by ingress; or a function that makes them from a source of chance, so that each seed has its own. ``None``:
            they come from the command line.
        partition_by: by ingress, the field of a record by whose value the shards share the records; those of one value stay in order.
            Records of other ingresses go round the shards in turn.
        order_by: by egress, the field of a record for each value of which the order has to be that of the undisturbed run.
        invariant: called with every complete checkpoint, with the last one once more when it is known to be the last; raises
            (``assert``) or returns ``False`` if something is wrong.
        check: called with the last checkpoint of a run; raises or returns ``False`` if something is wrong. Nothing is compared then.
        timers_at_end: what becomes of delayed messages when the input is used up, as ``timers.at-end`` in a configuration.

    Raises:
        DefinitionError: an argument is of another type.
    """

    def __init__(
        self,
        app: App,
        *,
        inputs: Records | Callable[[random.Random], Records] | None = None,
        partition_by: Mapping[str, str] | None = None,
        order_by: Mapping[str, str] | None = None,
        invariant: Check | None = None,
        check: Check | None = None,
        timers_at_end: AtEnd = "wait",
    ) -> None:
        if not isinstance(app, App):
            raise DefinitionError(f"Simulation: expected a shardfun.App, got {app!r:.100}")
        if inputs is not None and not callable(inputs) and not isinstance(inputs, Mapping):
            raise DefinitionError(f"Simulation: inputs: expected records by ingress or a function, got {inputs!r:.100}")
        for name, function in (("invariant", invariant), ("check", check)):
            if function is None:
                continue
            if not callable(function):
                raise DefinitionError(f"Simulation: {name}: expected a function of a Checkpoint, got {function!r:.100}")
            if any(later(each) for later in LATER for each in (function, type(function).__call__)):
                raise DefinitionError(
                    f"Simulation: {name}: expected a plain function, got {function!r:.100}: its body would not run"
                )
        if timers_at_end not in {"keep", "wait", "fire"}:
            raise DefinitionError(f"Simulation: timers_at_end: expected 'keep', 'wait' or 'fire', got {timers_at_end!r:.100}")
        self.app = app
        self.inputs = inputs
        self.partition_by = dict(partition_by or {})
        self.order_by = dict(order_by or {})
        self.invariant = invariant
        self.check = check
        self.timers_at_end = timers_at_end
