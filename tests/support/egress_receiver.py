"""An HTTP server as a webhook has one at its other end: it remembers what it took by key, and can fail in every way."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Verdict = int | Literal["drop", "take-and-drop"]
"""A status; or close the connection without an answer, before or after taking the request."""


@dataclass
class Request:
    key: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """``decide(number, key)`` says what becomes of request ``number``, from 0; a request is taken once by its key.

    Args:
        context: of TLS.
        headers: of all answers.
    """

    decide: Callable[[int, str], Verdict] = lambda number, key: 200
    context: ssl.SSLContext | None = None
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    taken: dict[str, bytes] = field(default_factory=dict)
    port: int = 0
    entered: threading.Event = field(default_factory=threading.Event)
    hold: threading.Event | None = None
    _server: ThreadingHTTPServer | None = None
    _connections: list[socket.socket] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> Receiver:
        """Listen; at the port it had before, after ``stop``."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30
            disable_nagle_algorithm = True  # an answer is two writes: the second would wait for the client's delayed ACK, 40 ms

            def setup(self) -> None:
                receiver._connections.append(self.request)
                super().setup()

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = self.rfile.read(length)
                if len(body) < length:  # who sent it was killed in the middle of it, or we are
                    self.close_connection = True
                    return
                verdict = receiver._receive(self.headers["Idempotency-Key"], dict(self.headers), body)
                if isinstance(verdict, str):
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(verdict)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                answer = b'{"said": "%d"}' % verdict
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_: Any) -> None:
                pass  # connections that were closed by us

        self._server = Server(("127.0.0.1", self.port), Handler)
        if self.context is not None:
            self._server.socket = self.context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Close everything, as a killed server does."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        self._connections.clear()

    def _receive(self, key: str, headers: dict[str, str], body: bytes) -> Verdict:
        with self._lock:
            verdict = self.decide(len(self.requests), key)
            self.requests.append(Request(key, headers, body))
            if verdict == "take-and-drop" or (isinstance(verdict, int) and 200 <= verdict < 300):
                assert self.taken.setdefault(key, body) == body, f"another body under the same key {key}"
        self.entered.set()
        if self.hold is not None:
            self.hold.wait(30)
        return verdict

    @property
    def url(self) -> str:
        return f"{'http' if self.context is None else 'https'}://127.0.0.1:{self.port}/hook"

    def records(self) -> list[Any]:
        """What was taken, in the order of the first time."""
        return [json.loads(body) for body in self.taken.values()]
