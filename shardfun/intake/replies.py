"""How replies get from the shards to the process that waits for them: an egress whose sink is a socket of that process.

A reply leaves a shard when its checkpoint is complete, like every result. Handing it over is best effort: if nobody is there, or
the owner does not read, it is dropped. What was replied is also in the state of the request, and asking again with its key brings
it again. After a recovery replies may come twice; the owner has no use for the second.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import cbor2
import msgspec

from shardfun.errors import ProtocolError
from shardfun.intake.entries import INTERNAL, OWNERS
from shardfun.model.cbor import load_cbor
from shardfun.model.doors import PublishedPosition

REPLIES: Final = f"{INTERNAL}replies"
"""The name of the internal egress."""

OWNER_WAIT_S: Final = 5.0
"""So long a publisher waits for an owner that does not read, before it drops what it has for it: one that is starved shall not lose
anything, and one that is stuck for good shall not fill the shard with replies."""

REPLY_BYTES_MAX: Final = 64 << 20

_LENGTH = struct.Struct(">I")


class ReplyRecord(NamedTuple):
    """What a request emits: whose process waits (``owner``), for which request (``key``, ``digest``), and what came of it."""

    owner: str
    key: str
    digest: bytes
    status: Literal["reply", "conflict"]
    type: str
    payload: bytes


def replies_path(runtime_dir: Path, owner: str) -> Path:
    """Where an owner listens for replies."""
    return runtime_dir / f"replies-{owner}.sock"


def encode_reply(record: ReplyRecord) -> bytes:
    """The record as an egress keeps it: the owner's number, then CBOR.

    Raises:
        ValueError: there is no such owner.
    """
    return bytes((OWNERS.index(record.owner),)) + cbor2.dumps(list(record))


class ReplyStream:
    """Takes records out of what comes in on a connection."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray) -> Iterator[ReplyRecord]:
        """The records that are whole now.

        Raises:
            ProtocolError: it is no stream of replies.
        """
        self._buffer += data
        position = 0
        while len(self._buffer) - position >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, position)
            if length > REPLY_BYTES_MAX:
                msg = f"replies: expected a record of at most {REPLY_BYTES_MAX} bytes, got one of {length}"
                raise ProtocolError(msg)
            end = position + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            yield _decode(bytes(self._buffer[position + _LENGTH.size + 1 : end]))
            position = end
        del self._buffer[:position]


def _decode(raw: bytes) -> ReplyRecord:
    try:
        return msgspec.convert(load_cbor(raw), ReplyRecord)
    except (ValueError, TypeError) as error:
        msg = f"replies: expected a record of this version of shardfun: {error}"
        raise ProtocolError(msg) from error


class ReplySink:
    """An ``EgressSink``: hands replies to the processes of their owners.

    Args:
        runtime_dir: where the owners listen.
    """

    def __init__(self, runtime_dir: Path) -> None:
        self._paths = [str(replies_path(runtime_dir, owner)) for owner in OWNERS]
        self._sockets: list[socket.socket | None] = [None] * len(OWNERS)

    def encode(self, value: Any) -> bytes:
        """A ``ReplyRecord`` as bytes."""
        return encode_reply(value)

    def open(self, published: PublishedPosition, pending: Sequence[bytes]) -> int:  # noqa: ARG002 - nothing is known
        """Nothing can be known of what arrived: all pending replies are handed over again."""
        return 0

    def publish(self, records: Sequence[bytes]) -> None:
        """Hand over records. Never fails."""
        for number in range(len(OWNERS)):
            mine = [record for record in records if record[0] == number]
            if mine:
                self._hand_over(number, b"".join(_LENGTH.pack(len(record)) + record for record in mine))

    def close(self) -> None:
        """Close the connections. Safe to call twice."""
        for number in range(len(OWNERS)):
            self._drop(number)

    def _hand_over(self, number: int, data: bytes) -> None:
        """Send, on a new connection if the old one is gone (the process was replaced)."""
        had = self._sockets[number] is not None
        if not self._send(number, data) and had:
            self._send(number, data)

    def _send(self, number: int, data: bytes) -> bool:
        """Whether it is sent, or there is nobody to try again for."""
        connection = self._sockets[number]
        try:
            if connection is None:
                connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
                self._sockets[number] = connection
                connection.settimeout(OWNER_WAIT_S)
                connection.connect(self._paths[number])
            connection.sendall(data)
        except OSError as error:
            self._drop(number)
            return error.errno not in {errno.EPIPE, errno.ECONNRESET}
        return True

    def _drop(self, number: int) -> None:
        connection = self._sockets[number]
        if connection is not None:
            self._sockets[number] = None
            connection.close()
