"""Egress kind ``stdout``: published records as JSON lines on the standard output, for a look and for pipes.

At least once: a pipe cannot say what it took before a crash, so records that were under way may come twice. Still no record of
an incomplete checkpoint is ever written. Knows nothing of durability.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final

import msgspec

from shardfun.egress.jsonlines import encode_line
from shardfun.errors import EgressError
from shardfun.ports import Partition, PublishedPosition

STDOUT: Final = 1

PIPE_BYTES: Final = select.PIPE_BUF
"""A pipe takes a write of up to so many bytes whole: then lines of several shards never mix."""


class StdoutEgressOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """There is nothing to set."""


class StdoutEgress:
    """One partition's share of the standard output, which all shards inherit from the supervisor."""

    options: ClassVar[type[StdoutEgressOptions]] = StdoutEgressOptions

    def __init__(self, name: str, options: StdoutEgressOptions, partition: Partition) -> None:  # noqa: ARG002 - same for all kinds
        self._name = name
        self._descriptor = STDOUT

    @classmethod
    def check(cls, options: StdoutEgressOptions, partitions: int) -> str | None:  # noqa: ARG003 - same for all kinds
        """Nothing can be wrong."""
        return None

    @classmethod
    def remove_outputs(cls, options: StdoutEgressOptions, partitions: int) -> None:
        """There is nothing to remove."""

    def encode(self, value: Any) -> bytes:
        """The value as a line of JSON.

        Raises:
            TypeError: something in the value has no form in JSON.
        """
        return encode_line(value)

    def open(self, published: PublishedPosition, pending: Sequence[bytes]) -> int:  # noqa: ARG002 - nothing is known
        """Nothing can be known of earlier output: all pending records are written again."""
        return 0

    def publish(self, records: Sequence[bytes]) -> None:
        """Write records, whole lines at once; waits while the reader of a pipe is slow.

        Raises:
            EgressError: nobody reads the standard output any more, or it cannot be written.
        """
        try:
            for piece in _pieces(records):
                self._write(piece)
        except OSError as error:
            msg = f"egress {self._name!r}: cannot write to the standard output: {error.strerror or error}; is its reader gone?"
            raise EgressError(msg) from error

    def close(self) -> None:
        """The standard output stays open: it is not ours."""

    def _write(self, piece: bytes) -> None:
        rest = memoryview(piece)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # whoever shares the pipe made it non-blocking
                select.select([], [self._descriptor], [])


def _pieces(records: Sequence[bytes]) -> Iterator[bytes]:
    """Records put together up to what a pipe takes whole; a longer record alone."""
    piece: list[bytes] = []
    length = 0
    for record in records:
        if piece and length + len(record) > PIPE_BYTES:
            yield b"".join(piece)
            piece, length = [], 0
        piece.append(record)
        length += len(record)
    if piece:
        yield b"".join(piece)
