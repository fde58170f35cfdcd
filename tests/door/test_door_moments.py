"""What happens only at certain moments: a heartbeat between two events, two tasks that write at once."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import trio

from shardfun.door.connection import Timeouts
from shardfun.door.events import EventRoutes
from shardfun.door.server import Server

REFUSED = 40
EVENTS_IN_A_BURST = 200


@contextlib.asynccontextmanager
async def served(status: int, keep_alive_s: float) -> AsyncIterator[tuple[str, int]]:
    """A server that answers at once, without reading a body."""

    async def application(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"no"})

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(500)
        listening.setblocking(False)
        async with trio.open_nursery() as nursery:
            await nursery.start(Server(application, Timeouts(5, 5, keep_alive_s), connections=1000).serve, listening)
            yield listening.getsockname()
            nursery.cancel_scope.cancel()


async def test_a_refusal_is_heard_by_who_waits_for_100_continue() -> None:
    head = b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\nExpect: 100-continue\r\n\r\n"
    async with served(401, 5.0) as address:
        for _ in range(REFUSED):
            stream = await trio.open_tcp_stream(*address)
            await stream.send_all(head)
            heard = b""
            with trio.fail_after(5):
                while data := await stream.receive_some():
                    heard += data
            assert b" 401 " in heard
            await trio.aclose_forcefully(stream)


class Bursts:
    """A tail whose events come many at once, just before the heartbeat."""

    def __init__(self, every_s: float) -> None:
        self.given = 0
        self._every_s = every_s
        self._there = 0

    @property
    def ready(self) -> bool:
        return self._there > 0

    async def __anext__(self) -> tuple[str, int]:
        await trio.lowlevel.checkpoint()
        while not self._there:
            await trio.sleep(self._every_s)
            self._there = EVENTS_IN_A_BURST
        return self.take(1)[0]

    def take(self, limit: int) -> list[tuple[str, int]]:
        taken = min(limit, self._there)
        self._there -= taken
        first, self.given = self.given + 1, self.given + taken
        return [(f"id-{number}", number) for number in range(first, first + taken)]


async def test_no_event_is_lost_at_a_heartbeat(autojump_clock: trio.testing.MockClock) -> None:
    heartbeat_s = 0.1
    tail = Bursts(heartbeat_s * 0.98)
    routes = EventRoutes(["e"], None, heartbeat_s, SimpleNamespace(streams=0), trio.Event())  # type: ignore[arg-type]
    got: list[int] = []
    async with contextlib.aclosing(routes._pieces(tail)) as pieces:
        async for piece in pieces:
            got += [int(line[6:]) for line in piece.decode().splitlines() if line.startswith("data: ")]
            if len(got) >= 10 * EVENTS_IN_A_BURST:
                break
    assert got == list(range(1, tail.given + 1))
