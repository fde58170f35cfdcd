"""Channels between simulated processes: bounded, in order, late, and cut when somebody wants it. The fake of ``ports.FrameChannel``.

What nng does and we rely on is done here, too, and checked by the same contract (``tests/contracts/test_channel_contract.py``): frames
that were sent before anybody listens are kept; a dialer whose peer is gone dials again; what was under way is lost then.
"""

from __future__ import annotations

import heapq
import os
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

import trio

from shardfun.errors import ChannelLossError, ProtocolError, UnavailableError
from shardfun.model.frames import FRAME_BYTES_MAX

REDIAL_S = 0.005
KERNEL_FRAMES = 2  # of each direction, beside what the two ends keep


class Owner(Protocol):
    """Whose channel it is."""

    alive: bool

    def local_time(self) -> float:
        """Now, by its own clock."""


class Anybody:
    """An owner that never dies, at the common time."""

    alive = True

    def local_time(self) -> float:
        """Now."""
        return trio.current_time()


@dataclass
class Weather:
    """How the network is. May be changed at any time.

    Args:
        latency_s: at most so much for each frame.
        control_latency_s: the same for control messages.
    """

    latency_s: float = 0.001
    control_latency_s: float = 0.001


@dataclass(order=True)
class _Due:
    at: float
    number: int
    action: Callable[[], None] = field(compare=False)


class Net:
    """All channels, and the task that moves frames."""

    def __init__(self, chance: random.Random, weather: Weather | None = None) -> None:
        self.chance = chance
        self.weather = Weather() if weather is None else weather
        self.channels: dict[SimChannel, None] = {}
        self.listening: dict[str, SimChannel] = {}
        self.dialing: dict[str, list[SimChannel]] = {}
        self.frames = 0
        self.watch: Callable[[str, bytes], None] = lambda url, raw: None
        """Is told of each frame that arrives."""
        self._due: list[_Due] = []
        self._numbers = count()
        self._changed = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. What is on its way then never arrives, and lets go of processes that are dead."""
        task_status.started()
        try:
            while True:
                now = trio.current_time()
                while self._due and self._due[0].at <= now:
                    heapq.heappop(self._due).action()
                self._changed = trio.Event()
                with trio.move_on_at(self._due[0].at if self._due else float("inf")):
                    await self._changed.wait()
        finally:
            self._due.clear()

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do something later."""
        heapq.heappush(self._due, _Due(when, next(self._numbers), action))
        self._changed.set()

    def open(self, owner: Owner, buffer_frames: int, on_loss: Callable[[], None]) -> SimChannel:
        """A new channel; ``ports.OpenChannel`` with an owner."""
        return SimChannel(self, owner, buffer_frames, on_loss)

    def latency_s(self, url: str) -> float:
        """Of the next frame."""
        most = self.weather.control_latency_s if "/c-" in url else self.weather.latency_s
        return self.chance.random() * most

    def sever(self, owner: Owner) -> None:
        """A process is dead: its ends are closed, and what it has sent after its death never was."""
        for channel in [channel for channel in self.channels if channel.owner is owner]:
            channel.close()

    def mesh_pipes(self) -> list[Pipe]:
        """The connections between shards."""
        pipes = {id(channel.pipe): channel.pipe for channel in self.channels if channel.pipe is not None}
        return [pipe for pipe in pipes.values() if "/c-" not in pipe.url]

    def connect_soon(self, dialer: SimChannel) -> None:
        """Connect a dialer as soon as somebody listens."""
        self.dialing.setdefault(dialer.url, []).append(dialer)
        if dialer.url in self.listening:
            self.at(trio.current_time() + self.latency_s(dialer.url), lambda: self.connect(dialer.url))

    def connect(self, url: str) -> None:
        """Connect who dials with who listens, if both are there and free."""
        listener = self.listening.get(url)
        dialers = self.dialing.get(url, [])
        if listener is None or listener.pipe is not None or not listener.owner.alive:
            return
        while dialers:
            dialer = dialers.pop(0)
            if not dialer.closed and dialer.pipe is None:
                Pipe(self, dialer, listener)
                return


class Pipe:
    """A connection of two channels."""

    def __init__(self, net: Net, dialer: SimChannel, listener: SimChannel) -> None:
        self.url = listener.url
        self._net = net
        self._ends = (dialer, listener)
        self._last = {dialer: 0.0, listener: 0.0}
        self._broken_at: dict[SimChannel, float] = {}
        for end in self._ends:
            end.pipe = self
        for end in self._ends:
            for raw, sent_at in end.kept:
                self.carry(end, raw, max(sent_at, trio.current_time()))
            end.kept.clear()

    def other(self, end: SimChannel) -> SimChannel:
        """The peer of an end."""
        return self._ends[1] if end is self._ends[0] else self._ends[0]

    def carry(self, sender: SimChannel, raw: bytes, sent_at: float) -> None:
        """Bring a frame to the other end, behind those before it."""
        sender.under_way += 1
        arrives = self._last[sender] = max(self._last[sender], sent_at + self._net.latency_s(self.url))
        self._net.at(arrives, lambda: self._arrive(sender, raw, sent_at))

    def _arrive(self, sender: SimChannel, raw: bytes, sent_at: float) -> None:
        receiver = self.other(sender)
        sender.under_way -= 1
        if sent_at > self._broken_at.get(sender, float("inf")) or receiver.closed or receiver.pipe is not self:
            return
        self._net.frames += 1
        self._net.watch(self.url, raw)
        receiver.arrived(raw)

    def close(self, end: SimChannel) -> None:
        """One end is closed: the other gets a part of what is under way, then the news."""
        now = trio.current_time()
        last = self._last[end]
        self._broken_at[end] = now - self._net.chance.random() * max(0.0, self._net.weather.latency_s)
        other = self.other(end)
        self._net.at(
            max(now, min(last, now + self._net.weather.latency_s)) + self._net.latency_s(self.url), lambda: self._lost(other)
        )

    def _lost(self, end: SimChannel, notice_s: float | None = 0.0) -> None:
        if end.pipe is not self:
            return
        end.pipe = None
        if end.closed:
            return
        if notice_s is not None:
            self._net.at(trio.current_time() + notice_s, end.report_loss)
        end.begin_again()

    def cut(self, notice_s: float | None) -> None:
        """Lose all that is under way; the ends are told after ``notice_s``, or never. The dialer dials again."""
        for end in self._ends:
            self._lost(end, notice_s)


class SimChannel:
    """One end. See ``ports.FrameChannel``."""

    def __init__(self, net: Net, owner: Owner, buffer_frames: int, on_loss: Callable[[], None]) -> None:
        self.url = ""
        self.waiting: bytes | None = None
        self.owner = owner
        self.pipe: Pipe | None = None
        self.closed = False
        self.kept: deque[tuple[bytes, float]] = deque()
        self.under_way = 0
        self._net = net
        self._buffer = buffer_frames
        self._on_loss = on_loss
        self._dials = False
        self._inbox: deque[bytes] = deque()
        self._news = trio.Event()
        self._receive_fd = self._send_fd = -1
        net.channels[self] = None

    # ---- descriptors: made when somebody wants them ------------------------------------------------------------------------
    @property
    def receive_fd(self) -> int:
        """Readable while a frame is there."""
        if self._receive_fd < 0:
            self._receive_fd = os.eventfd(len(self._inbox) > 0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        return self._receive_fd

    @property
    def send_fd(self) -> int:
        """Readable while there is room."""
        if self._send_fd < 0:
            self._send_fd = os.eventfd(self._has_room(), os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        return self._send_fd

    def _show(self) -> None:
        for fd, readable in ((self._receive_fd, bool(self._inbox)), (self._send_fd, self._has_room())):
            if fd >= 0:
                with suppress(BlockingIOError):
                    os.eventfd_read(fd)
                if readable:
                    os.eventfd_write(fd, 1)

    def _has_room(self) -> bool:
        if self.pipe is None:
            return len(self.kept) < self._buffer
        return self.under_way + len(self.pipe.other(self)._inbox) < 2 * self._buffer + KERNEL_FRAMES

    # ---- as the drivers see it ------------------------------------------------------------------------------------------
    def listen(self, url: str) -> str:
        """Listen; a port 0 becomes a number."""
        if url.endswith(":0"):
            url = f"{url[:-1]}{next(self._net._numbers) + 1024}"
        if not url.startswith(("ipc://", "tcp://")) or url in self._net.listening:
            raise UnavailableError(f"cannot listen on {url}: address in use or invalid")
        self.url = url
        self._net.listening[url] = self
        self._net.at(trio.current_time() + self._net.latency_s(url), lambda: self._net.connect(url))
        return url

    def dial(self, url: str) -> None:
        """Connect in the background."""
        if not url.startswith(("ipc://", "tcp://")):
            raise UnavailableError(f"cannot connect to {url}: invalid address")
        self.url = url
        self._dials = True
        self._net.connect_soon(self)

    def receive(self) -> bytes | None:
        """The next frame that is there."""
        if self.closed:
            raise ChannelLossError(f"receive on {self.url}: Object closed")
        if not self._inbox:
            return None
        raw = self._inbox.popleft()
        self._show()
        if self.pipe is not None:
            self.pipe.other(self)._show()
        return raw

    def send(self, raw: bytes) -> bool:
        """Take a frame if there is room."""
        if len(raw) > FRAME_BYTES_MAX:
            raise ProtocolError(
                f"frame of {len(raw)} bytes for {self.url}: expected at most {FRAME_BYTES_MAX}; send smaller messages"
            )
        if self.closed:
            raise ChannelLossError(f"send on {self.url}: Object closed")
        if not self._has_room():
            return False
        sent_at = self.owner.local_time()
        if self.pipe is None:
            self.kept.append((raw, sent_at))
        else:
            self.pipe.carry(self, raw, sent_at)
        self._show()
        return True

    def flush(self) -> bool:
        """Send what waits."""
        if self.waiting is not None and self.send(self.waiting):
            self.waiting = None
        return self.waiting is None

    async def wait_frame(self) -> bytes:
        """The next frame, awaited."""
        while True:
            await trio.lowlevel.checkpoint()
            raw = self.receive()
            if raw is not None:
                return raw
            await self._news.wait()

    def close(self) -> None:
        """Close; the peer hears of it."""
        if self.closed:
            return
        self.closed = True
        self._net.channels.pop(self)
        if self._net.listening.get(self.url) is self:
            del self._net.listening[self.url]
        dialing = self._net.dialing.get(self.url, [])
        if self in dialing:
            dialing.remove(self)
        if self.pipe is not None:
            self.pipe.close(self)
            self.pipe = None
        self._news.set()
        for fd in (self._receive_fd, self._send_fd):
            if fd >= 0:
                os.close(fd)
        self._receive_fd = self._send_fd = -1

    # ---- as the pipe sees it --------------------------------------------------------------------------------------------
    def arrived(self, raw: bytes) -> None:
        """A frame has come."""
        self._inbox.append(raw)
        self._show()
        if self.pipe is not None:
            self.pipe.other(self)._show()
        self._news.set()
        self._news = trio.Event()

    def report_loss(self) -> None:
        """The peer is gone."""
        if not self.closed:
            self._on_loss()

    def begin_again(self) -> None:
        """As nng does: dial again, or wait for whoever dials."""
        self._show()
        if self._dials:
            self._net.at(trio.current_time() + REDIAL_S, lambda: None if self.closed else self._net.connect_soon(self))
        else:
            self._net.at(trio.current_time(), lambda: self._net.connect(self.url))
