"""A stepper in a process of its own: there hashes are those of every other run of an application, and its modules are fresh."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from typing import Any, Self

from shardfun.errors import ShardfunError
from shardfun.simulation.campaign import HASH_SEEDS, Plan, app_runs, environment, options_of
from shardfun.simulation.case import case_of
from shardfun.simulation.mutations import mutated
from shardfun.simulation.options import Options
from shardfun.simulation.stepper import Stepper
from shardfun.simulation.world import World


class Stepping:
    """See the module. Use it as a context manager.

    Args:
        source: a seed, or what a case file holds.
    """

    def __init__(self, plan: Plan, source: int | dict[str, Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, plan, source), daemon=True)
        with environment("PYTHONHASHSEED", HASH_SEEDS[0]):
            self._process.start()
        theirs.close()
        self.over = False
        self._receive()

    def command(self, line: str) -> str:
        """See ``Stepper``.

        Raises:
            ShardfunError: the application cannot be imported.
            EOFError: a function has ended the process.
        """
        self._ours.send(line)
        return self._receive()

    def _receive(self) -> str:
        found = self._ours.recv()
        if isinstance(found, ShardfunError):
            raise found
        text, self.over = found
        return str(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._ours.close()
        self._process.terminate()
        self._process.join()


def _serve(connection: Connection, plan: Plan, source: int | dict[str, Any]) -> None:
    try:
        with mutated(plan.mutation):
            stepper = _stepper(plan, options_of(source, plan) if isinstance(source, int) else case_of(plan, source).options)
            connection.send(("", False))
            while True:
                text = stepper.command(connection.recv())
                connection.send((text, stepper.over))
    except ShardfunError as error:
        connection.send(error)
    except EOFError:  # nobody asks any more
        pass


def _stepper(plan: Plan, options: Options) -> Stepper:
    if plan.app is None:
        return Stepper(lambda out: World(options, out))
    runs = app_runs(plan.app)
    egresses = runs.egresses(options)
    made: list[Any] = []

    def make(out: Any) -> World:
        made.extend(runs.world(options, egresses, out))
        world: World = made[0]
        return world

    return Stepper(make, lambda: runs.verdict_here(made[0], made[1], options))
