"""Serves an application on a listening socket: connections up to a limit, an eye on their time, an orderly end."""

from __future__ import annotations

import socket
import ssl
from typing import Any, Final

import structlog
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio.worker_context import WorkerContext

from shardfun.door.connection import HEADER_BYTES_MAX, Application, Connection, Timeouts, problem_head
from shardfun.door.problems import KINDS, problem_document

LOOK_S: Final = 0.1
"""How often the time of connections is looked at."""
REFUSALS_AT_ONCE: Final = 64
"""Connections beyond the limit that are told so at the same time; others are closed without a word."""
REFUSAL_S: Final = 1.0

log = structlog.get_logger("shardfun.door")


class Server:
    """See the module.

    Args:
        application: an ASGI application (HTTP only).
        connections: at the same time, at most.
        tls: speak HTTPS with it.
    """

    def __init__(
        self, application: Application, timeouts: Timeouts, *, connections: int, tls: ssl.SSLContext | None = None
    ) -> None:
        self._application = application
        self._timeouts = timeouts
        self._limit = connections
        self._tls = tls
        self._open: set[Connection] = set()
        self._refusing = 0
        self._context = WorkerContext(None)
        self._config = HypercornConfig()
        self._config.errorlog = None  # what goes wrong is logged by the connection
        self._config.include_server_header = False
        self._config.include_date_header = False
        self._config.h11_max_incomplete_size = HEADER_BYTES_MAX
        self._accepting = trio.CancelScope()

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._open)

    async def serve(self, listening: socket.socket, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled, or until ``finish`` and the last answer."""
        plain = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
        listener: Any = plain if self._tls is None else trio.SSLListener(plain, self._tls, https_compatible=True)
        async with trio.open_nursery() as looking:
            looking.start_soon(self._look)
            async with trio.open_nursery() as connections:
                with self._accepting:
                    task_status.started()
                    await trio.serve_listeners(self._handle, [listener], handler_nursery=connections)
            looking.cancel_scope.cancel()

    async def finish(self) -> None:
        """Accept no more, and close connections as soon as they have their answer."""
        self._accepting.cancel()
        await self._context.terminated.set()
        for connection in list(self._open):
            connection.close_if_idle()

    async def _handle(self, stream: Any) -> None:
        if len(self._open) >= self._limit:
            await self._refuse(stream)
            return
        try:
            connection = Connection(self._application, self._config, self._context, self._timeouts, stream)
        except OSError:
            await trio.aclose_forcefully(stream)  # gone before it was looked at
            return
        self._open.add(connection)
        try:
            await connection.run()
        except Exception as error:
            # one connection must not end the door; the application's own errors do not come this far
            log.exception("bug in the HTTP door", error=f"{type(error).__name__}: {error}", exc_info=error)
        finally:
            self._open.discard(connection)

    async def _refuse(self, stream: Any) -> None:
        """One connection too many."""
        if self._refusing < REFUSALS_AT_ONCE and self._tls is None:
            self._refusing += 1
            kind = KINDS["too-many-connections"]
            document = problem_document(kind, f"expected at most {self._limit} connections (http.connections)")
            head = b"".join(b"%b: %b\r\n" % header for header in problem_head(document))
            try:
                with trio.move_on_after(REFUSAL_S):
                    await stream.send_all(
                        b"HTTP/1.1 503 \r\nconnection: close\r\nretry-after: 1\r\n" + head + b"\r\n" + document
                    )
                    await stream.send_eof()
                    while await stream.receive_some():
                        pass
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            finally:
                self._refusing -= 1
        await trio.aclose_forcefully(stream)

    async def _look(self) -> None:
        while True:
            await trio.sleep(LOOK_S)
            now = trio.current_time()
            for connection in [known for known in self._open if known.overdue(now)]:
                connection.expire_soon()
