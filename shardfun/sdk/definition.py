"""What stands behind the decorators of ``App``: looks at a function's signature and says precisely what does not fit."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from shardfun.core.function import FunctionSpec
from shardfun.core.options import FailurePolicy, FunctionOptions
from shardfun.errors import DefinitionError
from shardfun.model.conversion import unalias
from shardfun.model.payload import PayloadType, payload_type, payload_types, type_name
from shardfun.model.upgrade import FIRST_VERSION, Upgrade, is_upgradable
from shardfun.sdk.context import Context
from shardfun.sdk.state import State, collection_specs, empty_state, field_specs, is_state_class

CONTEXT = "ctx: Context[MyState]"


@dataclasses.dataclass(frozen=True, slots=True)
class Handler:
    """Another handler of a function, for the payload types that it accepts."""

    function: Callable[..., Any]
    state_class: type
    accepts: tuple[PayloadType, ...]


def check_options(typename: str, function: Callable[..., Any], options: FunctionOptions, *, blocking: bool) -> None:
    """Check that a function's options fit each other and its style.

    Raises:
        DefinitionError: they do not.
    """
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
        msg = f"function {typename!r}: {place_of(function)}: {problem}"
        raise DefinitionError(msg)


def function_spec(typename: str, function: Callable[..., Any], options: FunctionOptions) -> FunctionSpec:
    """The spec of a function by its signature.

    Raises:
        DefinitionError: the signature is not of the form ``(ctx: Context[MyState], message: MyMessage)``, or names what cannot be.
    """
    where = f"function {typename!r}"
    handler = declared_handler(typename, function)
    return FunctionSpec(
        typename=typename,
        handler=function,
        on_end=None,
        state_class=handler.state_class,
        fields=field_specs(handler.state_class, where),
        accepts=handler.accepts,
        collections=collection_specs(handler.state_class, where),
        options=options,
    )


def declared_handler(typename: str, function: Callable[..., Any]) -> Handler:
    """A handler by its signature.

    Raises:
        DefinitionError: as ``function_spec``.
    """
    where = f"function {typename!r}"
    parameters = check_signature(where, function, CONTEXT, "message: MyMessage")
    hints = _hints(where, function)
    state_class = _state_class(where, hints.get(parameters[0].name))
    accepts = payload_types(hints.get(parameters[1].name, Any), f"{where}: message")
    return Handler(function, state_class, accepts)


def with_handlers(spec: FunctionSpec, handlers: Sequence[Handler]) -> FunctionSpec:
    """A function with further handlers: chosen by the class of the message, as many as there may be.

    Raises:
        DefinitionError: a payload type has two handlers, or a handler has another state or another style than the function.
    """
    if not handlers:
        return spec
    first = Handler(spec.handler, spec.state_class, spec.accepts)
    chosen: dict[type, Callable[..., Any]] = {}
    for handler in (first, *handlers):
        where = f"function {spec.typename!r}: {place_of(handler.function)}"
        if not handler.accepts:
            msg = f"{where} takes every message, so nothing is left for another handler; annotate its message"
            raise DefinitionError(msg)
        if handler.state_class is not spec.state_class:
            expected, got = (_context_name(cls) for cls in (spec.state_class, handler.state_class))
            msg = f"{where}: expected its first argument to be {expected}, as of {place_of(spec.handler)}, got {got}"
            raise DefinitionError(msg)
        if inspect.iscoroutinefunction(handler.function) != inspect.iscoroutinefunction(spec.handler):
            msg = f"{where}: expected 'async def' or 'def' as {place_of(spec.handler)} has it: all handlers of a function run alike"
            raise DefinitionError(msg)
        for item in handler.accepts:
            if item.cls in chosen:
                msg = f"{where} and {place_of(chosen[item.cls])} both take {item.name}; expected one handler for each type"
                raise DefinitionError(msg)
            chosen[item.cls] = handler.function

    def choose(context: Any, message: Any) -> Any:
        return chosen[type(message)](context, message)

    choose.__wrapped__ = spec.handler  # type: ignore[attr-defined]  # what people are told of: see ``place_of``
    accepts = tuple(item for handler in (first, *handlers) for item in handler.accepts)
    return dataclasses.replace(spec, handler=choose, accepts=accepts)


def _context_name(state_class: type) -> str:
    return "Context" if state_class is empty_state() else f"Context[{state_class.__qualname__}]"


def check_end(spec: FunctionSpec, on_end: Callable[..., Any]) -> None:
    """Check that an ``on_end`` has the state of its function.

    Raises:
        DefinitionError: it has another one.
    """
    where = f"on_end of {spec.typename!r}"
    (hint, *_) = _hints(where, on_end).values() or (None,)
    declared = _state_class(where, hint) if hint is not None and hint is not type(None) else empty_state()
    if declared is not empty_state() and not issubclass(spec.state_class, declared):
        msg = f"{where}: {place_of(on_end)}: expected {_context_name(spec.state_class)}, as of {place_of(spec.handler)}, "
        raise DefinitionError(msg + f"got {_context_name(declared)}")


def declared_upgrade(cls: Any, function: Callable[..., Any], version: int, formerly: Iterable[str]) -> Upgrade:
    """An upgrade by what ``App.upgrade`` was given.

    Raises:
        DefinitionError: something of it does not fit.
    """
    where = f"upgrade of {type_name(cls)}"
    names = tuple(formerly)
    problem = None
    if isinstance(formerly, str) or any(type(name) is not str or not name or "@" in name for name in names):
        problem = f"formerly: expected full names, as in formerly=('shop.messages.Add',), got {formerly!r}"
    elif is_state_class(cls):
        if names:
            problem = "formerly is for message types; stored state does not name its class"
    elif not is_upgradable(unalias(cls)):
        problem = "expected a message type with fields by name (a struct, a dataclass, a pydantic model) or a State class"
    least = FIRST_VERSION if names else FIRST_VERSION + 1
    if problem is None and (type(version) is not int or version < least):
        problem = f"version: expected a whole number from {least}, since what was stored before is version 1; got {version!r}"
    if problem is not None:
        msg = f"{where}: {place_of(function)}: {problem}"
        raise DefinitionError(msg)
    name = type_name(cls) if is_state_class(cls) else payload_type(cls, where).name
    check_signature(where, function, "version: int", "fields: dict[str, Any]")
    if inspect.iscoroutinefunction(function):
        msg = f"{where}: {place_of(function)} must be a plain 'def'"
        raise DefinitionError(msg)
    return Upgrade(name, version, function, names)


def check_signature(where: str, function: Callable[..., Any], *form: str) -> list[inspect.Parameter]:
    """The parameters of a function that is called with as many arguments as ``form`` describes.

    Raises:
        DefinitionError: it takes others, or is a generator.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        msg = f"{where}: {place_of(function)} must not be a generator: it records its effects and returns None"
        raise DefinitionError(msg)
    parameters = list(inspect.signature(function).parameters.values())
    required = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(required) != len(form) or any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
        msg = f"{where}: {place_of(function)}: expected the arguments ({', '.join(form)}), got {inspect.signature(function)}"
        raise DefinitionError(msg)
    return parameters


def _hints(where: str, function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError) as error:
        msg = f"{where}: {place_of(function)}: an annotation cannot be resolved: {error}"
        raise DefinitionError(msg) from error


def _state_class(where: str, hint: Any) -> type[State]:
    if hint is None or hint is Context:
        return empty_state()
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Context and len(arguments) == 1 and is_state_class(arguments[0]):
        return typing.cast("type[State]", arguments[0])
    msg = f"{where}: the first argument: expected 'Context' or 'Context[MyState]' with a State class, got {hint!r}"
    raise DefinitionError(msg)


def place_of(function: Callable[..., Any]) -> str:
    """Where a function is defined, for people: its name, and file and line."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    place = f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""
    return f"{getattr(function, '__qualname__', function)!s}{place}"
