"""Doorbells: how a process that has appended to a log wakes the shards at once, without anybody looking again and again.

A bell is a datagram socket in the runtime folder. A ring says only "look": what there is to see stands in the log's mark. So a
ring that is lost because the socket is full loses nothing, and one for a shard that is not there does not either: it looks when it
opens the log.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

from shardfun.state.files import storage_error

LISTEN_EVERY_S: Final = 0.00005
"""Readers share a bell: it is asked once for all of them. Not much longer: a loop that was woken and does not listen is woken again."""

RING_BYTES: Final = 1
_RING: Final = b"!"


def bell_path(runtime_dir: Path, shard: int) -> Path:
    """Where the bell of a shard is."""
    return runtime_dir / f"bell-{shard}.sock"


class Bell:
    """The bell of one shard, shared by its readers.

    ``rings``: changes when somebody has rung.

    Raises:
        StorageError: the socket cannot be made.
    """

    def __init__(self, runtime_dir: Path, shard: int) -> None:
        self._path = bell_path(runtime_dir, shard)
        self.rings = 0
        self._listen_at = 0.0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._path.unlink(missing_ok=True)
            self._socket.bind(str(self._path))
        except OSError as error:
            self._socket.close()
            raise storage_error("make the socket", self._path, error) from error

    @property
    def fd(self) -> int:
        """Readable when somebody has rung and nobody has listened yet."""
        return self._socket.fileno()

    def listen(self, now: float) -> None:
        """Take the rings that have come."""
        if now < self._listen_at:
            return
        self._listen_at = now + LISTEN_EVERY_S
        with suppress(BlockingIOError):
            while True:
                self._socket.recv(RING_BYTES)
                self.rings += 1

    def close(self) -> None:
        """Safe to call twice."""
        self._socket.close()
        with suppress(OSError):
            self._path.unlink()


class Ringer:
    """Rings the bells of all shards; from one thread at a time."""

    def __init__(self, runtime_dir: Path, shards: int) -> None:
        self._paths = [str(bell_path(runtime_dir, shard)) for shard in range(shards)]
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

    def ring(self) -> None:
        """Say that there is something to read. Never fails: see the module."""
        for path in self._paths:
            with suppress(OSError):
                self._socket.sendto(_RING, path)

    def close(self) -> None:
        """Safe to call twice."""
        self._socket.close()
