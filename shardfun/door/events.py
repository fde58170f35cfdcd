"""Results as server-sent events: ``GET /v1/egress/{name}``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection
from typing import Any, Final

import msgspec
import structlog
import trio

from shardfun.door.problems import ProblemError
from shardfun.door.request import SSE, Request, StreamResponse, one_of
from shardfun.egress.tail import EgressTail
from shardfun.errors import EgressError, EventIdError, EventsGoneError, nearest
from shardfun.telemetry.http_figures import HttpFigures

PIECE_BYTES_MAX: Final = 64 << 10
"""Events that are there at once go into one piece of about this size."""
RECONNECT_MS: Final = 1000
HEARTBEAT: Final = b":\n\n"
_NO_BUFFER: Final = ((b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"))

MakeTail = Callable[[str, str | None, str], Any]

log = structlog.get_logger("shardfun.door")


class EventRoutes:
    """See the module.

    Args:
        names: egresses that can be followed.
        make_tail: an ``EgressTail`` of an egress, behind an event id, or from its ``oldest`` or ``newest`` record on.
        stopping: set when the door ends.
    """

    def __init__(
        self, names: Collection[str], make_tail: MakeTail, heartbeat_s: float, figures: HttpFigures, stopping: trio.Event
    ) -> None:
        self._names = names
        self._make_tail = make_tail
        self._heartbeat_s = heartbeat_s
        self._figures = figures
        self._stopping = stopping

    async def follow(self, request: Request) -> StreamResponse:
        """``GET /v1/egress/{name}``."""
        (name,) = request.parameters
        query = request.query("from")
        if name not in self._names:
            raise ProblemError(
                "unknown-egress", f"there is no egress {name[:100]!r} of kind 'http' or 'stream'{nearest(name, self._names)}"
            )
        request.require_accept(SSE)
        start = one_of("from", query.get("from", "oldest"), ("oldest", "newest"))
        last = request.headers.get(b"last-event-id", b"").decode("latin-1") or None
        try:
            tail = await trio.to_thread.run_sync(self._make_tail, name, last, start)
        except EventsGoneError as error:
            raise ProblemError("events-gone", str(error)) from error
        except EventIdError as error:
            raise ProblemError("wrong-event-id", str(error)) from error
        return StreamResponse(SSE, lambda: self._pieces(tail), _NO_BUFFER)

    async def _pieces(self, tail: Any) -> AsyncGenerator[bytes, None]:
        """Events as text. It ends when the door does; the client comes back with the last id."""
        self._figures.streams += 1
        try:
            yield b"retry: %d\n\n" % RECONNECT_MS
            while not self._stopping.is_set():
                first = None
                with trio.move_on_after(
                    self._heartbeat_s
                ):  # around one event only: cut off between two, the first would be lost
                    first = await anext(tail)
                yield HEARTBEAT if first is None else _piece(first, tail)
        except EgressError as error:
            # it is too late for a status: say it in the stream, and end it
            log.warning("a stream of events ended", reason=str(error))
            yield b"event: error\ndata: %b\n\n" % msgspec.json.encode({"code": error.code, "detail": str(error)})
        finally:
            self._figures.streams -= 1


def _piece(first: tuple[str, Any], tail: EgressTail) -> bytes:
    """An event, and those that are in memory behind it."""
    piece = _event(*first)
    while tail.ready and len(piece) < PIECE_BYTES_MAX:
        (found,) = tail.take(1)
        piece += _event(*found)
    return piece


def _event(id: str, record: Any) -> bytes:
    return b"id: %b\ndata: %b\n\n" % (id.encode(), msgspec.json.encode(record))
