"""The runtime's own doors in a shard: ingresses that read the intake logs, the function of requests, the egress of replies.

They stand beside what is configured, in every node: what was taken in durably is processed whoever took it in. Users do not see them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from shardfun.config.schema import Config
from shardfun.core.function import CompiledFunction
from shardfun.core.shard import IngressRoute
from shardfun.errors import IngressError, nearest
from shardfun.intake.bells import Bell
from shardfun.intake.entries import OWNERS, Entry, MessageEntry, RecordEntry, RequestEntry, ingress_name
from shardfun.intake.reader import LogReader
from shardfun.intake.replies import REPLIES, ReplySink
from shardfun.intake.request import request_function, request_message
from shardfun.intake.targets import Targets
from shardfun.model.keyspace import slot_range
from shardfun.ports import EgressSink, IngressReader

WINDOW_S = 86_400.0
"""How long a request is known after its last message, if nothing is configured."""

INTAKE_FOLDER = "intake"
"""In the data directory."""

HTTP_KIND = "http"
"""Of an ingress: the door takes its records in."""

INTERNAL_EGRESSES = (REPLIES,)


def request_function_of(config: Config, targets: Targets) -> CompiledFunction:
    """The function of requests, with the configured window."""
    return request_function(targets, WINDOW_S if config.http is None else config.http.idempotency_window_s)


def internal_routes(config: Config, targets: Targets, routes: dict[str, IngressRoute]) -> dict[str, IngressRoute]:
    """The routes of the intake logs.

    A node that runs until it is stopped (embedded, or with a door) is held open by them. Any other may finish when its input is
    used up; what is in the logs then is processed by the next run.
    """
    holds = config.endless or config.http is not None
    route = IngressRoute((intake_router(targets, routes),), holds=holds)
    return {ingress_name(owner): route for owner in OWNERS}


def intake_router(targets: Targets, routes: dict[str, IngressRoute]) -> Callable[[Entry], Iterable[Any]]:
    """How entries of an intake log become messages.

    Args:
        routes: of the ingresses of kind ``http``, and perhaps of others.
    """

    def messages(entry: Entry) -> Iterable[Any]:
        match entry:
            case MessageEntry(target, id, type, payload):
                return ((target, id, targets.message(target, type, payload)),)
            case RequestEntry():
                return (request_message(entry),)
            case RecordEntry(ingress, record):
                route = routes.get(ingress)
                if route is None:
                    msg = f"a record for ingress {ingress!r}, which is not configured any more{nearest(ingress, routes)}"
                    raise IngressError(msg)
                if route.target is not None:
                    return ((route.target, str(record[route.id_field]), record),)
                return chain.from_iterable(router(record) for router in route.routers)

    return messages


def internal_readers(data_dir: Path, shard: int, shards: int, bell: Bell) -> dict[str, IngressReader]:
    """The readers of the intake logs."""
    slots = slot_range(shard, shards)
    return {ingress_name(owner): LogReader(data_dir / INTAKE_FOLDER / owner, slots, bell) for owner in OWNERS}


def internal_sinks(runtime_dir: Path) -> dict[str, EgressSink]:
    """The sinks of the runtime's own egresses."""
    return {REPLIES: ReplySink(runtime_dir)}
