"""Records for ingresses of kind ``http``: ``POST /v1/ingress/{name}``, one or a stream of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import aclosing
from typing import Any, Final

import trio

from shardfun.door.messages import Desk
from shardfun.door.problems import ProblemError, problem_of
from shardfun.door.request import JSON, NDJSON, Request, Response, decode_json, json_response
from shardfun.errors import BacklogFullError, ShardfunError, nearest
from shardfun.intake.entries import RecordEntry

BATCH_RECORDS_MAX: Final = 1000
"""What is made durable together, at most."""
ROOM_WAIT_S: Final = 60.0
"""A stream waits so long for room in the backlog before it gives up."""


class RecordRoutes:
    """See the module.

    Args:
        names: ingresses of kind ``http``.
    """

    def __init__(self, intake: Desk, names: Collection[str]) -> None:
        self._intake = intake
        self._names = names

    async def take(self, request: Request) -> Response:
        """``POST /v1/ingress/{name}``."""
        (name,) = request.parameters
        request.query()
        if name not in self._names:
            raise ProblemError(
                "unknown-ingress", f"there is no ingress {name[:100]!r} of kind 'http'{nearest(name, self._names)}"
            )
        if b"idempotency-key" in request.headers:
            raise ProblemError("wrong-key", "records have no Idempotency-Key; give them an id that their function knows again")
        if request.require_type(JSON, NDJSON) == NDJSON:
            return json_response({"records": await self._take_stream(name, request)})
        record = decode_json(await request.body())
        await self._intake.append([RecordEntry(name, record)])
        return json_response({"records": 1})

    async def _take_stream(self, name: str, request: Request) -> int:
        """How many records became durable: all of them, or there is a problem that says how many."""
        durable = 0
        try:
            async with aclosing(request.lines()) as pieces:
                async for lines in pieces:
                    for batch, problem in _batches(name, lines, durable):
                        if batch:
                            await self._append(batch)
                            durable += len(batch)
                        if problem is not None:
                            raise problem
        except ShardfunError as error:
            problem = problem_of(error)
            problem.members = {"records": durable}
            raise problem from error
        except ProblemError as problem:
            problem.members = {"records": durable}
            raise
        return durable

    async def _append(self, batch: list[Any]) -> None:
        """A stream is not sent away when the backlog is full: it is read more slowly."""
        deadline = trio.current_time() + ROOM_WAIT_S
        while True:
            try:
                await self._intake.append(batch)
            except BacklogFullError as error:
                if trio.current_time() + error.retry_after_s > deadline:
                    raise
                await trio.sleep(error.retry_after_s)
            else:
                return


def _batches(name: str, lines: list[bytes], before: int) -> Iterator[tuple[list[Any], ProblemError | None]]:
    """Entries for the lines; behind the last good one, what is wrong with the next."""
    batch: list[Any] = []
    for number, line in enumerate(lines, before + 1):
        try:
            batch.append(RecordEntry(name, decode_json(line, f"record {number}")))
        except ProblemError as problem:
            yield batch, problem
            return
        if len(batch) >= BATCH_RECORDS_MAX:
            yield batch, None
            batch = []
    yield batch, None
