"""One connection: hypercorn's HTTP/1.1 over a Trio stream, with a limit on everything a client can take.

What hypercorn leaves open matters here: how long a request may take to arrive and an answer to be taken, how much of a body may
wait, what a client is told that breaks the protocol, what becomes of a body that nobody reads. So three of its classes are
extended. It is cheaper, too: an answer is one write instead of three, and no task is started to watch over an idle connection
(measured: 0.45 ms of a request instead of 0.95).

HTTP/2 and WebSockets are not offered.

A little long: the three classes share the state of one connection.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import unquote

import h11
import structlog
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body, EndBody, Request, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext

from shardfun.door.problems import BY_STATUS, CONTENT_TYPE, KINDS, problem_document

RECEIVE_BYTES: Final = 64 << 10
HEADER_BYTES_MAX: Final = 16 << 10
"""Request line and headers."""
BODY_WAITING_BYTES: Final = 256 << 10
"""Of a body that the application has not taken yet; beyond it nothing is read from the connection."""
LINGER_S: Final = 1.0
LINGER_BYTES_MAX: Final = 1 << 20
"""What is still read and thrown away after an answer that ends the connection. Closed at once, the answer could be lost."""
EVENT_STREAM: Final = "shardfun.stream"
"""Extension of the scope: call it before a body is read that has no end, so that its time counts from piece to piece."""

_REASONS: Final = MappingProxyType({int(status): status.phrase.encode() for status in HTTPStatus})

Application = Callable[
    [dict[str, Any], Callable[[], Awaitable[dict[str, Any]]], Callable[[dict[str, Any]], Awaitable[None]]], Any
]

log = structlog.get_logger("shardfun.door")


class SlowClientError(Exception):
    """The body did not arrive in time."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """In seconds, as in the configuration."""

    read_s: float
    write_s: float
    keep_alive_s: float


class Exchange:
    """A request and its answer, between hypercorn's protocol and the application. In place of hypercorn's ``HTTPStream``.

    The application is cancelled when the connection breaks.
    """

    def __init__(self, connection: Connection, protocol: Protocol, application: Application) -> None:
        self.complete = False
        self.finished = False
        self.idle = False
        self._connection = connection
        self._protocol = protocol
        self._application = application
        self._scope: dict[str, Any] = {}
        self._cancel = trio.CancelScope()
        self._chunks: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._too_slow = False
        self._news: trio.Event | None = None
        self._room: trio.Event | None = None
        self._head: dict[str, Any] | None = None
        self._started = False

    # ---- from the protocol -----------------------------------------------------------------------------------------------
    async def handle(self, event: StreamEvent) -> None:
        """What hypercorn's protocol has found in the bytes."""
        if isinstance(event, Body):
            if self.finished:
                return
            self._chunks.append(bytes(event.data))
            self._waiting_bytes += len(event.data)
            self._wake()
            if self._waiting_bytes > BODY_WAITING_BYTES:
                self._room = trio.Event()
                with self._connection.not_the_clients_time():
                    await self._room.wait()
        elif isinstance(event, EndBody):
            self.complete = True
            self._connection.body_complete()
            self._wake()
        elif isinstance(event, Request):
            self._begin(event)
        elif isinstance(event, StreamClosed) and not self.finished:
            self._end()
            self._cancel.cancel()

    def _begin(self, event: Request) -> None:
        raw, _, query = event.raw_path.partition(b"?")
        text = raw.decode("latin-1")
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": event.http_version,
            "method": event.method,
            "scheme": "https" if self._connection.ssl else "http",
            "path": unquote(text) if "%" in text else text,
            "raw_path": raw,
            "query_string": query,
            "headers": event.headers,
            "client": self._connection.client,
            "extensions": {EVENT_STREAM: self._connection.stream_body},
        }
        self._connection.nursery.start_soon(self._run)

    def too_slow(self) -> None:
        """The rest of the body has not come in time."""
        self._too_slow = True
        self._wake()

    def abandon(self) -> None:
        """The protocol has answered in place of the application."""
        self._end()
        if not self._started:
            self._cancel.cancel()

    # ---- for the application ---------------------------------------------------------------------------------------------
    async def _run(self) -> None:
        with self._cancel:
            try:
                await self._application(self._scope, self._receive, self._send)
            except Exception as error:
                log.exception("bug in the HTTP door", error=f"{type(error).__name__}: {error}", exc_info=error)
                if not self._started:
                    self._started = True
                    await self._protocol.refuse(500, "a bug; the log says more")
                    await self._connection.protocol_send(Closed())
            if not self.finished:  # an answer without an end
                self._end()
                await self._connection.protocol_send(Closed())

    async def _receive(self) -> dict[str, Any]:
        while True:
            if self._chunks:
                # all that is there at once: a body mostly comes in one piece
                body = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
                self._chunks.clear()
                self._waiting_bytes = 0
                if self._room is not None:
                    self._room.set()
                return {"type": "http.request", "body": body, "more_body": not self.complete}
            if self.complete:
                return {"type": "http.request", "body": b"", "more_body": False}
            if self._too_slow:
                raise SlowClientError
            self._news = trio.Event()
            await self._news.wait()

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._head = message
            return
        if self.finished:  # the protocol has answered in its place, and it has not been cancelled yet
            return
        wire = self._protocol.connection
        data = b""
        if not self._started:
            assert self._head is not None, "a body before its response"
            data += self._protocol.head(self._head["status"], self._head["headers"])
            self._started = True
        body = message.get("body", b"")
        if body and self._scope["method"] != "HEAD":
            data += wire.send(h11.Data(data=body)) or b""
        more = message.get("more_body", False)
        if not more:
            data += wire.send(h11.EndOfMessage()) or b""
            self._end()
        await self._connection.write(data)
        if not more:
            await self._protocol.stream_send(StreamClosed(stream_id=STREAM_ID))

    def _end(self) -> None:
        self.finished = True
        self._chunks.clear()
        if self._room is not None:
            self._room.set()

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None


class Protocol(H11Protocol):
    """HTTP/1.1 of one connection. Problem documents in place of empty error responses; no upgrades."""

    def __init__(
        self, connection: Connection, application: Application, config: HypercornConfig, context: WorkerContext
    ) -> None:
        super().__init__(
            application,  # type: ignore[arg-type]  # only handed through
            config,
            context,
            None,  # type: ignore[arg-type]  # tasks are started in the connection's nursery
            None,  # type: ignore[arg-type]
            connection.ssl,
            None,
            None,
            connection.protocol_send,
        )
        self._owner = connection
        self._application = application

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        """The bytes of a response's beginning."""
        if self.context.terminated.is_set():
            headers = [*headers, (b"connection", b"close")]
        response = h11.Response(status_code=status, headers=headers, reason=_REASONS.get(status, b""))
        return self.connection.send(response) or b""

    async def refuse(self, status: int, detail: str) -> None:
        """Answer what never became a request, and end the connection."""
        if self._owner.exchange is not None:
            self._owner.exchange.abandon()
        if self.connection.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        kind = KINDS[BY_STATUS.get(status, "malformed-request" if status < 500 else "internal-error")]
        document = problem_document(kind, detail)
        data = self.head(kind.status, [*problem_head(document), (b"connection", b"close")])
        data += self.connection.send(h11.Data(data=document)) or b""
        data += self.connection.send(h11.EndOfMessage()) or b""
        await self._owner.write(data)

    async def _create_stream(self, request: h11.Request) -> None:
        # h11 counts only what is incomplete, and all of it may come at once
        if len(request.target) + sum(len(name) + len(text) for name, text in request.headers) > HEADER_BYTES_MAX:
            await self._send_error_response(431)
            await self.send(Closed())
            return
        exchange = Exchange(self._owner, self, self._application)
        self.stream = exchange  # type: ignore[assignment]  # has what is used of an HTTPStream
        self._owner.exchange = exchange
        await exchange.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                raw_path=request.target,
                method=request.method.decode("ascii"),
                state=None,  # type: ignore[arg-type]  # there is none
            )
        )

    async def _send_error_response(self, status_code: int) -> None:
        await self.refuse(
            status_code, _PROTOCOL_DETAILS.get(status_code, "expected HTTP/1.1, got something else or half a request")
        )

    async def _check_protocol(self, event: h11.Request) -> None:
        """No upgrade to HTTP/2 or WebSocket: the request is answered as if it had not asked for one."""


_PROTOCOL_DETAILS: Final = {
    431: f"expected a request line and headers of at most {HEADER_BYTES_MAX} bytes together",
    501: "expected the transfer coding 'chunked' or a Content-Length",
}


def problem_head(document: bytes) -> list[tuple[bytes, bytes]]:
    """The headers of a problem document."""
    return [(b"content-type", CONTENT_TYPE), (b"content-length", str(len(document)).encode())]


class _Suspended:
    """While it is open, the client's time does not run: it is us who do not read."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._left_s = 0.0

    def __enter__(self) -> None:
        self._left_s = self._connection.deadline - trio.current_time()
        self._connection.deadline = math.inf

    def __exit__(self, *_: object) -> None:
        if self._connection.deadline == math.inf:  # else the connection is being closed meanwhile, and has another one
            self._connection.deadline = trio.current_time() + self._left_s


class Connection(TCPServer):
    """One connection from accept to close.

    ``deadline`` and ``write_deadline`` are plain numbers, which ``Server`` looks at a few times a second: timers of their own for
    each request would cost more than answering it.
    """

    def __init__(
        self,
        application: Application,
        config: HypercornConfig,
        context: WorkerContext,
        timeouts: Timeouts,
        stream: trio.SocketStream | trio.SSLStream[trio.SocketStream],
    ) -> None:
        super().__init__(application, config, context, None, stream)  # type: ignore[arg-type]
        self.ssl = isinstance(stream, trio.SSLStream)
        socket = stream.transport_stream.socket if isinstance(stream, trio.SSLStream) else stream.socket
        self.client: Any = socket.getpeername()[:2]
        self.exchange: Exchange | None = None
        self.nursery: trio.Nursery
        self.deadline = trio.current_time() + timeouts.read_s
        self.write_deadline = math.inf
        self._timeouts = timeouts
        self._streaming = False
        self._idle = True
        self._lingering = False
        self._heard_all = False
        self._broken = False
        self._ending = False
        self._writing = trio.Lock()

    async def run(self) -> None:
        """Serve until the client or the protocol ends it."""
        try:
            async with trio.open_nursery() as self.nursery:
                try:
                    if self.ssl:
                        await self.stream.do_handshake()
                    self.deadline = trio.current_time() + self._timeouts.read_s
                    self.protocol = Protocol(self, self.app, self.config, self.context)  # type: ignore[assignment,arg-type]
                    await self._read_data()
                finally:
                    self._ending = True
                    self.nursery.cancel_scope.cancel()
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client is gone; whoever wrote to it has been cancelled
        finally:
            with trio.move_on_after(LINGER_S) as ending:
                ending.shield = True
                if self._broken:
                    await trio.aclose_forcefully(self.stream)
                else:
                    await self.stream.aclose()

    # ---- time ------------------------------------------------------------------------------------------------------------
    def overdue(self, now: float) -> bool:
        """Whether somebody has to ``expire`` it."""
        return now > self.deadline or now > self.write_deadline

    def expire_soon(self) -> None:
        """Have it closed, unless it is ending already: then its nursery may take no more tasks."""
        if not self._ending:
            self.nursery.start_soon(self.expire)

    async def expire(self) -> None:
        """Out of time: say so if there is somebody to hear it, and close."""
        if trio.current_time() > self.write_deadline:
            self._break()
            return
        self.deadline = math.inf
        exchange = self.exchange
        if self._idle or self._lingering:
            self.nursery.cancel_scope.cancel()
        elif exchange is not None and not exchange.finished:
            exchange.too_slow()
        else:
            await self.protocol.refuse(408, "the request did not arrive in time")  # type: ignore[attr-defined]
            await self.protocol_send(Closed())

    def not_the_clients_time(self) -> _Suspended:
        """Stop the client's clock for a while."""
        return _Suspended(self)

    def stream_body(self) -> None:
        """The body has no end: each piece has its time."""
        self._streaming = True

    def body_complete(self) -> None:
        """The client has done its part."""
        self.deadline = math.inf

    def close_if_idle(self) -> None:
        """For the end of the door."""
        if self._idle:
            self.nursery.cancel_scope.cancel()

    # ---- bytes -----------------------------------------------------------------------------------------------------------
    async def protocol_send(self, event: Event) -> None:
        """What the protocol wants: bytes to be written, the connection closed, or to be told that it is idle."""
        if isinstance(event, RawData):
            await self.write(event.data)
        elif isinstance(event, Updated):
            self._idle = event.idle
            if event.idle:
                self.exchange = None
                self._streaming = False
                self.deadline = trio.current_time() + self._timeouts.keep_alive_s
        elif isinstance(event, Closed):
            await self._linger()

    async def write(self, data: bytes) -> None:
        """Write all of it, within ``write_timeout``. When the client is gone everything of the connection is cancelled."""
        if not data:
            return
        await self._begin_writing()
        self.write_deadline = trio.current_time() + self._timeouts.write_s
        try:
            await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._break()
            await trio.lowlevel.checkpoint_if_cancelled()
        finally:
            self.write_deadline = math.inf
            self._writing.release()

    async def _begin_writing(self) -> None:
        """The application and the reader (``100 Continue``, a refusal) may both have something to say.

        A free lock is taken without a turn of the loop, which hypercorn's would cost each answer.
        """
        try:
            self._writing.acquire_nowait()
        except trio.WouldBlock:
            await self._writing.acquire()

    async def _read_data(self) -> None:
        lingered = 0
        while True:
            data = bytes(await self.stream.receive_some(RECEIVE_BYTES))
            if self._lingering:
                lingered += len(data)
                if not data or lingered > LINGER_BYTES_MAX:
                    return
                continue
            if data and (self._idle or self._streaming):
                self._idle = False
                self.deadline = trio.current_time() + self._timeouts.read_s
            await self.protocol.handle(RawData(data))
            if not data and not self._lingering:
                await self._at_end()
                return

    async def _at_end(self) -> None:
        """The client sends no more. It may still wait for its answer: then that is given, and the connection ends with it."""
        self._heard_all = True
        exchange = self.exchange
        if exchange is not None and exchange.complete and not exchange.finished:
            await trio.sleep_forever()  # until the answer's end closes the connection, see _linger
        await self.protocol.handle(Closed())

    async def _linger(self) -> None:
        """Close after the client has had the chance to read the answer: see ``LINGER_S``."""
        if self._lingering:
            return
        self._lingering = True
        if self._heard_all:
            self.nursery.cancel_scope.cancel()
            return
        self.deadline = trio.current_time() + LINGER_S
        if not self.ssl:
            await self._begin_writing()
            try:
                await self.stream.send_eof()
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                self._break()
            finally:
                self._writing.release()

    def _break(self) -> None:
        self._broken = True
        self.nursery.cancel_scope.cancel()
