"""What the node knows: state, ids, checkpoints, dead letters, its figures and its health. All of it is asked of the supervisor."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from shardfun.door.messages import Desk, require_function, require_id
from shardfun.door.node import NodeLink
from shardfun.door.problems import RETRY_S, ProblemError
from shardfun.door.request import Request, Response, count_of, json_response, one_of
from shardfun.errors import ConfigurationError, ShardfunError
from shardfun.model.letters import parse_letter_name
from shardfun.model.questions import (
    LETTERS_MAX,
    PAGE_DEFAULT,
    PAGE_MAX,
    Action,
    LettersAnswer,
    LettersQuestion,
    ListQuestion,
    StateQuestion,
)
from shardfun.model.status import NodeStatus
from shardfun.telemetry.http_figures import HttpFigures
from shardfun.telemetry.prometheus import CONTENT_TYPE as METRICS_TYPE
from shardfun.telemetry.prometheus import render_metrics

RUNNING: Final = "running"


class QueryRoutes:
    """See the module.

    Args:
        declared: names of the application's functions.
    """

    def __init__(self, node: NodeLink, intake: Desk, declared: Collection[str], figures: HttpFigures) -> None:
        self._node = node
        self._intake = intake
        self._declared = declared
        self._figures = figures

    # ---- state -----------------------------------------------------------------------------------------------------------
    async def state(self, request: Request) -> Response:
        """``GET /v1/state/{namespace}/{type}/{id}``."""
        namespace, name, id = request.parameters
        query = request.query("at", "part", "after", "limit")
        require_function(f"{namespace}/{name}", self._declared)
        require_id(id)
        question = StateQuestion(
            target=f"{namespace}/{name}",
            id=id,
            at="checkpoint" if one_of("at", query.get("at", "live"), ("live", "checkpoint")) == "checkpoint" else "live",
            part=query.get("part"),
            after=query.get("after"),
            limit=count_of(query.get("limit"), PAGE_DEFAULT, PAGE_MAX),
        )
        return json_response(await self._node.state(question))

    async def ids(self, request: Request) -> Response:
        """``GET /v1/functions/{namespace}/{type}``."""
        namespace, name = request.parameters
        query = request.query("after", "limit")
        require_function(f"{namespace}/{name}", self._declared)
        limit = count_of(query.get("limit"), PAGE_DEFAULT, PAGE_MAX)
        return json_response(
            await self._node.ids(ListQuestion(typename=f"{namespace}/{name}", after=query.get("after"), limit=limit))
        )

    async def checkpoint(self, request: Request) -> Response:
        """``POST /v1/checkpoints``."""
        request.query()
        await request.no_body()
        return json_response(await self._node.checkpoint())

    # ---- dead letters ----------------------------------------------------------------------------------------------------
    async def letters(self, request: Request) -> Response:
        """``GET /v1/dead-letters``."""
        query = request.query("typename", "limit")
        limit = count_of(query.get("limit"), PAGE_DEFAULT, LETTERS_MAX)
        answer = await self._node.letters(LettersQuestion(action="list", typename=query.get("typename"), limit=limit))
        return json_response({"checkpoint": answer.checkpoint, "total": answer.total, "letters": answer.letters})

    async def letter(self, request: Request) -> Response:
        """``GET /v1/dead-letters/{key}``."""
        request.query()
        answer = await self._one_letter("show", request.parameters[0])
        return json_response(answer.letters[0])

    async def drop_letter(self, request: Request) -> Response:
        """``DELETE /v1/dead-letters/{key}``."""
        request.query()
        await request.no_body()
        return await self._changed("drop", request.parameters[0])

    async def replay_letter(self, request: Request) -> Response:
        """``POST /v1/dead-letters/{key}/replay``."""
        request.query()
        await request.no_body()
        return await self._changed("replay", request.parameters[0])

    async def _changed(self, action: Action, key: str) -> Response:
        answer = await self._one_letter(action, key)
        change = answer.changes[0]
        if change.refused:
            raise ProblemError("letter-refused", f"{key}: {change.refused}")
        return json_response({"key": change.key, "target": change.target, "checkpoint": answer.checkpoint})

    async def _one_letter(self, action: Action, key: str) -> LettersAnswer:
        try:
            parse_letter_name(key)
        except ConfigurationError as error:
            raise ProblemError("unknown-letter", str(error)) from error
        answer = await self._node.letters(LettersQuestion(action=action, keys=[key]))
        if answer.unknown or not (answer.letters or answer.changes):
            raise ProblemError("unknown-letter", f"there is no dead letter {key!r}; it may have been sent again or deleted")
        return answer

    # ---- the node --------------------------------------------------------------------------------------------------------
    async def status(self, request: Request) -> Response:
        """``GET /v1/status``."""
        request.query()
        return json_response(await self._node.status())

    async def metrics(self, request: Request) -> Response:
        """``GET /metrics``."""
        request.query()
        status = await self._node.status()
        self._figures.intake_backlog_bytes = self._intake.backlog_bytes_now
        return Response(200, render_metrics(status, self._figures).encode(), METRICS_TYPE.encode())

    async def alive(self, request: Request) -> Response:
        """``GET /healthz``: whether the door works."""
        request.query()
        return json_response({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """``GET /readyz``: whether the whole node runs."""
        request.query()
        try:
            status = await self._node.status()
        except ShardfunError as error:
            raise ProblemError("unavailable", "the node does not answer", retry_after_s=RETRY_S) from error
        if not _is_ready(status):
            raise ProblemError("unavailable", f"the node is {_in_a_word(status)}", retry_after_s=RETRY_S)
        return json_response({"status": "ready"})


def _is_ready(status: NodeStatus) -> bool:
    return status.state == RUNNING and all(shard.state == RUNNING for shard in status.shards)


def _in_a_word(status: NodeStatus) -> str:
    if status.state != RUNNING:
        return status.state
    return f"waiting for {sum(shard.state != RUNNING for shard in status.shards)} of its shards"
