"""``Intake``: takes messages in durably, and waits for replies. One for each process that does (an *owner*).

Many callers share one write and one fsync: whoever comes while the disk is busy goes with the next group. All of it is on the Trio
loop of the owner, but for the disk, which is in a thread.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

from shardfun.errors import BacklogFullError, PayloadTypeError, ProtocolError, StorageError, UnavailableError
from shardfun.intake.bells import Ringer
from shardfun.intake.entries import Entry, MessageEntry, Reply, RequestEntry, encode_entry, slot_of_entry
from shardfun.intake.log import CONSUMED, SEGMENT_BYTES, LogWriter, frame_bytes, log_exists
from shardfun.intake.log_files import CONTENT_BYTES_MAX, load_mark
from shardfun.intake.pending import PendingKeys, find_pending
from shardfun.intake.replies import ReplyRecord, ReplyStream, replies_path
from shardfun.state.files import storage_error
from shardfun.state.filesystem import FILE_MODE
from shardfun.telemetry.node_log import NodeLog

GROUP_BYTES_MAX: Final = 4 << 20
"""What goes into one write and fsync; the next callers wait for the next."""

CONSUMED_LOOK_S: Final = 0.02
"""How often it looks how far complete checkpoints have read."""

RETRY_MIN_S: Final = 1.0
RETRY_MAX_S: Final = 30.0

CONNECTIONS_WAITING_MAX: Final = 128
RECEIVE_BYTES: Final = 64 << 10

log = NodeLog("shardfun.intake")


@dataclass(slots=True, eq=False)
class _Group:
    """What one caller appends."""

    entries: list[tuple[int, bytes]]
    size: int
    keys: list[tuple[str, bytes]]
    done: trio.Event = field(default_factory=trio.Event)
    error: Exception | None = None


class Intake:
    """See the module.

    Args:
        owner: ``local`` or ``http``.
        folder: of the log, ``DATA_DIR/intake/OWNER``; made with the first entry.
        runtime_dir: where the sockets of the node are.
        shards: how many have to be told of new entries.
        backlog_bytes: entries in the log that no complete checkpoint has read, at most.
        segment_bytes: size of a file of the log, about.
        entry_bytes_max: the longest entry.
    """

    def __init__(
        self,
        owner: str,
        folder: Path,
        runtime_dir: Path,
        shards: int,
        *,
        backlog_bytes: int,
        segment_bytes: int = SEGMENT_BYTES,
        entry_bytes_max: int,
    ) -> None:
        self._owner = owner
        self._folder = folder
        self._runtime_dir = runtime_dir
        self._shards = shards
        self._backlog_bytes = backlog_bytes
        self._entry_bytes_max = min(entry_bytes_max, CONTENT_BYTES_MAX)
        self._writer = LogWriter(folder, segment_bytes)
        self._ringer: Ringer | None = None
        self._opened = self._running = False
        self._pending: deque[_Group] = deque()
        self._work = trio.Event()
        self._limiter = trio.CapacityLimiter(1)
        self._end = 0  # of the log, what waits for the disk included
        self._consumed = 0
        self._consumed_looked_at = 0.0
        self._pace = _Pace()
        self._keys = PendingKeys()
        self._waiting: dict[tuple[str, bytes], list[_Waiter]] = {}

    # ---- life -----------------------------------------------------------------------------------------------------------
    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what is appended and listen for replies, until cancelled; then release everything.

        Raises:
            CorruptionError, StorageError, DirectoryInUseError: the log cannot be opened.
        """
        assert not self._running, "an intake runs once at a time"
        path = replies_path(self._runtime_dir, self._owner)
        listener = _listen(path)
        self._ringer = Ringer(self._runtime_dir, self._shards)
        try:
            if log_exists(self._folder):
                await trio.to_thread.run_sync(self._open, limiter=self._limiter)
            self._running = True
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    trio.serve_listeners, self._receive, [trio.SocketListener(trio.socket.from_stdlib_socket(listener))]
                )
                nursery.start_soon(self._write_groups)
                task_status.started()
        finally:
            self._running = False
            listener.close()
            with suppress(OSError):
                path.unlink()
            self._fail_pending(UnavailableError(f"the intake {self._owner!r} has ended"))
            self._ringer.close()
            self._close()

    def _open(self) -> None:
        """In a thread: open the log, and look what in it may not be processed yet."""
        self._writer.open()
        self._opened = True
        self._consumed = find_pending(self._folder, self._writer.durable, self._keys)
        self._end = self._writer.durable

    def _close(self) -> None:
        self._opened = False
        self._writer.close()

    # ---- appending ------------------------------------------------------------------------------------------------------
    async def append(self, entries: Sequence[Entry]) -> None:
        """Append entries, in order and next to each other. They are durable when it returns.

        If it is cancelled, they are in the log or not.

        Raises:
            BacklogFullError: nothing was appended; ``retry_after_s`` tells when to try again.
            PayloadTypeError: an entry is too long, or cannot be encoded.
            StorageError: nothing was appended: the disk is full or failed. (If it fails so that not even this can be undone, the
                entries may turn up after the next start.)
            UnavailableError: the intake does not run, or ended meanwhile.
        """
        await trio.lowlevel.checkpoint()
        if not self._running:
            raise UnavailableError(f"the intake {self._owner!r} does not run")
        if not entries:
            return
        group = self._group(entries)
        self._check_room(group.size)
        for key, digest in group.keys:
            self._keys.add(key, digest)
        self._end += group.size
        self._pending.append(group)
        self._work.set()
        try:
            await group.done.wait()
        except trio.Cancelled:
            if group in self._pending:
                self._pending.remove(group)
                self._take_back(group)
            raise
        if group.error is not None:
            raise group.error

    def _group(self, entries: Sequence[Entry]) -> _Group:
        encoded: list[tuple[int, bytes]] = []
        keys: list[tuple[str, bytes]] = []
        for entry in entries:
            content = encode_entry(entry)
            if len(content) > self._entry_bytes_max:
                raise PayloadTypeError(
                    f"{_target(entry)}: a message of {len(content)} bytes: expected at most {self._entry_bytes_max}"
                )
            encoded.append((slot_of_entry(entry), content))
            if isinstance(entry, RequestEntry) and not entry.anonymous:
                keys.append((entry.key, entry.digest))
        return _Group(encoded, sum(frame_bytes(content) for _, content in encoded), keys)

    def _check_room(self, size: int) -> None:
        """Raise BacklogFullError if there is no room. What is longer than all room is let in alone."""
        backlog = self.backlog_bytes_now
        if backlog + size > self._backlog_bytes and backlog:
            excess = backlog + size - self._backlog_bytes
            raise BacklogFullError(
                f"{backlog} bytes of messages wait for their checkpoint, and at most {self._backlog_bytes} may; try again later",
                retry_after_s=self._pace.wait_s(excess),
            )

    def _take_back(self, group: _Group) -> None:
        self._end -= group.size
        for key, _ in group.keys:
            self._keys.remove(key)

    async def _write_groups(self) -> None:
        while True:
            await self._work.wait()
            self._work = trio.Event()
            while self._pending:
                groups = self._take_groups()
                try:
                    offset = await trio.to_thread.run_sync(self._write, groups, limiter=self._limiter)
                except trio.Cancelled:  # before the thread has begun, else its result comes first
                    self._pending.extendleft(reversed(groups))
                    raise
                except Exception as error:
                    known = isinstance(error, StorageError)
                    for group in groups:
                        self._take_back(group)
                        group.error = error if known else UnavailableError(f"the intake {self._owner!r} has failed: {error}")
                        group.done.set()
                    if not known:
                        raise
                    continue
                self._written(groups, offset)

    def _take_groups(self) -> list[_Group]:
        groups = [self._pending.popleft()]
        size = groups[0].size
        while self._pending and size + self._pending[0].size <= GROUP_BYTES_MAX:
            groups.append(self._pending.popleft())
            size += groups[-1].size
        return groups

    def _write(self, groups: list[_Group]) -> int:
        """In a thread: make groups durable, and tell the shards."""
        assert self._ringer is not None
        if not self._opened:
            self._writer.open()
            self._opened = True
        offset = self._writer.append([entry for group in groups for entry in group.entries])
        self._ringer.ring()
        return offset

    def _written(self, groups: list[_Group], offset: int) -> None:
        self._end = offset + sum(group.size for group in self._pending)
        for group in groups:
            for key, digest in group.keys:
                self._keys.written(key, digest, offset)
            group.done.set()

    def _fail_pending(self, error: Exception) -> None:
        while self._pending:
            group = self._pending.popleft()
            self._take_back(group)
            group.error = error
            group.done.set()

    # ---- what was read --------------------------------------------------------------------------------------------------
    def digest_of(self, key: str) -> bytes | None:
        """The digest of the request with this key that is in the log and perhaps not yet processed; ``None``: there is none."""
        return self._keys.digest_of(key)

    def consumed(self, offset: int) -> None:
        """Complete checkpoints have read up to here. (The log looks by itself, too, before it says that it is full.)"""
        self._consumed = max(self._consumed, min(offset, self._end))
        self._pace.read_to(offset, time.monotonic())
        self._keys.consumed(offset)

    @property
    def backlog_bytes_now(self) -> int:
        """Bytes of entries that no complete checkpoint has read, as of a moment ago."""
        self._look_consumed()
        return max(0, self._end - self._consumed)

    def _look_consumed(self) -> None:
        now = time.monotonic()
        if now < self._consumed_looked_at + CONSUMED_LOOK_S:
            return
        self._consumed_looked_at = now
        with suppress(StorageError):
            mark = load_mark(self._folder / CONSUMED)
            if mark is not None:
                self.consumed(mark.offset)

    # ---- replies --------------------------------------------------------------------------------------------------------
    async def ask(self, entry: RequestEntry, *, wait_s: float | None = None) -> Reply | None:
        """Append a request and wait for its reply. Cancelling stops the waiting, not the request.

        Args:
            wait_s: how long to wait after the request is durable; then the result is ``None``. Without it: for ever.

        Raises:
            BacklogFullError, PayloadTypeError, StorageError, UnavailableError: as ``append``.
        """
        waiter = _Waiter()
        at = (entry.key, entry.digest)
        self._waiting.setdefault(at, []).append(waiter)
        try:
            await self.append([entry._replace(owner=self._owner)])
            with trio.move_on_after(float("inf") if wait_s is None else wait_s):
                await waiter.done.wait()
        finally:
            waiters = self._waiting.get(at, [])
            if waiter in waiters:
                waiters.remove(waiter)
                if not waiters:
                    del self._waiting[at]
        return waiter.reply

    async def _receive(self, stream: trio.SocketStream) -> None:
        """What one shard sends."""
        replies = ReplyStream()
        try:
            while data := await stream.receive_some(RECEIVE_BYTES):
                for record in replies.feed(data):
                    self._replied(record)
        except trio.BrokenResourceError:
            pass  # the shard is gone; its replacement connects anew
        except ProtocolError as error:
            log.warning("replies cannot be understood", error=str(error))
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)

    def _replied(self, record: ReplyRecord) -> None:
        reply = Reply(record.key, record.status, record.type, record.payload)
        for waiter in self._waiting.pop((record.key, record.digest), ()):
            waiter.reply = reply
            waiter.done.set()


@dataclass(slots=True, eq=False)
class _Waiter:
    done: trio.Event = field(default_factory=trio.Event)
    reply: Reply | None = None


class _Pace:
    """How fast checkpoints read the log, roughly."""

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None
        self._bytes_per_s = 0.0

    def read_to(self, offset: int, now: float) -> None:
        """Checkpoints have read up to ``offset``."""
        if self._last is None:
            self._last = (offset, now)
        elif offset > self._last[0] and now > self._last[1]:
            rate = (offset - self._last[0]) / (now - self._last[1])
            self._bytes_per_s = rate if not self._bytes_per_s else 0.7 * self._bytes_per_s + 0.3 * rate
            self._last = (offset, now)

    def wait_s(self, size: int) -> float:
        """How long it takes until so much is read."""
        if not self._bytes_per_s:
            return RETRY_MIN_S
        return min(max(size / self._bytes_per_s, RETRY_MIN_S), RETRY_MAX_S)


def _listen(path: Path) -> socket.socket:
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        path.unlink(missing_ok=True)
        found.bind(str(path))
        path.chmod(FILE_MODE)
        found.listen(CONNECTIONS_WAITING_MAX)
    except OSError as error:
        found.close()
        raise storage_error("make the socket", path, error) from error
    return found


def _target(entry: Entry) -> str:
    return f"{entry.target}:{entry.id:.100}" if isinstance(entry, (MessageEntry, RequestEntry)) else f"ingress {entry.ingress}"
