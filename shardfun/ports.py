"""What the outside world can do for a shard, as Protocols.

The core and the drivers know these and nothing of LevelDB, files or sockets. Each port has one contract suite in
``tests/contracts`` that the real implementation and the fake both pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias, TypeVar, runtime_checkable

from shardfun.model.delta import DeltaHeader, DeltaSummary, RecordBlock, StoredDelta
from shardfun.model.doors import IngressBatch, PublishedPosition, Reject

__all__ = [
    "REAL_CLOCK",
    "Clock",
    "EgressSink",
    "FrameChannel",
    "IngressBatch",
    "IngressReader",
    "Interruptible",
    "OpenChannel",
    "Partition",
    "PublishedPosition",
    "Reject",
    "RunInThread",
    "StateStore",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Clock:
    """The clocks of a process, in seconds.

    Args:
        monotonic: for waiting and for ages.
        wall: the time of day, since 1970; may be set.
        work: for how long something took.
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    work: Callable[[], float] = time.perf_counter


REAL_CLOCK: Final = Clock()


class RunInThread(Protocol):
    """Runs a job that blocks in a thread, and gives what it returns or raises."""

    async def __call__(self, job: Callable[[], T], /) -> T: ...  # noqa: D102


class FrameChannel(Protocol):
    """One end of a channel for frames between two processes: bounded, in order; driven without blocking.

    ``receive_fd`` is readable while a frame is there, ``send_fd`` while there is room. ``waiting`` is a frame for which there was no
    room, kept by whoever sends: ``flush`` sends it first. A channel has one peer, whose loss is reported once (see ``OpenChannel``).
    """

    receive_fd: int
    send_fd: int
    url: str
    waiting: bytes | None

    def listen(self, url: str) -> str:
        """Wait for the peer at ``url``; the url for it to dial. Raises UnavailableError."""

    def dial(self, url: str) -> None:
        """Connect in the background, also if nobody listens yet; what is sent before is kept. Raises UnavailableError."""

    def receive(self) -> bytes | None:
        """The next frame, ``None`` if none is there. Raises ChannelLossError."""

    def send(self, raw: bytes) -> bool:
        """Take a frame; ``False`` if there is no room. Raises ChannelLossError; ProtocolError if it is too long."""

    def flush(self) -> bool:
        """Send what waits; whether nothing waits any more. Raises as ``send``."""

    async def wait_frame(self) -> bytes:
        """The next frame, awaited. Raises ChannelLossError."""

    def close(self) -> None:
        """Close. Safe to call twice."""


OpenChannel: TypeAlias = Callable[[int, Callable[[], None]], FrameChannel]
"""Makes a channel: the frames it keeps in each direction, and what to call, from any thread, when the peer is gone."""


class StateStore(Protocol):
    """The durable state of one shard: exactly the last applied checkpoint, and the deltas around it.

    ``get`` and ``scan`` are called on the loop; all other methods block on the disk and are called from one worker thread at
    a time. Errors are ``StorageError`` (try again or abort the checkpoint) and ``CorruptionError`` (stop).
    """

    @property
    def applied(self) -> int:
        """The checkpoint whose changes are in the key-value store as a whole; 0 before the first."""

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key`` as of the applied checkpoint."""

    def scan(self, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Keys that begin with ``prefix``, from ``prefix + start`` on, and their values in key order, from a snapshot taken now.

        Never the store's own keys.
        """

    def write_delta(self, header: DeltaHeader, blocks: Sequence[RecordBlock], queues: bytes) -> DeltaSummary:
        """Write one immutable delta file durably (temporary file, fsync, rename, fsync of the directory)."""

    def read_delta(self, checkpoint: int) -> StoredDelta:
        """Read a delta back and verify its checksum."""

    def delete_delta(self, checkpoint: int) -> None:
        """Delete the delta of an aborted checkpoint; no error if there is none."""

    def apply_delta(self, checkpoint: int, blocks: Sequence[RecordBlock]) -> None:
        """Put a complete checkpoint's changes into the store in idempotent chunks; the last one sets ``applied``."""

    def recover(self, checkpoint: int, digest: bytes) -> StoredDelta | None:
        """Bring the store to exactly ``checkpoint`` (the newest complete one; 0 = none).

        Deletes deltas newer than it, verifies its delta against ``digest``, walks the parents backwards to ``applied``,
        applies what is missing, and returns the checkpoint's own delta (its blocks may be dropped), ``None`` for 0.

        Raises:
            CorruptionError: a delta that is needed is missing or damaged, or ``applied`` is beyond ``checkpoint``.
        """

    def maintain(self) -> None:
        """After an apply: force a flush when one is due, and delete deltas that are no longer needed."""

    def close(self) -> None:
        """Release files and locks. Safe to call twice."""


@dataclass(frozen=True, slots=True)
class Partition:
    """Which part of an ingress or egress a shard serves.

    Args:
        index: 0-based, the shard's number; ``count`` the number of partitions.
        owns: tells whether this partition reads the record with that key.
        job: whose data this is: 32 hex digits, drawn when the data directory is made (also anew with ``--fresh``).
        data_dir: of the node.
    """

    index: int
    count: int
    owns: Callable[[str], bool]
    job: str = ""
    data_dir: Path = Path()


class IngressReader(Protocol):
    """Reads one partition of an ingress, in one shard, on the loop: every call is short (at most about a millisecond).

    A reader may have ``wake_fd``: a descriptor that is readable when ``read`` should be called, which takes that back. It may be
    another one after each ``open``.
    """

    def open(self, position: Any | None) -> None:
        """Go to ``position`` (``None``: the beginning).

        Raises:
            IngressError: the source is missing, or is not the one the position belongs to.
        """

    def read(self, limit: int, now: float) -> IngressBatch | None:
        """Up to ``limit`` records; ``None`` when there is nothing now (see ``wake_at`` and ``finished``).

        Args:
            now: monotonic seconds, for ``rate``.
        """

    @property
    def wake_at(self) -> float | None:
        """When to ask again after ``read`` gave ``None``: monotonic seconds; ``None`` when finished."""

    @property
    def finished(self) -> bool:
        """Whether a bounded source is at its end; a following or endless one never is."""

    def close(self) -> None:
        """Release files. Safe to call twice."""


class EgressSink(Protocol):
    """One partition of an egress. ``encode`` runs on the loop, the rest in a worker thread, one call at a time."""

    def encode(self, value: Any) -> bytes:
        """One record as the bytes that go out (for files: a line with its newline).

        Raises:
            TypeError: the value cannot be encoded; fails the invocation that emitted it.
        """

    def open(self, published: PublishedPosition, pending: Sequence[bytes]) -> int:
        """Connect, find how many of the ``pending`` records (which follow ``published``) are there already, and return that.

        Raises:
            EgressError: the sink holds less than, or something else than, what was published.
        """

    def publish(self, records: Sequence[bytes]) -> int | None:
        """Append records, which belong to a complete checkpoint. When it returns they are durable: all of them (``None``), or so many.

        Raises:
            EgressError: none was; to be tried again, after its ``retry_s`` if it has one.
        """

    def close(self) -> None:
        """Release. Safe to call twice."""


@runtime_checkable
class Interruptible(Protocol):
    """A sink whose ``publish`` may wait for long for others."""

    def interrupt(self) -> None:
        """End a call of ``publish`` soon, from the loop: an incarnation has ended. The next call is ``open`` or ``close``."""
