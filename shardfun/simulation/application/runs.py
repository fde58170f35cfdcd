"""Runs of an application: each in the disturbed world of its seed, and held against an undisturbed one with the same input."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from shardfun.core.limits import Limits
from shardfun.errors import ConfigurationError
from shardfun.simulation.application.child import ChildError, in_child
from shardfun.simulation.application.coroutines import UNSUITABLE
from shardfun.simulation.application.ending import Ending, differences, lacks
from shardfun.simulation.application.subject import READ_MAX, AppPlan, Subject, find_subject, unknown_name
from shardfun.simulation.application.workload import Application
from shardfun.simulation.options import PACES, Options, draw
from shardfun.simulation.trace import Event
from shardfun.simulation.world import Outcome, World

DIFFERENCE = "difference"
DIED = "died"
"""A run did not come to its end: a function ended the process, or ran for ever."""
UNDISTURBED = "undisturbed"
"""The run without faults has failed already."""

PROBE_RECORDS = 60
MESSAGES_WANTED = 1500
"""About a second's worth of messages."""
RECORDS_MIN = 20
LIMIT_S = 120.0
STEPS_FAULTY = (1_500, 4_000)


class _Result(NamedTuple):
    """``unknown_egress``: one that the run lacked, so it has to begin anew; ``egresses``: those that it had."""

    outcome: Outcome
    ending: Ending | None
    unknown_egress: str
    egresses: tuple[str, ...]


class AppRuns:
    """See the module. Made once in a process: it imports the application.

    Raises:
        ConfigurationError: as ``find_subject``.
    """

    def __init__(self, plan: AppPlan) -> None:
        self.subject: Subject = find_subject(plan)
        self._plan = plan
        self._records = plan.records
        self._order_checked = False
        self._undisturbed: dict[tuple[int, int], _Result] = {}

    def options(self, seed: int) -> Options:
        """What a seed decides, but not more than the application can bear.

        Raises:
            ConfigurationError: records cannot be compared in the order that is asked for.
        """
        self._check_order_by()
        return self._options(seed, self.records)

    def _check_order_by(self) -> None:
        """What no undisturbed record has would let everything pass. Once: a seed alone may lack a rare egress."""
        if self._order_checked:
            return
        self._order_checked = True
        order_by = self.subject.simulation.order_by
        ending = self._undisturbed_run(0, self.records).ending if order_by else None
        if ending is None:
            return
        for name, field in order_by.items():
            if name not in ending.records:
                what = unknown_name("order_by", "egress", name, ending.records)
                raise ConfigurationError(f"{what}; one that gets records rarely has to be declared: App(egresses=[...])")
            if why := lacks(ending, name, field):
                raise ConfigurationError(f"Simulation: order_by: egress {name!r}: {why}")

    def _options(self, seed: int, records: int) -> Options:
        drawn = draw(seed, "ring")
        rates = dataclasses.replace(drawn.rates, flip=0.0)  # a node that refuses to start leaves nothing to compare
        longest = max((len(each.items) for each in self.subject.inputs(seed)), default=1)
        limits = dataclasses.replace(
            drawn.limits,
            retries=self.subject.retries,
            backlog_limit=Limits().backlog_limit,
            timers_at_end=self.subject.timers_at_end,
            validate_sends=self.subject.validate_sends,
        )
        return dataclasses.replace(
            drawn,
            workload=self._plan.app or self.subject.app.name,
            limits=limits,
            rates=rates,
            records=min(records, longest),
            ping_pong=False,
            orders=0,
            operator=False,
            faulty_steps=min(STEPS_FAULTY) if seed % 2 else max(STEPS_FAULTY),
            messages_min=0,
        )

    @property
    def records(self) -> int:
        """Of each ingress: as many as make a run of about a second, if nobody has said how many."""
        if self._records is None:
            probe = self._undisturbed_run(0, PROBE_RECORDS)
            messages = max(1.0, probe.outcome.figures.get("messages", 1.0))
            wanted = round(PROBE_RECORDS * MESSAGES_WANTED / messages)
            self._records = min(READ_MAX, max(RECORDS_MIN, wanted))
        return self._records

    # ---- runs -----------------------------------------------------------------------------------------------------------
    def run(
        self, options: Options, out: Callable[[Event], None] | None = None, steps_max: int | None = None, follow: str = ""
    ) -> Outcome:
        """One run, and what is to be said of it: see ``World``."""
        expected = self._undisturbed_run(options.seed, options.records)
        if expected.outcome.kind != "ok":
            outcome = expected.outcome
            kind = outcome.kind if outcome.kind == UNSUITABLE else UNDISTURBED
            what = f"the run without any fault, in one shard, fails already: {outcome.kind}: {outcome.what}"
            return dataclasses.replace(outcome, kind=kind, what=what if kind == UNDISTURBED else outcome.what)
        found = self._run(options, expected.egresses, out, steps_max, follow)
        return self._verdict(found, expected)

    def verdict_here(self, world: World, application: Application, options: Options) -> str:
        """What is to be said of a run in this process that has ended; empty if all is well."""
        assert world.outcome is not None
        expected = self._undisturbed_run(options.seed, options.records)
        outcome = self._verdict(_Result(world.outcome, application.ending, "", ()), expected)
        return "" if outcome.kind == "ok" else f"{outcome.kind}: {outcome.what}"

    def _verdict(self, found: _Result, expected: _Result) -> Outcome:
        """The outcome, with what is different from the undisturbed run."""
        outcome, simulation = found.outcome, self.subject.simulation
        if found.ending is None:
            if outcome.kind == "ok":  # a start was refused: the right end of such a run
                outcome = dataclasses.replace(outcome, figures=outcome.figures | {"not_compared": 1})
            return outcome
        outcome = dataclasses.replace(outcome, digest=found.ending.digest(outcome.digest))
        if outcome.kind == "ok" and simulation.check is None and expected.ending is not None:
            sentences = differences(found.ending, expected.ending, simulation.order_by)
            if sentences:
                return dataclasses.replace(outcome, kind=DIFFERENCE, what="; ".join(sentences))
        return outcome

    def _undisturbed_run(self, seed: int, records: int) -> _Result:
        """The same for all seeds, unless each has its own input."""
        key = (seed if self.subject.draws else 0, records)
        if key not in self._undisturbed:
            options = undisturbed(self._options(key[0], records))
            found = self._run(options, self.subject.egresses or ())
            if self.subject.draws:
                self._undisturbed.clear()
            self._undisturbed[key] = found
        return self._undisturbed[key]

    def _run(
        self,
        options: Options,
        egresses: tuple[str, ...],
        out: Callable[[Event], None] | None = None,
        steps_max: int | None = None,
        follow: str = "",
    ) -> _Result:
        """A run in a process of its own; again from its beginning whenever it emits to an egress that it does not have yet."""
        events: list[Event] = []

        def work(send: Callable[[Event], None]) -> _Result:
            world, application = self.world(options, egresses, None if out is None else send, follow)
            return _Result(world.run(steps_max), application.ending, application.unknown_egress, egresses)

        while True:
            events.clear()
            try:
                found: _Result = in_child(work, LIMIT_S, None if out is None else events.append)
            except ChildError as error:
                return _Result(Outcome(DIED, str(error), {}, ""), None, "", egresses)
            if not found.unknown_egress:
                break
            egresses = tuple(sorted({*egresses, found.unknown_egress}))
        for event in events:
            assert out is not None
            out(event)
        return found

    def world(
        self, options: Options, egresses: tuple[str, ...], out: Callable[[Event], None] | None, follow: str = ""
    ) -> tuple[World, Application]:
        """A world that has not begun, and the application in it."""
        application = Application(options, self.subject, self.subject.inputs(options.seed), list(egresses))
        return World(options, out, lambda _options: application, follow), application

    def egresses(self, options: Options) -> tuple[str, ...]:
        """Of a run with these options, as far as an undisturbed run knows."""
        return self._undisturbed_run(options.seed, options.records).egresses


def undisturbed(options: Options) -> Options:
    """One shard, no faults, nobody slow."""
    return dataclasses.replace(
        options,
        shards=1,
        speeds=(1,),
        faults=(),
        pace=dict.fromkeys(PACES, 1.0),
        plain_runners=False,
        encoded_deltas=False,
    )
