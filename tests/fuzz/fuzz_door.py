"""Targets: the HTTP door (``shardfun.door``): whole connections as bytes, and single requests given to the application.

Whatever comes, what goes back is HTTP, no request ends in "internal-error", and no exception leaves the application. What the door
takes in can be read by the shard that gets it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import cbor2
import h11
import structlog
import trio
import trio.testing
from fuzz_registry import Target
from fuzz_stored import app as shelf_app
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio.worker_context import WorkerContext

from shardfun.config.schema import Config, EgressConfig, HttpConfig, IngressConfig
from shardfun.door import assembly
from shardfun.door.connection import HEADER_BYTES_MAX, Connection, Timeouts
from shardfun.door.openapi import openapi_document
from shardfun.errors import EventIdError, UnknownTargetError
from shardfun.intake.entries import Entry, MessageEntry, RecordEntry, Reply, RequestEntry, decode_entry, encode_entry
from shardfun.intake.targets import Targets
from shardfun.model.letters import DeadLetter
from shardfun.model.questions import (
    CheckpointAnswer,
    LettersAnswer,
    LettersQuestion,
    ListAnswer,
    ListQuestion,
    StateAnswer,
    StateQuestion,
    check_question,
)
from shardfun.model.status import CheckpointStatus, NodeStatus

BODY_BYTES_MAX = 64 << 10
VIRTUAL_S_MAX = 1000.0
LETTER = DeadLetter(
    key="1.17-3-0",
    target="a/b:1",
    sender=None,
    reason="no",
    attempts=1,
    checkpoint="1.1",
    time=1.5,
    payload_type="int",
    payload=1,
)
TARGETS_OF_APP = Targets.of(shelf_app)
CONFIG = Config(
    app="fuzz:app",
    name="fuzz",
    data_dir=Path("/nowhere"),
    http=HttpConfig(listen="127.0.0.1:0", body_bytes=BODY_BYTES_MAX),
    ingress={"orders": IngressConfig(kind="http", options=None)},
    egress={"late": EgressConfig(kind="http", options=None)},
)


class _Desk:
    """An intake that keeps nothing, and reads again what it would write."""

    backlog_bytes_now = 0

    async def append(self, entries: Sequence[Entry]) -> None:
        await trio.lowlevel.checkpoint()
        for entry in entries:
            raw = encode_entry(entry)
            again = decode_entry(raw)
            assert encode_entry(again) == raw
            match again:
                case MessageEntry() | RequestEntry():
                    TARGETS_OF_APP.message(again.target, again.type, again.payload)
                case RecordEntry():
                    pass

    async def ask(self, entry: RequestEntry, *, wait_s: float | None = None) -> Reply | None:
        await self.append([entry])
        return None if wait_s else Reply(entry.key, "reply", "int", cbor2.dumps(5))

    def digest_of(self, key: str) -> bytes | None:
        return None


class _Node:
    """A node that answers anything, as far as the question is one."""

    async def status(self) -> NodeStatus:
        return NodeStatus(
            name="n",
            app="a:b",
            data_dir="/d",
            pid=1,
            state="running",
            incarnation=1,
            uptime_s=1.0,
            recoveries=0,
            shards=[],
            checkpoint=CheckpointStatus(),
        )

    async def state(self, question: StateQuestion) -> StateAnswer:
        check_question(question)
        if question.part is not None:
            raise UnknownTargetError(f"no part {question.part!r:.100}")
        return StateAnswer(address=f"{question.target}:{question.id}", exists=False, checkpoint="1.1")

    async def ids(self, question: ListQuestion) -> ListAnswer:
        check_question(question)
        return ListAnswer(ids=["1"], next=None, checkpoint="1.1")

    async def checkpoint(self) -> CheckpointAnswer:
        return CheckpointAnswer(checkpoint="1.2", took_ms=1.5)

    async def letters(self, question: LettersQuestion) -> LettersAnswer:
        check_question(question)
        return LettersAnswer(checkpoint="1.2", total=1, letters=[LETTER] if LETTER.key in question.keys else [], unknown=["x"])


class _Tail:
    """A stream with one event."""

    ready = False

    def __init__(self) -> None:
        self._events = [("abababab-1", {"a": 1})]

    async def __anext__(self) -> tuple[str, Any]:
        await trio.lowlevel.checkpoint()
        if self._events:
            return self._events.pop()
        raise EventIdError("the end of this stream")  # an error that ends it: events have no end else


def _make_tail(name: str, after: str | None, start: str) -> _Tail:
    if after is not None and not after.startswith("abababab-"):
        raise EventIdError(f"no event id: {after[:80]!r}")
    return _Tail()


@functools.cache
def _document() -> Any:
    return openapi_document([], [], [], [], token=False)


def _openapi_document(*_: Any, **__: Any) -> Any:
    """Made once: it takes longer than all the rest of a request."""
    return _document()


def _application(found: list[BaseException]) -> Callable[..., Awaitable[None]]:
    """The application of the door; exceptions that it lets out are noted."""
    with mock.patch.object(assembly, "openapi_document", _openapi_document):
        door = assembly.assemble(CONFIG, TARGETS_OF_APP, _Desk(), _Node(), _make_tail, None, trio.Event())  # type: ignore[arg-type]

    async def application(scope: Any, receive: Any, send: Any) -> None:
        try:
            await door(scope, receive, send)
        except Exception as error:
            found.append(error)
            raise

    return application


def _drop(_logger: Any, _method: str, _event: Any) -> Any:
    raise structlog.DropEvent


async def _run_here(function: Callable[..., Any], *args: Any) -> Any:
    """In place of a thread, for which virtual time does not wait."""
    await trio.lowlevel.checkpoint()
    return function(*args)


def _run(serve: Callable[[list[BaseException]], Awaitable[Any]]) -> Any:
    """Run in virtual time; nothing may wait for ever."""
    structlog.configure(processors=[_drop])  # what is logged is looked at as an exception
    found: list[BaseException] = []

    async def main() -> Any:
        with trio.fail_after(VIRTUAL_S_MAX):
            return await serve(found)

    try:
        with mock.patch.object(trio.to_thread, "run_sync", _run_here):
            value = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        structlog.reset_defaults()
    if found:
        raise found[0]
    return value


# ---- whole connections ---------------------------------------------------------------------------------------------------
class _Stream:
    """The other side of a connection: has sent bytes, in pieces, and then no more."""

    def __init__(self, data: bytes) -> None:
        middle = len(data) // 2
        self._pieces = [data[:middle], data[middle:]]
        self.sent = b""
        self.socket = self

    def getpeername(self) -> tuple[str, int]:
        return "127.0.0.1", 1

    async def receive_some(self, limit: int) -> bytes:
        await trio.lowlevel.checkpoint()
        self._pieces = [piece for piece in self._pieces if piece]
        if not self._pieces:
            return b""
        piece = self._pieces.pop(0)
        self._pieces.insert(0, piece[limit:])
        return piece[:limit]

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.sent += data

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def _connection(data: bytes) -> int:
    stream = _Stream(data)

    async def serve(found: list[BaseException]) -> None:
        settings = HypercornConfig()
        settings.errorlog = None
        settings.include_server_header = settings.include_date_header = False
        settings.h11_max_incomplete_size = HEADER_BYTES_MAX
        connection = Connection(_application(found), settings, WorkerContext(None), Timeouts(30, 30, 30), stream)  # type: ignore[arg-type]
        await connection.run()

    _run(serve)
    return _check_answers(stream.sent)


def _check_answers(sent: bytes) -> int:
    """It is HTTP as far as it goes, and none of it is our fault; how many answers."""
    count = 0
    while sent:
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
        client.send(h11.EndOfMessage())
        client.receive_data(sent)
        response = client.next_event()
        while isinstance(response, h11.InformationalResponse):
            response = client.next_event()
        if response is h11.NEED_DATA and sent.startswith(b"HTTP/1.1 100 "):
            break  # the body was asked for, and did not come
        assert isinstance(response, h11.Response), response
        assert response.status_code < 500 or response.status_code == 501, sent[:300]
        count += 1
        start = sent.find(b"HTTP/1.1 ", 9)
        sent = sent[start:] if start > 0 else b""
    return count


# ---- single requests -----------------------------------------------------------------------------------------------------
class MalformedRequestError(Exception):
    """What a server would not have given to an application."""


def _request(data: bytes) -> Any:
    """A request as ``METHOD target``, headers a line, an empty line, the body: none of it checked by a protocol."""
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    method, _, target = first.partition(b" ")
    path, _, query = target.partition(b"?")
    headers = [(name.strip().lower(), text.strip()) for name, _, text in (line.partition(b":") for line in lines)]
    lengths = [text for name, text in headers if name == b"content-length"]
    if not all(text.isdigit() and len(text) <= 20 for text in lengths) or not method.isascii():
        raise MalformedRequestError("h11 refuses it")
    scope = {
        "type": "http",
        "method": method.decode(),
        "raw_path": path,
        "query_string": query,
        "headers": headers,
        "extensions": {},
    }
    sent: list[dict[str, Any]] = []

    async def serve(found: list[BaseException]) -> None:
        rest = [body[at : at + 1000] for at in range(0, len(body), 1000)]

        async def receive() -> dict[str, Any]:
            await trio.lowlevel.checkpoint()
            piece = rest.pop(0) if rest else b""
            return {"type": "http.request", "body": piece, "more_body": bool(rest)}

        async def send(message: dict[str, Any]) -> None:
            await trio.lowlevel.checkpoint()
            sent.append(message)

        await _application(found)(scope, receive, send)

    _run(serve)
    status = sent[0]["status"]
    content = b"".join(message["body"] for message in sent[1:])
    headers_sent = dict(sent[0]["headers"])
    h11.Response(status_code=status, headers=sent[0]["headers"])
    assert status < 500, (status, content)
    if b"json" in headers_sent.get(b"content-type", b""):
        json.loads(content)
    return status


_FUNCTION = b"/v1/functions/fuzz/shelf/1"
_JSON = b"Content-Type: application/json\n"
_REQUESTS = (
    b"POST " + _FUNCTION + b"\n" + _JSON + b"\n5",
    b"POST " + _FUNCTION + b"?wait=1s&type=int\n" + _JSON + b"Idempotency-Key: k-1\n\n7",
    b"POST " + _FUNCTION + b"?wait=0\n" + _JSON + b'Idempotency-Key: "abc"\n\n"text"',
    b"POST /v1/ingress/orders\n" + _JSON + b'\n{"id":1,"lines":[1.5,null,"x"]}',
    b'POST /v1/ingress/orders\nContent-Type: application/x-ndjson\n\n{"id":1}\n[2]\n\n"x"\n',
    b"GET /v1/functions\nHost: localhost\n\n",
    b"GET /v1/functions/fuzz/shelf?limit=5&after=aAAB\n\n",
    b"GET /v1/state/fuzz/shelf/1?at=checkpoint&part=prices&limit=3\n\n",
    b"GET /v1/state/fuzz/shelf/a%2Fb%20c\nHost: [::1]:5\n\n",
    b"GET /v1/requests/k-1\n\n",
    b"GET /v1/egress/late?from=newest\nAccept: text/event-stream\nLast-Event-ID: abababab-1\n\n",
    b"POST /v1/checkpoints\nContent-Length: 0\n\n",
    b"GET /v1/dead-letters?limit=3&typename=a/b\n\n",
    b"GET /v1/dead-letters/1.17-3-0\n\n",
    b"DELETE /v1/dead-letters/1.17-3-0\n\n",
    b"POST /v1/dead-letters/1.17-3-0/replay\n\n",
    b"GET /metrics\nAccept: */*\n\n",
    b"GET /healthz\n\n",
    b"GET /openapi.json\n\n",
    b"OPTIONS /v1/checkpoints\n\n",
    b"HEAD /v1/status\nOrigin: null\n\n",
)


def _on_the_wire(request: bytes) -> bytes:
    head, _, body = request.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    lines = [line for line in lines if line and not line.lower().startswith(b"content-length")]
    length = [b"Content-Length: %d" % len(body)] if body or first.startswith((b"POST", b"DELETE")) else []
    return b"\r\n".join([first + b" HTTP/1.1", *([] if b"Host" in head else [b"Host: 127.0.0.1"]), *lines, *length, b"", body])


def _connections() -> list[bytes]:
    wire = [_on_the_wire(request) for request in _REQUESTS]
    chunked = (
        b"POST "
        + _FUNCTION
        + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
        b"Expect: 100-continue\r\n\r\n1\r\n5\r\n0\r\n\r\n"
    )
    return [*wire, chunked, wire[5] + wire[0] + wire[1], b"GET /healthz HTTP/1.0\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]


_WORDS = (
    b"\r\n",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"Idempotency-Key: ",
    b"Last-Event-ID: ",
    b"%",
    b"?wait=",
    b"&limit=",
)
TARGETS = (
    Target("http-request", _request, (MalformedRequestError,), lambda: _REQUESTS, words=_WORDS),
    Target("http-connection", _connection, (), _connections, words=_WORDS),
)
