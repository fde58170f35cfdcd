"""The client of ``shardfun bench ask``: an open loop of HTTP requests, in a process of its own.

Open: requests go out at their times, whether answers come or not, each on an idle connection or a new one; latency counts from the
time at which a request was due. Plain sockets and one epoll, so that it takes little of the processor it shares with the node.

``python -m shardfun.bench.asker PORT RATE SECONDS WAIT KEYS`` prints one JSON object.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections import deque
from typing import Any, Final

import msgspec

CONNECTIONS_MAX: Final = 2000
IDS: Final = 10_000
DRAIN_S: Final = 10.0
TURNS_OF_ID: Final = 7919


class Load:
    """One run.

    Args:
        wait: the ``?wait=``; empty: do not ask, only send.
        keys: whether each request has an Idempotency-Key.
    """

    def __init__(self, port: int, rate: float, seconds: float, wait: str, *, keys: bool) -> None:
        self._port = port
        self._rate = rate
        self._count = int(rate * seconds)
        self._suffix = f"?wait={wait}" if wait else ""
        self._keys = keys
        self._run = format(time.time_ns(), "x")
        self._epoll = select.epoll()
        self._idle: deque[socket.socket] = deque()
        self._sockets: dict[int, socket.socket] = {}
        self._due: dict[int, float] = {}
        self._partial: dict[int, bytes] = {}
        self.latencies: list[float] = []
        self.late: list[float] = []
        self.statuses: dict[str, int] = {}
        self.unsent = 0

    def run(self) -> None:
        """Send all requests at their times, and wait for the answers."""
        begin = time.perf_counter() + 0.1
        sent = 0
        deadline = begin + self._count / self._rate + DRAIN_S
        while (sent < self._count or self._due) and time.perf_counter() < deadline:
            now = time.perf_counter()
            while sent < self._count and begin + sent / self._rate <= now:
                self._send(sent, begin + sent / self._rate)
                sent += 1
            pause = 0.05 if sent >= self._count else max(0.0, begin + sent / self._rate - time.perf_counter())
            for descriptor, _ in self._epoll.poll(min(pause, 0.05)):
                self._receive(descriptor)
        self.unanswered = len(self._due)

    def _send(self, number: int, due: float) -> None:
        if not self._idle:
            if len(self._sockets) >= CONNECTIONS_MAX:
                self.unsent += 1
                return
            made = socket.create_connection(("127.0.0.1", self._port), timeout=5)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets[made.fileno()] = made
            self._epoll.register(made, select.EPOLLIN)
            self._idle.append(made)
        connection = self._idle.pop()
        key = f"Idempotency-Key: {self._run}-{number}\r\n" if self._keys else ""
        connection.sendall(
            f"POST /v1/functions/bench/counter/k{number * TURNS_OF_ID % IDS}{self._suffix} HTTP/1.1\r\n"
            f"Host: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 8\r\n{key}\r\n"
            '{"by":1}'.encode()
        )
        self._due[connection.fileno()] = due
        self.late.append(time.perf_counter() - due)

    def _receive(self, descriptor: int) -> None:
        connection = self._sockets[descriptor]
        try:
            received = connection.recv(65536)
        except ConnectionResetError:
            received = b""
        data = self._partial.pop(descriptor, b"") + received
        if not received:
            self._epoll.unregister(connection)
            del self._sockets[descriptor]
            if self._due.pop(descriptor, None) is not None:
                self.statuses["closed"] = self.statuses.get("closed", 0) + 1
            elif connection in self._idle:
                self._idle.remove(connection)
            connection.close()
            return
        head, found, body = data.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            self._partial[descriptor] = data
            return
        self.latencies.append(time.perf_counter() - self._due.pop(descriptor))
        status = head[9:12].decode()
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self._idle.append(connection)

    def result(self) -> dict[str, Any]:
        """The figures, in milliseconds."""
        return {
            "latencies_ms": [round(value * 1000, 3) for value in self.latencies],
            "late_ms": percentiles([value * 1000 for value in self.late]),
            "statuses": self.statuses,
            "unanswered": self.unanswered,
            "unsent": self.unsent,
            "connections": len(self._sockets),
            "cpu_s": time.process_time(),
        }


def percentiles(values: list[float]) -> dict[str, float]:
    """What most of them are below."""
    ordered = sorted(values) or [0.0]
    return {
        name: round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)
        for name, share in (("p1", 0.01), ("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
    }


def main(arguments: list[str]) -> None:
    """See the module."""
    port, rate, seconds, wait, keys = arguments
    load = Load(int(port), float(rate), float(seconds), wait, keys=keys == "keys")
    load.run()
    sys.stdout.write(msgspec.json.encode(load.result()).decode() + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
