"""The simulated mesh and the control sockets: byte frames in pipes.

A pipe of the mesh keeps the order, is bounded, and loses frames in one way only: it breaks, and its tail is gone. Whether anybody is
told is another matter (see ``faults``). A real process has new sockets in each incarnation; here the contents of a pipe often
survive, so that frames of an older incarnation really meet the check that ignores them.

Control sockets keep their order, too, but some messages arrive a second time, much later.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from enum import IntEnum, auto
from typing import NamedTuple

Channel = tuple[int, int]
"""``(sender, receiver)``"""


class News(IntEnum):
    """What a shard may have something to do for: there is a frame, room for one, a control message, or more in the intake log."""

    FRAME = auto()
    ROOM = auto()
    CONTROL = auto()
    ENTRIES = auto()


class InPipe(NamedTuple):
    """A frame under way, with the incarnation of who sent it."""

    incarnation: int
    raw: bytes


class Network:
    """All pipes between shards.

    Args:
        capacity: frames per pipe.
    """

    def __init__(self, shards: int, capacity: int) -> None:
        self._capacity = capacity
        self.wake: Callable[[int, News], None] = lambda _shard, _news: None
        """Called with a shard that may have something to do now, and why."""
        self.pipes: dict[Channel, deque[InPipe]] = {
            (sender, receiver): deque() for sender in range(shards) for receiver in range(shards) if sender != receiver
        }
        self._sent: dict[tuple[int, Channel], list[bytes]] = {}
        self._received: dict[tuple[int, Channel], int] = {}
        self._broken: dict[tuple[int, Channel], None] = {}

    def has_room(self, channel: Channel) -> bool:
        """Whether the pipe takes another frame."""
        return len(self.pipes[channel]) < self._capacity

    def send(self, channel: Channel, incarnation: int, raw: bytes, *, data: bool) -> None:
        """Put a frame into a pipe; ``data``: it holds messages."""
        self.pipes[channel].append(InPipe(incarnation, raw))
        self.wake(channel[1], News.FRAME)
        if data:
            self._sent.setdefault((incarnation, channel), []).append(raw)

    def take(self, channel: Channel) -> InPipe:
        """Take the oldest frame out of a pipe. It must not be empty."""
        self.wake(channel[0], News.ROOM)
        return self.pipes[channel].popleft()

    def note_received(self, channel: Channel, incarnation: int) -> None:
        """A data frame of the receiver's incarnation has arrived."""
        key = incarnation, channel
        self._received[key] = self._received.get(key, 0) + 1

    def counts(self, channel: Channel, incarnation: int) -> tuple[int, int]:
        """Data frames sent and received on a channel in an incarnation so far."""
        key = incarnation, channel
        return len(self._sent.get(key, ())), self._received.get(key, 0)

    def frames_between(self, channel: Channel, incarnation: int, received: int, sent: int) -> list[bytes]:
        """The data frames that were sent as number ``received + 1`` to ``sent``."""
        return self._sent.get((incarnation, channel), [])[received:sent]

    def forget_before(self, incarnation: int) -> None:
        """Nobody asks for the frames of older incarnations any more."""
        self._sent = {key: frames for key, frames in self._sent.items() if key[0] >= incarnation}
        self._received = {key: count for key, count in self._received.items() if key[0] >= incarnation}

    # ---- faults ---------------------------------------------------------------------------------------------------------
    def cut_tail(self, channel: Channel, frames: int) -> None:
        """The last ``frames`` frames of a pipe are lost."""
        pipe = self.pipes[channel]
        self.wake(channel[0], News.ROOM)
        for _ in range(min(frames, len(pipe))):
            lost = pipe.pop()
            self._broken[lost.incarnation, channel] = None

    def was_broken(self, channel: Channel, incarnation: int) -> bool:
        """Whether a frame of that incarnation was ever lost on the channel."""
        return (incarnation, channel) in self._broken

    def process_ended(self, shard: int, chance: random.Random, stale: float) -> None:
        """A shard is gone: of each of its pipes either all or a part survives."""
        for channel, pipe in self.pipes.items():
            if shard in channel and pipe and chance.random() >= stale:
                self.cut_tail(channel, chance.randint(1, len(pipe)))


class Late(NamedTuple):
    """A second copy of a control message. ``to_shard``: else it goes to the supervisor."""

    to_shard: bool
    shard: int
    raw: bytes


class ControlSockets:
    """One per shard, both directions."""

    def __init__(self, shards: int) -> None:
        self.to_shard: list[deque[bytes]] = [deque() for _ in range(shards)]
        self.to_supervisor: list[deque[bytes]] = [deque() for _ in range(shards)]
        self.late: list[Late] = []

    def reconnect(self, shard: int) -> None:
        """A new process has a new socket."""
        self.to_shard[shard].clear()
        self.to_supervisor[shard].clear()
