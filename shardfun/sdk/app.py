"""``App``: the functions and routers of one application, declared with decorators and checked when they are declared."""

from __future__ import annotations

import datetime as dt
import inspect
import typing
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from shardfun.core.function import CompiledFunction, FunctionSpec
from shardfun.core.options import FailurePolicy, FunctionOptions, milliseconds
from shardfun.errors import DefinitionError
from shardfun.model.address import check_typename
from shardfun.model.payload import payload_types
from shardfun.sdk.context import Context
from shardfun.sdk.state import State, collection_specs, empty_state, field_specs, is_state_class

F = TypeVar("F", bound=Callable[..., Awaitable[None] | None])
R = TypeVar("R", bound=Callable[..., Iterable[Any]])


class Message(NamedTuple):
    """What a router yields: a payload and the address it goes to."""

    typename: str
    id: str
    value: Any


class App:
    """An application.

    Args:
        name: for people and logs.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._functions: dict[str, FunctionSpec] = {}
        self._on_end: dict[str, Callable[[Any], None]] = {}
        self._routers: dict[str, list[Callable[[Any], Iterable[Any]]]] = {}

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
            typename: ``namespace/name``, unique in the application.
            on_failure: ``retry(...)``, ``dead_letter()`` or ``restart()``; by default as ``[failure]`` in the configuration says.
            expire_idle: delete an instance that got no message for that long (timedelta or seconds).
            blocking: a plain ``def`` that waits (for a disk, a database); it runs in a thread, other addresses go on.
            asyncio: an ``async def`` that uses libraries of asyncio instead of Trio; needs ``shardfun[asyncio]``.
            timeout: of one invocation, for ``async`` and blocking functions; what takes longer has failed.
            concurrency: invocations at once in one shard, for ``async`` and blocking functions.

        Raises:
            DefinitionError: the name is taken or malformed, or the signature or an option does not fit.
        """
        check_typename(typename)

        def declare(function: F) -> F:
            if typename in self._functions:
                other = self._functions[typename].handler
                msg = f"function {typename!r} is declared twice: {_where(other)} and {_where(function)}"
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
            _check_options(typename, function, options, blocking=blocking)
            self._functions[typename] = _function_spec(typename, function, options)
            return function

        return declare

    def on_end(self, typename: str) -> Callable[[F], F]:
        """Declare what a function type does when a bounded run is at its end: ``def name(ctx: Context[MyState]) -> None``.

        It runs once for each address that has stored state then, as an ordinary message: it may send and emit.
        """
        check_typename(typename)

        def declare(function: F) -> F:
            if typename in self._on_end:
                msg = f"on_end of {typename!r} is declared twice: {_where(self._on_end[typename])} and {_where(function)}"
                raise DefinitionError(msg)
            if inspect.iscoroutinefunction(function):
                msg = f"on_end of {typename!r}: {_where(function)} must be a plain 'def'"
                raise DefinitionError(msg)
            _check_signature(typename, function, 1)
            self._on_end[typename] = typing.cast("Callable[[Any], None]", function)
            return function

        return declare

    def router(self, ingress: str) -> Callable[[R], R]:
        """Declare how the records of an ingress become messages: ``def name(record) -> Iterable[Message]``.

        Several routers of one ingress all see every record. A router that raises parks the record; none of its messages is sent.
        """

        def declare(function: R) -> R:
            if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
                msg = f"router of ingress {ingress!r}: {_where(function)} must be a plain function or generator"
                raise DefinitionError(msg)
            self._routers.setdefault(ingress, []).append(function)
            return function

        return declare

    def compile(self) -> list[CompiledFunction]:
        """All function types, ready to run, in the order declared.

        Raises:
            DefinitionError: an ``on_end`` belongs to no function, or there is no function at all.
        """
        import dataclasses

        for typename in self._on_end:
            if typename not in self._functions:
                msg = f"on_end of {typename!r}: there is no such function; known: {', '.join(self._functions) or 'none'}"
                raise DefinitionError(msg)
        if not self._functions:
            msg = f"application {self.name!r} declares no function: expected at least one @app.function('namespace/name')"
            raise DefinitionError(msg)
        return [
            CompiledFunction(dataclasses.replace(spec, on_end=self._on_end.get(typename)))
            for typename, spec in self._functions.items()
        ]

    def routers(self, ingress: str) -> tuple[Callable[[Any], Iterable[Any]], ...]:
        """The routers declared for an ingress."""
        return tuple(self._routers.get(ingress, ()))

    @property
    def routed_ingresses(self) -> tuple[str, ...]:
        """The ingresses that have a router."""
        return tuple(self._routers)


def _check_options(typename: str, function: Callable[..., Any], options: FunctionOptions, *, blocking: bool) -> None:
    problem = None
    if blocking and options.style == "async":
        problem = "blocking=True is for a plain 'def'; an 'async def' awaits instead"
    elif options.asyncio and options.style != "async":
        problem = "asyncio=True is for an 'async def'"
    elif options.style == "plain" and (options.timeout_ms is not None or options.concurrency is not None):
        problem = "timeout and concurrency are for an 'async def' or blocking=True; a plain function runs to its end"
    elif options.timeout_ms == 0 or options.expire_idle_ms == 0:
        problem = "timeout and expire_idle: expected more than 0"
    elif options.concurrency is not None and options.concurrency < 1:
        problem = f"concurrency: expected a number from 1, got {options.concurrency!r}"
    elif type(options.failure) not in (FailurePolicy, type(None)):  # what was called instead of the policy itself, say
        problem = f"on_failure: expected retry(...), dead_letter() or restart(), got {options.failure!r}"
    if problem is not None:
        msg = f"function {typename!r}: {_where(function)}: {problem}"
        raise DefinitionError(msg)


def _function_spec(typename: str, function: Callable[..., Any], options: FunctionOptions) -> FunctionSpec:
    where = f"function {typename!r}"
    parameters = _check_signature(typename, function, 2)
    hints = _hints(where, function)
    state_class = _state_class(where, hints.get(parameters[0].name))
    return FunctionSpec(
        typename=typename,
        handler=function,
        on_end=None,
        state_class=state_class,
        fields=field_specs(state_class, where),
        accepts=payload_types(hints.get(parameters[1].name, Any), f"{where}: message"),
        collections=collection_specs(state_class, where),
        options=options,
    )


def _check_signature(typename: str, function: Callable[..., Any], arguments: int) -> list[inspect.Parameter]:
    form = "(ctx: Context[MyState], message: MyMessage)" if arguments == 2 else "(ctx: Context[MyState])"
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        msg = f"function {typename!r}: {_where(function)} must not be a generator: it records its effects and returns None"
        raise DefinitionError(msg)
    parameters = list(inspect.signature(function).parameters.values())
    required = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(required) != arguments or any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
        msg = f"function {typename!r}: {_where(function)}: expected the arguments {form}, got {inspect.signature(function)}"
        raise DefinitionError(msg)
    return parameters


def _hints(where: str, function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError) as error:
        msg = f"{where}: {_where(function)}: an annotation cannot be resolved: {error}"
        raise DefinitionError(msg) from error


def _state_class(where: str, hint: Any) -> type[State]:
    if hint is None or hint is Context:
        return empty_state()
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Context and len(arguments) == 1 and is_state_class(arguments[0]):
        return typing.cast("type[State]", arguments[0])
    msg = f"{where}: the first argument: expected 'Context' or 'Context[MyState]' with a State class, got {hint!r}"
    raise DefinitionError(msg)


def _where(function: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    place = f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""
    return f"{getattr(function, '__qualname__', function)!s}{place}"
