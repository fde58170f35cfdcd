"""Application and configuration, put together into what a shard's core runs. Everything that does not fit is found here."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from shardfun.config.schema import Config, IngressConfig
from shardfun.core.dispatch import Dispatcher
from shardfun.core.function import CompiledFunction
from shardfun.core.limits import Limits
from shardfun.core.runner import compile_runner
from shardfun.core.shard import IngressRoute, Program
from shardfun.egress.registry import build_sink
from shardfun.errors import ConfigurationError, nearest
from shardfun.ingress.feed import Host
from shardfun.ingress.generated import GeneratedReader
from shardfun.ingress.registry import build_reader
from shardfun.intake.targets import Targets
from shardfun.model.address import is_declared
from shardfun.ports import EgressSink, IngressReader, Partition
from shardfun.sdk.app import App
from shardfun.sdk.context import Context
from shardfun.sdk.sources import DeclaredIngress
from shardfun.shard.intake import HTTP_KIND, internal_routes, request_function_of


def limits_of(config: Config) -> Limits:
    """The core's limits from the configuration."""
    return Limits(
        frame_messages=config.mesh.frame_messages,
        window_frames=config.mesh.window_frames,
        mailbox_refill=4 * config.mesh.frame_messages,
        cache_bytes=config.state.cache_bytes,
        dirty_soft_bytes=config.state.dirty_soft_bytes,
        dirty_hard_bytes=config.state.dirty_hard_bytes,
        retries=config.failure.retries,
        backlog_limit=config.flow.backlog_limit,
        egress_pending_bytes=config.flow.egress_pending_bytes,
        timers_at_end=config.timers.at_end,
        validate_sends=config.failure.validate_sends,
        calls=config.calls.concurrency,
        calls_per_type=config.calls.concurrency_per_type,
        blocking_calls_per_type=config.calls.threads,
    )


class Application:
    """An application that fits its configuration, imported and compiled once per process.

    Raises:
        ConfigurationError: an ingress has neither target nor router, or names a function that does not exist; or the egresses are
            not those that the application declares.
    """

    def __init__(self, config: Config, app: App) -> None:
        self.config = config
        self._functions = app.compile()
        targets = Targets(self._functions)
        self._runners = [compile_runner(function) for function in self._functions]
        known = {function.spec.typename: function for function in self._functions}
        problems: list[str] = []
        self._routes = {name: _route(name, entry, app, known, problems) for name, entry in config.ingress.items()}
        # An entry of the configuration is used instead of a source of the application: a file for a try, say.
        self._sources = [source for source in app.ingresses.values() if source.name not in config.ingress]
        self._routes |= {source.name: _own_route(source, app) for source in self._sources}
        if config.http is None:
            problems += [
                f"ingress.{name}: its records come over HTTP, and there is no section [http]; add it, or remove this ingress"
                for name, entry in config.ingress.items()
                if entry.kind == HTTP_KIND
            ]
        if app.egresses is not None:
            problems += _egress_problems(app.egresses, config.egress)
        if problems:
            raise ConfigurationError(*problems)
        self._routes |= internal_routes(config, targets, dict(self._routes))
        request = request_function_of(config, targets)
        self._functions.append(request)
        self._runners.append(compile_runner(request))

    def program(self, sinks: dict[str, EgressSink]) -> Program:
        """What a shard runs."""
        return Program(
            functions=self._functions,
            runners=self._runners,
            routes=self._routes,
            egresses={name: sink.encode for name, sink in sinks.items()},
            context=_make_context,
        )

    @property
    def types_with_end(self) -> frozenset[str]:
        """The function types that want to know of the end of a bounded run."""
        return frozenset(function.spec.typename for function in self._functions if function.spec.on_end is not None)

    @property
    def needs_asyncio(self) -> bool:
        """Whether some function needs an asyncio event loop."""
        return any(function.spec.options.asyncio for function in self._functions)

    def readers(self, partition: Partition, host: Host) -> dict[str, IngressReader]:
        """A reader per ingress; but records of kind ``http`` come with the log of the door."""
        configured = {
            name: build_reader(name, entry.kind, entry.options, partition, host)
            for name, entry in self.config.ingress.items()
            if entry.kind != HTTP_KIND
        }
        return configured | {
            source.name: GeneratedReader(source.name, source.function, partition, host) for source in self._sources
        }

    def sinks(self, partition: Partition) -> dict[str, EgressSink]:
        """A sink per egress.

        Raises:
            EgressError: one of a user's classes cannot be made.
        """
        return {name: build_sink(name, entry.kind, entry.options, partition) for name, entry in self.config.egress.items()}


def _make_context(dispatcher: Dispatcher) -> Context[Any]:
    return Context(dispatcher)


def _egress_problems(declared: Collection[str], configured: Collection[str]) -> list[str]:
    """What is wrong if the configuration has other egresses than the application declares."""
    missing = [name for name in declared if name not in configured]
    unknown = [name for name in configured if name not in declared]
    problems = [
        f"egress.{name}: expected it in the configuration, since the application declares it{nearest(name, unknown) if unknown else ''}"
        for name in missing
    ]
    return problems + [f"egress.{name}: the application declares no such egress{nearest(name, declared)}" for name in unknown]


def _own_route(source: DeclaredIngress, app: App) -> IngressRoute:
    if source.target is not None:
        return IngressRoute((), source.target, source.id_field)
    return IngressRoute(app.routers(source.name))


def _route(name: str, entry: IngressConfig, app: App, known: dict[str, CompiledFunction], problems: list[str]) -> IngressRoute:
    routers = app.routers(name)
    if entry.target is not None:
        if not is_declared(entry.target, known):
            hint = nearest(entry.target, known)
            problems.append(f"ingress.{name}.target: the application has no function {entry.target!r}{hint}")
        return IngressRoute((), entry.target, entry.id_field, holds=entry.kind != HTTP_KIND)
    if not routers:
        declared = ", ".join(app.routed_ingresses) or "none"
        problems.append(
            f"ingress.{name}: expected a router in the application (@app.router({name!r})) or the setting 'target'; "
            f"routers exist for: {declared}"
        )
    return IngressRoute(routers, holds=entry.kind != HTTP_KIND)
