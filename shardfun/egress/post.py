"""POST with one connection that is kept: for the thread of a webhook, so it blocks, and can be interrupted from another thread.

The standard library's client, with limits: a time for each wait, an end to the size of answers. Knows nothing of records.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import stat
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import time
from typing import Final, NamedTuple
from urllib.parse import SplitResult

from shardfun.errors import EgressError

ANSWER_BYTES_MAX: Final = 64 << 10
"""Of an answer's body that are read; a connection with more is closed."""

ANSWER_SHOWN_MAX: Final = 200
CONNECT_S: Final = 10.0
TOKEN_BYTES_MAX: Final = 16 << 10

_STALE: Final = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError, http.client.CannotSendRequest)


class Answer(NamedTuple):
    """What the receiver said; ``retry_after_s`` as it asked for; ``text``: the beginning of the body, for people."""

    status: int
    reason: str
    retry_after_s: float | None
    text: str


class Poster:
    """One receiver.

    Args:
        url: checked by the caller.
        timeout_s: for each wait: for a connection, for the next piece of an answer.
        context: of TLS, for ``https``.
    """

    def __init__(self, url: SplitResult, timeout_s: float, context: ssl.SSLContext | None) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._context = context
        self._target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        self._connection: http.client.HTTPConnection | None = None
        self._interrupted = False

    def post(self, body: bytes, headers: dict[str, str]) -> Answer:
        """Send a request and wait for its answer. A connection that the other side has closed meanwhile is opened again.

        Raises:
            OSError, http.client.HTTPException: there is no answer.
        """
        if self._connection is not None:
            try:
                return self._post(self._connection, body, headers)
            except _STALE:
                self.close()
                if self._interrupted:
                    raise
        self._connection = self._connect()
        try:
            return self._post(self._connection, body, headers)
        except BaseException:
            self.close()
            raise

    def interrupt(self) -> None:
        """From another thread: make ``post`` raise soon. This object is of no use then."""
        self._interrupted = True
        connection = self._connection
        sock = None if connection is None else connection.sock
        if sock is not None:
            with suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not that of SSLSocket, which is not for other threads

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port or (80 if self._context is None else 443)
        timeout = min(self._timeout_s, CONNECT_S)
        connection: http.client.HTTPConnection
        if self._context is not None:
            connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=self._context)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=timeout)
        connection.connect()
        connection.sock.settimeout(self._timeout_s)
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _post(self, connection: http.client.HTTPConnection, body: bytes, headers: dict[str, str]) -> Answer:
        connection.request("POST", self._target, body, headers)
        response = connection.getresponse()
        if response.status < 200:  # the answer is still to come, and would be taken for that of the next request
            connection.close()
            raise http.client.HTTPException(f"interim answer {response.status} {response.reason}")
        text = response.read(ANSWER_BYTES_MAX)
        if response.read(1):
            connection.close()
        after = _seconds(response.getheader("Retry-After"))
        shown = " ".join(text[:ANSWER_SHOWN_MAX].decode(errors="replace").split())
        return Answer(response.status, response.reason, after, shown)


def _seconds(retry_after: str | None) -> float | None:
    """A ``Retry-After`` header, which has seconds or a date."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isdecimal():
        return float(text)  # of what ``strip`` takes away for white space, ``float`` knows only a part
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except ValueError:
        return None


def read_token(path: Path) -> str:
    """The token in a private file.

    Raises:
        EgressError: others can read the file, or it holds no token.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise EgressError(
                f"token_file: expected a file that only its owner can read (chmod 600 {path}), got mode {mode:04o}"
            )
        data = file.read(TOKEN_BYTES_MAX)
    token = data.decode("ascii", errors="replace").strip()
    if not token or not all("!" <= character <= "~" for character in token):
        raise EgressError(f"token_file: expected one line of visible ASCII characters in {path}")
    return token
