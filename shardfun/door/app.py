"""The ASGI application of the door: finds the route, checks who asks, calls it, and makes answers of what comes back.

The table of routes below is the only one: the OpenAPI document is made from it, too.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final

import structlog

from shardfun.config.schema import HttpConfig
from shardfun.door.events import EventRoutes
from shardfun.door.messages import MessageRoutes
from shardfun.door.problems import CONTENT_TYPE, ProblemError, problem_of
from shardfun.door.queries import QueryRoutes
from shardfun.door.records import RecordRoutes
from shardfun.door.request import Headers, Request, Response, StreamResponse
from shardfun.door.routing import UNKNOWN, Found, Handler, Route, Router
from shardfun.door.security import Guard
from shardfun.errors import ShardfunError
from shardfun.telemetry.http_figures import HttpFigures

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]

NO_STORE: Final[Headers] = ((b"cache-control", b"no-store"),)
"""An answer is of its moment."""

log = structlog.get_logger("shardfun.door")


def routes(
    messages: MessageRoutes, queries: QueryRoutes, records: RecordRoutes, events: EventRoutes, openapi: Handler
) -> list[Route]:
    """All of them."""
    return [
        Route("GET", "/v1/functions", messages.describe),
        Route("GET", "/v1/functions/{namespace}/{type}", queries.ids),
        Route("POST", "/v1/functions/{namespace}/{type}/{id}", messages.send),
        Route("GET", "/v1/requests/{key}", messages.look),
        Route("GET", "/v1/state/{namespace}/{type}/{id}", queries.state),
        Route("POST", "/v1/ingress/{name}", records.take),
        Route("GET", "/v1/egress/{name}", events.follow),
        Route("POST", "/v1/checkpoints", queries.checkpoint),
        Route("GET", "/v1/status", queries.status),
        Route("GET", "/v1/dead-letters", queries.letters),
        Route("GET", "/v1/dead-letters/{key}", queries.letter),
        Route("DELETE", "/v1/dead-letters/{key}", queries.drop_letter),
        Route("POST", "/v1/dead-letters/{key}/replay", queries.replay_letter),
        Route("GET", "/metrics", queries.metrics),
        Route("GET", "/healthz", queries.alive, public=True),
        Route("GET", "/readyz", queries.ready, public=True),
        Route("GET", "/openapi.json", openapi),
    ]


class DoorApplication:
    """See the module. Called by the server for each request.

    Args:
        figures: where requests are counted.
    """

    def __init__(self, router: Router, guard: Guard, http: HttpConfig, figures: HttpFigures) -> None:
        self._router = router
        self._guard = guard
        self._body_max = http.body_bytes
        self._access_log = http.access_log
        self._figures = figures

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        started = time.perf_counter()
        figures = self._figures
        figures.active += 1
        route, status = UNKNOWN, 0
        try:
            try:
                headers = dict(scope["headers"])
                found = self._find(scope, headers)
                route = found.route
                if not found.public:
                    self._guard.check(headers)
                if found.handler is None:
                    answer: Response | StreamResponse = Response(204, b"", b"", ((b"allow", found.allow),))
                else:
                    answer = await found.handler(Request(scope, headers, receive, found.parameters, self._body_max))
            except ShardfunError as error:
                answer = self._refusal(scope, problem_of(error), error)
            except ProblemError as problem:
                answer = self._refusal(scope, problem, None)
            if isinstance(answer, StreamResponse):
                status = 200
                await _stream(answer, scope["method"], send)
            else:
                status = answer.status
                await send({"type": "http.response.start", "status": status, "headers": _head(answer)})
                await send({"type": "http.response.body", "body": answer.body})
        finally:
            figures.active -= 1
            seconds = time.perf_counter() - started
            # without a status the client went away before it had an answer
            figures.done(route, scope["method"], status or 499, seconds)
            if self._access_log:
                log.info("request", method=scope["method"], route=route, status=status or 499, ms=round(seconds * 1000, 1))

    def _find(self, scope: dict[str, Any], headers: dict[bytes, bytes]) -> Found:
        """The route, for those who may know: without a token not even what exists."""
        try:
            return self._router.find(scope["method"], scope["raw_path"])
        except ProblemError:
            self._guard.check(headers)
            raise

    @staticmethod
    def _refusal(scope: dict[str, Any], problem: ProblemError, error: ShardfunError | None) -> Response:
        if problem.kind.status >= 500 and problem.kind.name == "internal-error":
            log.error("a request failed", error=str(error), code="" if error is None else error.code)
        body = problem.document(scope["raw_path"].decode("latin-1"))
        return Response(problem.kind.status, body, CONTENT_TYPE, problem.headers)


def _head(answer: Response) -> list[tuple[bytes, bytes]]:
    headers = [(b"content-type", answer.content_type), (b"content-length", str(len(answer.body)).encode())]
    if answer.status == 204:
        headers = []
    return [*headers, *NO_STORE, *answer.headers]


async def _stream(answer: StreamResponse, method: str, send: Send) -> None:
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-type", answer.content_type), *answer.headers]}
    )
    if method != "HEAD":
        async with aclosing(answer.pieces()) as pieces:
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
