"""``App``: the functions and routers of one application, declared with decorators and checked when they are declared."""

from __future__ import annotations

import dataclasses
import datetime as dt
import inspect
import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from shardfun.core.function import CompiledFunction, FunctionSpec
from shardfun.core.options import FailurePolicy, FunctionOptions, milliseconds
from shardfun.errors import DefinitionError, nearest
from shardfun.model.address import RESERVED_NAMESPACE, check_function_name, is_declared
from shardfun.model.payload import type_name
from shardfun.model.upgrade import Fields, Upgrade
from shardfun.sdk.definition import (
    CONTEXT,
    Handler,
    check_end,
    check_options,
    check_signature,
    declared_handler,
    declared_upgrade,
    function_spec,
    place_of,
    with_handlers,
)
from shardfun.sdk.sources import DeclaredIngress, declared_ingress
from shardfun.sdk.state import is_state_class

F = TypeVar("F", bound=Callable[..., Awaitable[None] | None])
U = TypeVar("U", bound=Callable[[int, Fields], Fields])
R = TypeVar("R", bound=Callable[..., Iterable[Any]])
S = TypeVar("S", bound=Callable[..., AsyncIterator[tuple[Any, Any]]])


class Message(NamedTuple):
    """What a router yields: a payload and the address it goes to."""

    typename: str
    id: str
    value: Any


class App:
    """An application.

    Args:
        name: for people and logs.
        egresses: the egresses that the application emits to. If given, a configuration must have exactly these.
    """

    def __init__(self, name: str, *, egresses: Iterable[str] | None = None) -> None:
        if isinstance(egresses, str):
            msg = f"application {name!r}: egresses: expected names, as in egresses=({egresses!r},), got one text"
            raise DefinitionError(msg)
        self.name = name
        self.egresses = None if egresses is None else tuple(egresses)
        self._functions: dict[str, FunctionSpec] = {}
        self._handlers: dict[str, list[Handler]] = {}
        self._upgrades: dict[Any, Upgrade] = {}
        self._on_end: dict[str, Callable[[Any], None]] = {}
        self._routers: dict[str, list[Callable[[Any], Iterable[Any]]]] = {}
        self.ingresses: dict[str, DeclaredIngress] = {}
        """Those with a source in the application itself, by name."""

    def function(
        self,
        typename: str,
        *,
        on_failure: FailurePolicy | None = None,
        expire_idle: dt.timedelta | float | None = None,
        blocking: bool = False,
        asyncio: bool = False,
        timeout: dt.timedelta | float | None = None,
        concurrency: int | None = None,
    ) -> Callable[[F], F]:
        """Declare a function type: ``def name(ctx: Context[MyState], message: A | B) -> None``, or an ``async def``.

        Args:
            typename: ``namespace/name``, unique in the application; ``namespace/*`` for all names of the namespace that have no
                function of their own (``ctx.self.typename`` tells which).
            on_failure: ``retry(...)``, ``dead_letter()`` or ``restart()``; by default as ``[failure]`` in the configuration says.
            expire_idle: delete an instance that got no message for that long (timedelta or seconds).
            blocking: a plain ``def`` that waits (for a disk, a database); it runs in a thread, other addresses go on.
            asyncio: an ``async def`` that uses libraries of asyncio instead of Trio; needs ``shardfun[asyncio]``.
            timeout: of one invocation, for ``async`` and blocking functions; what takes longer has failed.
            concurrency: invocations at once in one shard, for ``async`` and blocking functions.

        Raises:
            DefinitionError: the name is taken or malformed, or the signature or an option does not fit.
        """
        check_function_name(typename)
        if typename.partition("/")[0] == RESERVED_NAMESPACE:
            msg = f"function {typename!r}: the namespace {RESERVED_NAMESPACE!r} is the runtime's own; use another one"
            raise DefinitionError(msg)

        def declare(function: F) -> F:
            if typename in self._functions:
                other = self._functions[typename].handler
                msg = f"function {typename!r} is declared twice: {place_of(other)} and {place_of(function)}"
                raise DefinitionError(msg)
            options = FunctionOptions(
                style="async" if inspect.iscoroutinefunction(function) else "blocking" if blocking else "plain",
                asyncio=asyncio,
                timeout_ms=None if timeout is None else milliseconds(timeout, f"function {typename!r}: timeout"),
                concurrency=concurrency,
                failure=on_failure,
                expire_idle_ms=None
                if expire_idle is None
                else milliseconds(expire_idle, f"function {typename!r}: expire_idle"),
            )
            check_options(typename, function, options, blocking=blocking)
            spec = function_spec(typename, function, options)
            with_handlers(spec, self._handlers.get(typename, ()))
            self._functions[typename] = spec
            return function

        return declare

    def handler(self, typename: str) -> Callable[[F], F]:
        """Declare another handler of a function type, for other messages: ``def name(ctx: Context[MyState], message: C) -> None``.

        It has the same state, and all options that ``function`` was given.

        Args:
            typename: as in ``function``, which may come before or after.

        Raises:
            DefinitionError: a message type has a handler already, the state is another one, or the signature does not fit.
        """
        check_function_name(typename)

        def declare(function: F) -> F:
            handlers = [*self._handlers.get(typename, ()), declared_handler(typename, function)]
            if typename in self._functions:
                with_handlers(self._functions[typename], handlers)
            self._handlers[typename] = handlers
            return function

        return declare

    def upgrade(self, cls: Any, *, version: int, formerly: Iterable[str] = ()) -> Callable[[U], U]:
        """Declare how fields that an earlier version of a class has left in a checkpoint become those of this version.

        ``def name(version: int, fields: dict[str, Any]) -> dict[str, Any]`` is called, when such a value is read, with its version
        (1 for what was stored before there was an upgrade) and its fields as plain values.

        Args:
            cls: a message type (a struct, a dataclass, a pydantic model) or a ``State`` class.
            version: of the class as it is now, from 2; from 1 with ``formerly``.
            formerly: full names, ``module.Class``, that a message type had earlier.

        Raises:
            DefinitionError: there are two for one class, or an argument does not fit.
        """

        def declare(function: U) -> U:
            if cls in self._upgrades:
                msg = f"upgrade of {type_name(cls)} is declared twice: "
                raise DefinitionError(msg + f"{place_of(self._upgrades[cls].function)} and {place_of(function)}")
            self._upgrades[cls] = declared_upgrade(cls, function, version, formerly)
            return function

        return declare

    def on_end(self, typename: str) -> Callable[[F], F]:
        """Declare what a function type does when a bounded run is at its end: ``def name(ctx: Context[MyState]) -> None``.

        It runs once for each address that has stored state then, as an ordinary message: it may send and emit.
        """
        check_function_name(typename)

        def declare(function: F) -> F:
            if typename in self._on_end:
                msg = f"on_end of {typename!r} is declared twice: {place_of(self._on_end[typename])} and {place_of(function)}"
                raise DefinitionError(msg)
            if inspect.iscoroutinefunction(function):
                msg = f"on_end of {typename!r}: {place_of(function)} must be a plain 'def'"
                raise DefinitionError(msg)
            check_signature(f"on_end of {typename!r}", function, CONTEXT)
            self._on_end[typename] = typing.cast("Callable[[Any], None]", function)
            return function

        return declare

    def router(self, ingress: str) -> Callable[[R], R]:
        """Declare how the records of an ingress become messages: ``def name(record) -> Iterable[Message]``.

        Several routers of one ingress all see every record. A router that raises parks the record; none of its messages is sent.
        """

        def declare(function: R) -> R:
            if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
                msg = f"router of ingress {ingress!r}: {place_of(function)} must be a plain function or generator"
                raise DefinitionError(msg)
            self._routers.setdefault(ingress, []).append(function)
            return function

        return declare

    def ingress(self, name: str, *, target: str | None = None, id: str | None = None) -> Callable[[S], S]:
        """Declare where the records of an ingress come from: ``async def name(position)``, yielding ``(position, record)``.

        The generator runs in the Trio loop of a shard. It is told the position of the last record that was taken in (``None`` at
        the beginning), and goes on behind it: a position is stored with the effects of its record, in one checkpoint. With a
        second parameter ``partition`` (``index``, ``count``, ``owns(key)``) it runs in every shard, each reading its part; else in one
        of them. When it returns, the ingress is at its end. After an exception it is run again behind its last record, from a
        pause on; ``IngressError`` stops the node. The configuration needs no entry; one of the same name is used instead.

        Args:
            name: 1 to 64 letters, digits, '_' or '-'.
            target: every record goes to this function type, at the id in its field ``id``; instead of routers.

        Raises:
            DefinitionError: the name is taken or malformed, or the function is no such generator.
        """

        def declare(function: S) -> S:
            if name in self.ingresses:
                other = self.ingresses[name].function
                msg = f"ingress {name!r} is declared twice: {place_of(other)} and {place_of(function)}"
                raise DefinitionError(msg)
            self.ingresses[name] = declared_ingress(name, function, target, id)
            return function

        return declare

    def compile(self) -> list[CompiledFunction]:
        """All function types, ready to run, in the order declared.

        Raises:
            DefinitionError: an ``on_end`` belongs to no function, an ingress has no way on, or there is no function at all.
        """
        known = self._functions
        for ingress in self.ingresses.values():
            if ingress.target is None and ingress.name not in self._routers:
                msg = f"ingress {ingress.name!r}: {place_of(ingress.function)} has nobody to turn its records into messages: "
                raise DefinitionError(msg + f"expected a router (@app.router({ingress.name!r})), or target=... and id=...")
            if ingress.target is not None and not is_declared(ingress.target, known):
                hint = nearest(ingress.target, known)
                raise DefinitionError(f"ingress {ingress.name!r}: target: there is no function {ingress.target!r}{hint}")
        for what, declared in (("on_end", self._on_end), ("handler", self._handlers)):
            for typename in declared:
                if typename not in known:
                    msg = f"{what} of {typename!r}: there is no such function{nearest(typename, known)}"
                    raise DefinitionError(msg)
        if not known:
            msg = f"application {self.name!r} declares no function: expected at least one @app.function('namespace/name')"
            raise DefinitionError(msg)
        specs = [with_handlers(spec, self._handlers.get(typename, ())) for typename, spec in known.items()]
        self._check_upgrades(specs)
        return [CompiledFunction(self._complete(spec)) for spec in specs]

    def _complete(self, spec: FunctionSpec) -> FunctionSpec:
        """A spec with what was declared apart from its function."""
        on_end = self._on_end.get(spec.typename)
        if on_end is not None:
            check_end(spec, on_end)
        upgrades = {upgrade.name: upgrade for upgrade in self._upgrades.values()}
        accepts = tuple(item.upgraded_by(upgrades[item.name]) if item.name in upgrades else item for item in spec.accepts)
        return dataclasses.replace(spec, on_end=on_end, accepts=accepts, upgrade=self._upgrades.get(spec.state_class))

    def _check_upgrades(self, specs: list[FunctionSpec]) -> None:
        states = {spec.state_class for spec in specs}
        messages = {item.name for spec in specs for item in spec.accepts}
        for cls, upgrade in self._upgrades.items():
            if is_state_class(cls) and cls not in states:
                msg = f"upgrade of {upgrade.name}: it is the state of no function"
                raise DefinitionError(msg)
            if not is_state_class(cls) and upgrade.name not in messages:
                msg = f"upgrade of {upgrade.name}: no function takes it as a message (a type inside a state or another message "
                raise DefinitionError(msg + f"is upgraded with that){nearest(upgrade.name, sorted(messages))}")

    def routers(self, ingress: str) -> tuple[Callable[[Any], Iterable[Any]], ...]:
        """The routers declared for an ingress."""
        return tuple(self._routers.get(ingress, ()))

    @property
    def routed_ingresses(self) -> tuple[str, ...]:
        """The ingresses that have a router."""
        return tuple(self._routers)

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules that hold what was declared, in the order of declaration."""
        declared: list[Any] = [spec.handler for spec in self._functions.values()]
        declared += [handler.function for handlers in self._handlers.values() for handler in handlers]
        declared += self._on_end.values()
        declared += [router for routers in self._routers.values() for router in routers]
        declared += [ingress.function for ingress in self.ingresses.values()]
        declared += [upgrade.function for upgrade in self._upgrades.values()]
        names = (getattr(function, "__module__", None) for function in declared)
        return tuple(dict.fromkeys(name for name in names if isinstance(name, str)))
