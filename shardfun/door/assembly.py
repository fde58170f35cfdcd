"""Puts the door's application together from its parts; here the process and its tests agree on what a door is."""

from __future__ import annotations

from typing import Final

import trio

from shardfun.config.schema import Config, HttpConfig
from shardfun.door.app import DoorApplication, routes
from shardfun.door.events import EventRoutes, MakeTail
from shardfun.door.messages import Desk, MessageRoutes
from shardfun.door.node import NodeLink
from shardfun.door.openapi import openapi_document
from shardfun.door.queries import QueryRoutes
from shardfun.door.records import RecordRoutes
from shardfun.door.request import Request, Response, json_response
from shardfun.door.routing import Router
from shardfun.door.security import Guard
from shardfun.intake.targets import Targets
from shardfun.telemetry.http_figures import HttpFigures

HTTP_KIND: Final = "http"
FOLLOWED_KINDS: Final = ("http", "stream")


def assemble(
    config: Config,
    targets: Targets,
    intake: Desk,
    node: NodeLink,
    make_tail: MakeTail,
    token: bytes | None,
    stopping: trio.Event,
) -> DoorApplication:
    """The application.

    Args:
        make_tail: see ``EventRoutes``.
        token: the bearer token, if one is needed.
        stopping: set when the door ends.
    """
    http = config.http or HttpConfig()
    figures = HttpFigures()
    functions = targets.describe()
    declared = frozenset(function["typename"] for function in functions)
    ingresses = [name for name, entry in config.ingress.items() if entry.kind == HTTP_KIND]
    egresses = [name for name, entry in config.egress.items() if entry.kind in FOLLOWED_KINDS]

    async def openapi(request: Request) -> Response:
        request.query()
        return document

    table = routes(
        MessageRoutes(targets, intake, node, http.wait_max_s, http.idempotency_window_s),
        QueryRoutes(node, intake, declared, figures),
        RecordRoutes(intake, ingresses),
        EventRoutes(egresses, make_tail, http.heartbeat_s, figures, stopping),
        openapi,
    )
    document = json_response(openapi_document(table, functions, ingresses, egresses, token=token is not None))
    return DoorApplication(Router(table), Guard(token), http, figures)
