"""What tests of the HTTP door ask it with: the standard library's client, a connection for each request."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from real_node import FILE_EGRESS, SECTIONS, Node

JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}
ANSWER_S = 60.0


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def free_port() -> int:
    """One that is free now, for a door that is to keep it."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def configure(node: Node, port: int, *, http: str = "", more: str = "", shards: int = 2) -> str:
    """A node with a door; its address."""
    text = f'[http]\nlisten = "127.0.0.1:{port}"\n{http}\n[ingress.orders]\nkind = "http"\n[egress.totals]\nkind = "http"\n{FILE_EGRESS}{more}'
    node.configure(text, app="served:app", shards=shards, sections=SECTIONS.replace("spares = 0", "spares = 1"))
    return f"http://127.0.0.1:{port}"


def ask(url: str, method: str, path: str, body: Any = None, *, timeout: float = ANSWER_S, **headers: str) -> Answer:
    """One request; ``OSError`` or ``HTTPException`` if there is no answer."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=timeout)
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    if raw is not None and "Content-Type" not in named:
        named |= JSON
    try:
        connection.request(method, path, raw, named)
        found = connection.getresponse()
        return Answer(found.status, {name.lower(): text for name, text in found.getheaders()}, found.read())
    finally:
        connection.close()


def door_pids(node: Node) -> list[int]:
    """The living door processes of a node."""
    found = []
    for pid in node.processes():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"shardfun.door" in command:
            found.append(pid)
    return found
