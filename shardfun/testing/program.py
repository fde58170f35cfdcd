"""An application as a test runs it: compiled, with every router, and with egresses that remember the objects.

Egresses need no configuration here. Unless the application declares its own, any name is an egress from its first ``emit`` on.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from shardfun.core.dispatch import Dispatcher, Router
from shardfun.core.egress import EgressLog
from shardfun.core.function_type import EgressBuffer
from shardfun.core.runner import compile_runner
from shardfun.core.shard import IngressRoute, Program, ShardCore
from shardfun.egress.jsonlines import encode_line
from shardfun.model.doors import PublishedPosition
from shardfun.sdk.app import App
from shardfun.sdk.context import Context

EGRESSES_MAX = 1000  # names that were never declared: more are a mistake of the application
Encoder = Callable[[Any], bytes]


class Emission(bytes):
    """An encoded record that knows what it was made of."""

    value: Any


def remembering(encode: Encoder) -> Encoder:
    """An encoder whose results know what they were made of."""

    def encode_record(value: Any) -> Emission:
        record = Emission(encode(value))
        record.value = copy.deepcopy(value)  # the function may go on changing it
        return record

    return encode_record


def compile_program(app: App, routers: dict[str, Router], encode: Encoder | None = None) -> Program:
    """What the shards of one test run.

    Args:
        routers: more ingresses than those of the application.
        encode: one record of an egress; by default as files and stdout do it.
    """
    functions = app.compile()
    routes = {name: IngressRoute(app.routers(name)) for name in app.routed_ingresses}
    routes |= {
        name: IngressRoute((), own.target, own.id_field) for name, own in app.ingresses.items() if own.target is not None
    }
    routes |= {name: IngressRoute((router,)) for name, router in routers.items()}
    encode_record = remembering(encode or encode_line)
    return Program(
        functions=functions,
        runners=[compile_runner(function) for function in functions],
        routes=routes,
        egresses=dict.fromkeys(app.egresses or (), encode_record),
        context=_make_context,
    )


def _make_context(dispatcher: Dispatcher) -> Context[Any]:
    return Context(dispatcher)


class OpenEgresses(dict[str, EgressBuffer]):
    """The egresses of a dispatcher, to which any name can be added by asking for it.

    Args:
        egresses: of the program, and ``logs`` of the core; they learn of a new name, too.
    """

    def __init__(
        self,
        known: dict[str, EgressBuffer],
        egresses: dict[str, Encoder],
        logs: dict[str, EgressLog],
        shards: int,
        encode: Encoder,
    ) -> None:
        super().__init__(known)
        self._egresses = egresses
        self._logs = logs
        self._shards = shards
        self._encode = encode

    def get(self, name: str, default: Any = None) -> Any:
        """The egress called ``name``."""
        found = super().get(name, default)
        return found if found is not None or type(name) is not str or len(self) >= EGRESSES_MAX else self._add(name)

    def _add(self, name: str) -> EgressBuffer:
        self._egresses.setdefault(name, self._encode)
        self._logs[name] = EgressLog(PublishedPosition(0, 0), [])
        buffer = self[name] = EgressBuffer(name, self._encode, self._shards)
        return buffer


def open_egresses(core: ShardCore, encode: Encoder | None = None) -> None:
    """Let functions of this core emit to egresses of any name."""
    known = core.dispatcher.egresses
    core.dispatcher.egresses = OpenEgresses(
        known, core.program.egresses, core.egress, core.identity.shards, remembering(encode or encode_line)
    )


def names(items: Sequence[str]) -> str:
    """Names in a message."""
    return ", ".join(items) or "none"
