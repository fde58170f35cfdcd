"""A door in this process on a real socket: the intake and the node behind it are played."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cbor2
import h11
import msgspec
import trio

from shardfun import App, Context, State, Value, value
from shardfun.config.schema import Config, EgressConfig, HttpConfig, IngressConfig
from shardfun.door.assembly import assemble
from shardfun.door.connection import Timeouts
from shardfun.door.server import Server
from shardfun.errors import ShardfunError, UnavailableError
from shardfun.intake.entries import Entry, Reply, RequestEntry
from shardfun.intake.targets import Targets
from shardfun.mesh.listening import open_listener
from shardfun.model.letters import DeadLetter
from shardfun.model.questions import (
    Change,
    CheckpointAnswer,
    LettersAnswer,
    LettersQuestion,
    ListAnswer,
    ListQuestion,
    StateAnswer,
    StateQuestion,
)
from shardfun.model.status import CheckpointStatus, NodeStatus, ShardStatus

CLIENT_WAIT_S = 60.0
ADDRESS = "/v1/functions/shop/cart/42"
JSON = ("Content-Type", "application/json")
ADD = b'{"item":"x","n":2}'
LETTER = DeadLetter(
    key="1.17-3-0",
    target="shop/cart:42",
    sender=None,
    reason="ValueError: no",
    attempts=4,
    checkpoint="1.18",
    time=1.5,
    payload_type="shop.Add",
    payload={"n": 1},
)

app = App("shop")


class Add(msgspec.Struct, frozen=True):
    item: str
    n: int = 1


class Cart(State):
    total: Value[int] = value(0)


@app.function("shop/cart")
def cart(ctx: Context[Cart], message: Add) -> None:
    ctx.state.total += message.n


@app.function("notes/*")
def note(ctx: Context[Cart], message: str | Add) -> None:
    ctx.state.total += 1


class PlayedIntake:
    """Keeps what it gets. ``failure`` is raised instead; ``replies`` are given to requests by key, or by ``reply``."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.groups: list[int] = []
        self.failure: Exception | None = None
        self.failures = 1_000_000
        self.digests: dict[str, bytes] = {}
        self.reply: Callable[[RequestEntry], Reply | None] = lambda entry: None
        self.backlog_bytes_now = 0

    async def append(self, entries: Sequence[Entry]) -> None:
        await trio.lowlevel.checkpoint()
        if self.failure is not None and self.failures:
            self.failures -= 1
            raise self.failure
        self.entries += entries
        self.groups.append(len(entries))

    async def ask(self, entry: RequestEntry, *, wait_s: float | None = None) -> Reply | None:
        await self.append([entry])
        found = self.reply(entry)
        if found is None:
            await trio.sleep(wait_s or 0.0)
        return found

    def digest_of(self, key: str) -> bytes | None:
        return self.digests.get(key)


@dataclass
class PlayedNode:
    """Answers questions from what it is told."""

    failure: ShardfunError | None = None
    state_now: str = "running"
    request: dict[str, Any] = field(default_factory=dict)
    questions: list[Any] = field(default_factory=list)
    refused: str = ""

    def _hear(self, question: Any) -> None:
        self.questions.append(question)
        if self.failure is not None:
            raise self.failure

    async def status(self) -> NodeStatus:
        self._hear("status")
        shards = [ShardStatus(shard=0, pid=1, state=self.state_now)]
        return NodeStatus(
            name="n",
            app="a:b",
            data_dir="/d",
            pid=1,
            state=self.state_now,
            incarnation=1,
            uptime_s=1.0,
            recoveries=0,
            shards=shards,
            checkpoint=CheckpointStatus(),
        )

    async def state(self, question: StateQuestion) -> StateAnswer:
        self._hear(question)
        if question.target == "shardfun/request":
            return StateAnswer(address="r", exists=bool(self.request), checkpoint="1.1", fields=self.request)
        return StateAnswer(address=f"{question.target}:{question.id}", exists=True, checkpoint="1.1", fields={"total": 3})

    async def ids(self, question: ListQuestion) -> ListAnswer:
        self._hear(question)
        return ListAnswer(ids=["42"], next=None, checkpoint="1.1")

    async def checkpoint(self) -> CheckpointAnswer:
        self._hear("checkpoint")
        return CheckpointAnswer(checkpoint="1.2", took_ms=3.5)

    async def letters(self, question: LettersQuestion) -> LettersAnswer:
        self._hear(question)
        known = [LETTER] if not question.keys or LETTER.key in question.keys else []
        unknown = [key for key in question.keys if key != LETTER.key]
        if question.action in {"list", "show"}:
            return LettersAnswer(checkpoint="1.2", total=1, letters=known, unknown=unknown)
        changes = [Change(key=letter.key, target=letter.target, refused=self.refused) for letter in known]
        return LettersAnswer(checkpoint="1.2", total=1, changes=changes, unknown=unknown)


class PlayedTail:
    """Events from a channel."""

    def __init__(self, events: list[tuple[str, Any]]) -> None:
        self._send, self._receive = trio.open_memory_channel[tuple[str, Any]](1000)
        for event in events:
            self._send.send_nowait(event)

    @property
    def ready(self) -> bool:
        return self._receive.statistics().current_buffer_used > 0

    async def __anext__(self) -> tuple[str, Any]:
        await trio.lowlevel.checkpoint()
        return await self._receive.receive()

    def take(self, limit: int) -> list[tuple[str, Any]]:
        found: list[tuple[str, Any]] = []
        while self.ready and len(found) < limit:
            found.append(self._receive.receive_nowait())
        return found


@dataclass
class World:
    """A door that serves, and what is behind it."""

    intake: PlayedIntake
    node: PlayedNode
    server: Server
    port: int
    stopping: trio.Event
    tails: list[tuple[str, str | None, str]] = field(default_factory=list)
    events: list[tuple[str, Any]] = field(default_factory=list)
    tail_failure: Exception | None = None

    def tail(self, name: str, after: str | None, start: str) -> PlayedTail:
        self.tails.append((name, after, start))
        if self.tail_failure is not None:
            raise self.tail_failure
        return PlayedTail(self.events)

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def get(self, path: str, *headers: tuple[str, str], method: str = "GET") -> Answer:
        return await self.request(method, path, *headers)

    async def post(self, path: str, body: bytes, *headers: tuple[str, str]) -> Answer:
        return await self.request("POST", path, *(headers or (JSON,)), body=body)

    async def request(
        self, method: str, path: str, *headers: tuple[str, str], body: bytes = b"", host: str = "127.0.0.1"
    ) -> Answer:
        length = [("Content-Length", str(len(body)))] if body or method in {"POST", "PUT", "DELETE"} else []
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {text}" for name, text in [("Host", host), *headers, *length])]
        raw = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
        return await self.raw(raw, method=method)

    async def raw(self, data: bytes, *, method: str = "POST") -> Answer:
        """Send bytes as they are, and read one answer."""
        async with await self.connect() as stream:
            await stream.send_all(data)
            return await read_answer(stream, method=method)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def problem(self, kind: str, status: int) -> dict[str, Any]:
        """It is this problem, as RFC 9457 wants it."""
        assert (self.status, self.headers.get("content-type")) == (status, "application/problem+json"), (self.status, self.body)
        document = self.json
        assert document["type"] == f"urn:shardfun:problem:{kind}", document
        assert document["status"] == status
        assert document["title"]
        assert document["detail"]
        return document


async def read_answer(stream: Any, *, method: str = "POST") -> Answer:
    """One response, by a client of its own (h11)."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method if method.isalpha() else "GET", target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    status, headers, body = 0, {}, b""
    with trio.fail_after(CLIENT_WAIT_S):
        while True:
            event = client.next_event()
            match event:
                case h11.NEED_DATA:
                    client.receive_data(await stream.receive_some(65536))
                case h11.Response():
                    status = event.status_code
                    headers = {name.decode(): text.decode() for name, text in event.headers}
                case h11.Data():
                    body += event.data
                case h11.EndOfMessage():
                    return Answer(status, headers, body)


@asynccontextmanager
async def serving(token: bytes | None = None, tls: Any = None, **settings: Any) -> AsyncIterator[World]:
    """A door with ``[http]`` settings (by attribute)."""
    http = HttpConfig(listen="127.0.0.1:0", **settings)
    config = Config(
        app="shop.app:app",
        name="shop",
        data_dir=Path("/nowhere"),
        http=http,
        ingress={"orders": IngressConfig(kind="http", options=None)},
        egress={"late": EgressConfig(kind="http", options=None), "file": EgressConfig(kind="file", options=None)},
    )
    intake, node, stopping = PlayedIntake(), PlayedNode(), trio.Event()
    world: World

    def tail(name: str, after: str | None, start: str) -> PlayedTail:
        return world.tail(name, after, start)

    application = assemble(config, Targets.of(app), intake, node, tail, token, stopping)  # type: ignore[arg-type]
    timeouts = Timeouts(http.read_timeout_s, http.write_timeout_s, http.keep_alive_s)
    server = Server(application, timeouts, connections=http.connections, tls=tls)
    with open_listener(http) as listener:
        world = World(intake, node, server, listener.getsockname()[1], stopping)
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, listener)
            yield world
            nursery.cancel_scope.cancel()


def reply(text: dict[str, Any]) -> Callable[[RequestEntry], Reply]:
    """A reply to every request."""
    return lambda entry: Reply(entry.key, "reply", "shop.Total", cbor2.dumps(text))


NOT_READY = UnavailableError("the node is recovering")
