"""An application of a user as the world sees it: functions, records that wait to be read, and judges."""

from __future__ import annotations

import inspect
import random
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from shardfun.core.dispatch import Dispatcher, InvocationContext
from shardfun.core.function_type import EgressBuffer
from shardfun.core.operations import OPERATIONS
from shardfun.core.shard import IngressRoute
from shardfun.core.timer_index import TIMER_PREFIX
from shardfun.egress.jsonlines import encode_line
from shardfun.model.doors import IngressBatch
from shardfun.sdk.app import App
from shardfun.sdk.context import Context
from shardfun.simulation.application.checkpoints import Decoder
from shardfun.simulation.application.coroutines import Coroutines
from shardfun.simulation.application.ending import Ending, ending_of
from shardfun.simulation.application.inputs import Input, batch_of
from shardfun.simulation.application.subject import Subject
from shardfun.simulation.calls import Beside
from shardfun.simulation.options import Options
from shardfun.simulation.view import CheckpointView
from shardfun.simulation.violation import Violation
from shardfun.simulation.workloads.workload import Workload
from shardfun.testing.declared import Declared
from shardfun.testing.simulated import Check, Checkpoint

INVARIANT = "invariant"
CHECK = "check"
EGRESSES_MAX = 1000


class Application(Workload):
    """See the module.

    Args:
        inputs: what comes in.
        egresses: names.
    """

    egress = ""

    def __init__(self, options: Options, subject: Subject, inputs: list[Input], egresses: list[str]) -> None:
        self._subject = subject  # before all else: this makes the app
        super().__init__(options)
        self.ending: Ending | None = None
        """Once the run has come to its end."""
        self.unknown_egress = ""
        """One that the application has emitted to, and that the run does not have."""
        self._egresses = egresses
        self._parts = {each.name: each.cut(options.records).shared(options.shards) for each in inputs}
        self._decoder = Decoder(self.app.compile())

    def make_app(self, options: Options) -> App:  # noqa: ARG002 - it is there already
        """See ``Workload``."""
        return self._subject.app

    def declare(self, app: App) -> None:
        """Everything is declared."""

    # ---- doors ----------------------------------------------------------------------------------------------------------
    @property
    def routes(self) -> dict[str, IngressRoute]:
        """How records become messages."""
        return {name: self._subject.routes[name] for name in self._parts}

    @property
    def egresses(self) -> dict[str, Callable[[Any], bytes]]:
        """Encoders of the egress records: as for files."""
        return dict.fromkeys(self._egresses, encode_line)

    def records(self, ingress: str, partition: int) -> int:
        """Records of an ingress in one partition."""
        return len(self._parts[ingress][partition])

    def read(self, ingress: str, partition: int, start: int, stop: int) -> IngressBatch:
        """Records of an ingress."""
        place = f"records {start + 1}-{stop} of shard {partition}"
        return batch_of(self._parts[ingress][partition][start:stop], stop, place)

    def total(self, partition: int) -> int:
        """Nobody asks: there is no main ingress."""
        return sum(len(parts[partition]) for parts in self._parts.values())

    def batch(self, partition: int, start: int, stop: int) -> IngressBatch:
        """Nobody asks."""
        raise NotImplementedError

    # ---- functions ------------------------------------------------------------------------------------------------------
    def calls_beside(self, chance: random.Random) -> Beside:
        """Coroutines may wait for whatever Trio has."""
        asyncio = any(function.spec.options.asyncio for function in self.app.compile())
        return Coroutines(self.shards, chance, asyncio=asyncio)

    def context(self, dispatcher: Dispatcher) -> InvocationContext:
        """If any name is an egress, those that are missing are found out."""
        if self._subject.egresses is None and type(dispatcher.egresses) is dict:
            dispatcher.egresses = _Noticing(dispatcher.egresses, self._notice_egress)
        return Context(dispatcher)

    def _notice_egress(self, name: str) -> None:
        if not self.unknown_egress and len(self._egresses) < EGRESSES_MAX:
            self.unknown_egress = name
            self.violations.append(f"egress {name!r} is new")  # ends the run: it begins anew, with this egress

    # ---- judging --------------------------------------------------------------------------------------------------------
    def check(self, view: CheckpointView) -> None:
        """See ``Workload``."""
        if self._subject.simulation.invariant is not None:
            self._ask(INVARIANT, self._subject.simulation.invariant, view, last=False)

    def judge_end(self, view: CheckpointView, published: Mapping[tuple[str, int], list[bytes]]) -> None:
        """See ``Workload``. The invariant is asked of the last checkpoint again: only now it is known to be the last."""
        self.ending = ending_of(view, published, Declared(self.app))
        for kind, check in ((INVARIANT, self._subject.simulation.invariant), (CHECK, self._subject.simulation.check)):
            if check is not None:
                self._ask(kind, check, view, last=True)

    def check_end(self, view: CheckpointView, published: list[Any], *, ended: bool) -> None:
        """``judge_end`` does it."""

    def _ask(self, kind: str, check: Check, view: CheckpointView, *, last: bool) -> None:
        """Call a check of the user.

        Raises:
            Violation: it has raised, or returned ``False``.
        """
        checkpoint = self._checkpoint(view, last=last)
        try:
            answer = check(checkpoint)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__}: {error}" if str(error) else f"{type(error).__name__}: {place.line}"
            raise Violation(kind, f"{said} ({place.filename}:{place.lineno})") from error
        if answer is False:
            raise Violation(kind, "it returned False")
        if inspect.iscoroutine(answer):
            answer.close()
            raise Violation(kind, "it returned a coroutine, which nobody awaits: expected a plain function")

    def _checkpoint(self, view: CheckpointView, *, last: bool) -> Checkpoint:
        admitted = {
            name: [
                item.value
                for partition, items in enumerate(parts)
                for item in items[: view.position(name, partition)]
                if item.reject is None
            ]
            for name, parts in self._parts.items()
        }
        return self._decoder.checkpoint(view, admitted, last=last)

    def settled(self, view: CheckpointView) -> bool:
        """See ``Workload``."""
        awaited = OPERATIONS if self._subject.timers_at_end == "keep" else (OPERATIONS, TIMER_PREFIX)
        if view.waiting or any(key.startswith(awaited) for cells in view.cells for key in cells):
            return False
        return all(
            view.position(name, partition) == len(items)
            for name, parts in self._parts.items()
            for partition, items in enumerate(parts)
        )


class _Noticing(dict[str, EgressBuffer]):
    """The egresses of a dispatcher.

    Args:
        notice: called with a name that is missing.
    """

    def __init__(self, known: dict[str, EgressBuffer], notice: Callable[[str], None]) -> None:
        super().__init__(known)
        self._notice = notice

    def get(self, name: str, default: Any = None) -> Any:
        """The egress called ``name``."""
        found = super().get(name, default)
        if found is None and type(name) is str:
            self._notice(name)
        return found
