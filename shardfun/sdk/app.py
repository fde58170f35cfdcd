"""``App``: the functions and routers of one application, declared with decorators and checked when they are declared."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from shardfun.core.function import CompiledFunction, FunctionSpec
from shardfun.errors import DefinitionError
from shardfun.model.address import check_typename
from shardfun.model.payload import PayloadType, payload_types
from shardfun.sdk.context import Context
from shardfun.sdk.state import State, empty_state, field_specs, is_state_class

F = TypeVar("F", bound=Callable[..., None])
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

    def function(self, typename: str) -> Callable[[F], F]:
        """Declare a function type: ``def name(ctx: Context[MyState], message: A | B) -> None``.

        Args:
            typename: ``namespace/name``, unique in the application.

        Raises:
            DefinitionError: the name is taken or malformed, or the signature is not of the form above.
        """
        check_typename(typename)

        def declare(function: F) -> F:
            if typename in self._functions:
                other = self._functions[typename].handler
                msg = f"function {typename!r} is declared twice: {_where(other)} and {_where(function)}"
                raise DefinitionError(msg)
            self._functions[typename] = _function_spec(typename, function)
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
            _check_plain(typename, function, 1)
            self._on_end[typename] = function
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


def _function_spec(typename: str, function: Callable[..., Any]) -> FunctionSpec:
    where = f"function {typename!r}"
    parameters = _check_plain(typename, function, 2)
    hints = _hints(where, function)
    state_class = _state_class(where, hints.get(parameters[0].name))
    accepts: tuple[PayloadType, ...] = payload_types(hints.get(parameters[1].name, Any), f"{where}: message")
    return FunctionSpec(typename, function, None, state_class, field_specs(state_class, where), accepts)


def _check_plain(typename: str, function: Callable[..., Any], arguments: int) -> list[inspect.Parameter]:
    form = "(ctx: Context[MyState], message: MyMessage)" if arguments == 2 else "(ctx: Context[MyState])"
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        msg = f"function {typename!r}: {_where(function)} must be a plain 'def' that records its effects and returns None"
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
