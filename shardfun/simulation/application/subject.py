"""What is simulated: an application, its input, and how its results are judged. Found by what the command line says."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shardfun.config import load_config
from shardfun.config.schema import Config
from shardfun.core.limits import AtEnd
from shardfun.core.shard import IngressRoute
from shardfun.errors import ConfigurationError
from shardfun.sdk.app import App
from shardfun.sdk.importing import import_app, import_object, search_here
from shardfun.simulation.application import inputs
from shardfun.simulation.application.inputs import Input
from shardfun.testing.simulated import Simulation

READ_MAX: Final = 5000
"""Records of an ingress that are read at most; a run has as many of them as it takes about a second for, or as asked for."""

EXAMPLES: Final = "examples."


@dataclass(frozen=True, slots=True)
class AppPlan:
    """What the command line says of an application.

    Args:
        app: as ``app`` in a configuration; empty: that of the configuration.
        config: a file; ``inputs``: ingress and file each.
        check: where the ``Simulation`` is, ``module:name``; empty: beside the application, if there is one.
        records: of each ingress at most; ``None``: as many as suit a run.
    """

    app: str = ""
    config: str = ""
    inputs: tuple[tuple[str, str], ...] = ()
    check: str = ""
    records: int | None = None


class Subject:
    """See the module.

    Args:
        simulation: with which checks, and perhaps inputs.
        config: if there is one.
        given: inputs that the command line names, in place of others.
    """

    def __init__(self, app: App, simulation: Simulation, config: Config | None, given: list[Input]) -> None:
        self.app = app
        self.simulation = simulation
        self.retries = 3 if config is None else config.failure.retries
        self.validate_sends = config is not None and config.failure.validate_sends
        self.egresses = self._egresses(config)
        """``None``: any name is one."""
        self._config = config
        self._given = given
        self._read: list[Input] = self._inputs_read()
        names = [each.name for each in self._read] or ([each.name for each in self.inputs(0)] if self.draws else [])
        if not names:
            raise ConfigurationError(NO_INPUT.format(app=app.name, routed=", ".join(app.routed_ingresses) or "none"))
        self.routes = {name: self._route(name) for name in names}
        self._check_names({*names, *app.routed_ingresses, *app.ingresses})

    @property
    def timers_at_end(self) -> AtEnd:
        """What becomes of delayed messages when the input is used up."""
        return self.simulation.timers_at_end

    @property
    def draws(self) -> bool:
        """Whether each seed has an input of its own."""
        return self._config is None and callable(self.simulation.inputs)

    def inputs(self, seed: int) -> list[Input]:
        """The whole input of a seed, up to ``READ_MAX`` records of each ingress."""
        function = self.simulation.inputs
        if not self.draws or not callable(function):
            return self._read
        made = inputs.drawn(function, seed, self.simulation.partition_by, READ_MAX)
        return _replaced(made, self._given)

    def _inputs_read(self) -> list[Input]:
        """What is the same for all seeds."""
        simulation, app = self.simulation, self.app
        if self.draws:
            return []
        if self._config is not None:
            named = {each.name for each in self._given}
            config = _without(self._config, named)
            found = inputs.from_configuration(config, app, READ_MAX)
        elif simulation.inputs is not None:
            by = simulation.partition_by
            records: Any = simulation.inputs
            found = [inputs.from_records(name, given, by.get(name), READ_MAX) for name, given in records.items()]
        elif self._given:
            found = []
        else:
            found = [inputs.from_application(app, name, READ_MAX) for name in app.ingresses]
        return _replaced(found, self._given)

    def _check_names(self, ingresses: set[str]) -> None:
        """A name that is not there would let everything pass."""
        named = [("partition_by", "ingress", self.simulation.partition_by, ingresses)]
        if self.egresses is not None:
            named.append(("order_by", "egress", self.simulation.order_by, set(self.egresses)))
        for argument, what, given, known in named:
            for name in given:
                if name not in known:
                    raise ConfigurationError(unknown_name(argument, what, name, known))

    def _egresses(self, config: Config | None) -> tuple[str, ...] | None:
        if self.app.egresses is not None:
            return self.app.egresses
        return None if config is None else tuple(config.egress)

    def _route(self, name: str) -> IngressRoute:
        entry = None if self._config is None else self._config.ingress.get(name)
        if entry is not None and entry.target is not None:
            return IngressRoute((), entry.target, entry.id_field)
        own = self.app.ingresses.get(name)
        if own is not None and own.target is not None and entry is None:
            return IngressRoute((), own.target, own.id_field)
        routers = self.app.routers(name)
        if not routers:
            known = ", ".join(self.app.routed_ingresses) or "none"
            raise ConfigurationError(
                f"ingress {name!r}: expected a router in the application (@app.router({name!r})); routers exist for: {known}"
            )
        return IngressRoute(routers)


def unknown_name(argument: str, what: str, name: str, known: Iterable[str]) -> str:
    """What is wrong with an argument of a ``Simulation``."""
    return f"Simulation: {argument}: expected an {what} of the application, got {name!r}; known: {', '.join(sorted(known)) or 'none'}"


NO_INPUT = (
    "application {app!r} has no input here: expected --config FILE (the ingresses of a node), --input INGRESS=FILE, or a "
    "shardfun.testing.Simulation(app, inputs=...) beside the application; it has routers for: {routed}"
)


def _replaced(found: list[Input], given: list[Input]) -> list[Input]:
    names = {each.name for each in given}
    return [each for each in found if each.name not in names] + given


def _without(config: Config, names: set[str]) -> Config:
    """A configuration without some of its ingresses, whose records come from elsewhere."""
    import msgspec

    rest = {name: entry for name, entry in config.ingress.items() if name not in names}
    return msgspec.structs.replace(config, ingress=rest)


# ---- finding it ----------------------------------------------------------------------------------------------------------
def find_subject(plan: AppPlan) -> Subject:
    """Import and read everything that a plan names. The current folder is searched for modules, as ``shardfun run`` does it.

    Raises:
        ConfigurationError: something does not fit.
        ApplicationImportError: it cannot be imported.
        IngressError: an input cannot be read.
    """
    search_here()
    config = load_config(plan.config) if plan.config else None
    reference = plan.app or (config.app if config is not None else "")
    if ":" not in reference:
        raise ConfigurationError(f"--app {reference}: expected MODULE:NAME, as in --app shop:app")
    reference = _spelling(reference)
    app = import_app(reference)
    simulation = _named_simulation(plan.check, app) if plan.check else _simulation_beside(reference, app)
    by = simulation.partition_by
    given = [inputs.from_file(name, Path(file), by.get(name), READ_MAX) for name, file in plan.inputs]
    return Subject(app, simulation, config, given)


def _spelling(reference: str) -> str:
    """``examples.bank:app`` means the example of this package, unless the project has such a module of its own."""
    if not reference.startswith(EXAMPLES):
        return reference
    try:
        theirs = importlib.util.find_spec(reference.partition(":")[0])
    except ModuleNotFoundError:
        theirs = None
    return reference if theirs is not None else f"shardfun.{reference}"


def _simulation_beside(reference: str, app: App) -> Simulation:
    """The ``Simulation`` of an application that stands in its module; if there is none, one that only compares."""
    module = sys.modules[reference.partition(":")[0]]
    found = {name: each for name, each in vars(module).items() if isinstance(each, Simulation) and each.app is app}
    if len(found) > 1:
        place = module.__name__
        raise ConfigurationError(
            f"{reference} has several simulations: {', '.join(found)}; say which, as in --check {place}:{next(iter(found))}"
        )
    return next(iter(found.values()), None) or Simulation(app)


def _named_simulation(place: str, app: App) -> Simulation:
    found = import_object(_spelling(place), f"--check {place}", Simulation)
    if not isinstance(found, Simulation):
        raise ConfigurationError(f"--check {place}: expected a shardfun.testing.Simulation, got {type(found).__qualname__}")
    if found.app is not app:
        raise ConfigurationError(
            f"--check {place}: expected a Simulation of application {app.name!r}, it is of {found.app.name!r}"
        )
    return found
