"""The hot loop: one iteration moves what is there, in bounded pieces, and never waits.

    receive (a few frames per channel) -> fill mailboxes -> run functions until the slice ends -> read ingress while there is
    room -> run again -> send full frames (everything when about to idle) -> one piece of checkpoint work -> effects

An iteration takes about ``SLICE_S``: the only price of a longer one is a later barrier. Trio is asked once per iteration, 2 us, and
when there is nothing to do the loop parks on one epoll descriptor that holds all others.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from dataclasses import dataclass

from shardfun.core.shard import ShardCore
from shardfun.mesh.fabric import Fabric
from shardfun.ports import REAL_CLOCK, Clock, FrameChannel
from shardfun.shard.doors import LINKS_FULL_FRAMES, Egress, Ingress

SLICE_S = 0.002
CHUNK_S = 0.001  # a chunk of one function type should take about half of this
CHECKPOINT_PIECE_S = 0.001
FRAMES_PER_TURN = 8
TICK_S = 0.004
"""What is due within so much time is done in one iteration: 5000 timers a second would wake the loop as often."""
CLOCK_CHECK_S = 2.0  # the wall clock, which timers follow, may be set while the loop sleeps by the monotonic one


@dataclass(slots=True)
class Spent:
    """Where the time of a process goes.

    Args:
        running_s: seconds in which functions that do not await ran: their reads and writes of state included.
    """

    running_s: float = 0.0


class HotLoop:
    """One incarnation's loop.

    Args:
        perform: does the effects of the core.
        epoll: where channels are registered while they have frames waiting to be sent.
        spent: what the loops of this process have done with their time.
    """

    def __init__(
        self,
        core: ShardCore,
        fabric: Fabric,
        ingress: Ingress,
        egress: Egress,
        perform: Callable[[], None],
        epoll: select.epoll,
        spent: Spent,
        clock: Clock = REAL_CLOCK,
    ) -> None:
        self.core = core
        self.checkpoint_s = 0.0
        """Seconds of this loop that the checkpoint in work took so far."""
        self.resumed_at = 0.0
        self._channels = list(fabric.channels.items())
        self._fabric = fabric
        self._ingress = ingress
        self._egress = egress
        self._perform = perform
        self._epoll = epoll
        self._spent = spent
        self._clock = clock.work
        self._monotonic = clock.monotonic
        self._wall = clock.wall
        self._watched: set[int] = set()
        self._room = LINKS_FULL_FRAMES * core.limits.frame_messages

    def iterate(self) -> bool:
        """One iteration; whether there may be more to do right away.

        Raises:
            ChannelLossError, ProtocolError: a channel lost a frame or is damaged.
            ShardfunError: of an ingress, or the backlog limit.
        """
        core = self.core
        now = self._clock()
        deadline = now + SLICE_S
        busy = core.advance(self._wall())
        busy |= self._receive(core)
        busy |= core.fill_mailboxes()
        busy |= self._run(core, deadline)
        core.check_backlog(core.backlog)
        busy |= self._read(core, deadline)
        busy |= self._send(flush=not busy)  # what had to wait for room in the outboxes (input, timers) may go on now
        busy |= self._checkpoint(core)
        self._perform()
        core.expire()
        busy |= core.sweep()
        self._egress.publish(self._monotonic())
        return busy

    def rest(self) -> float | None:
        """There is nothing to do: when to iterate again although nothing arrives (monotonic seconds).

        While there is no room for more input, nobody would read it: then it must not wake the loop, which would turn round at once.
        """
        self._ingress.hold(held=self._is_full())
        times = [self._ingress.wake_at, self._egress.wake_at]
        due_ms = self.core.wake_at_ms
        if due_ms is not None:
            times.append(self._monotonic() + _wait_s(due_ms / 1000, self._wall()))
        return min((at for at in times if at is not None), default=None)

    def _receive(self, core: ShardCore) -> bool:
        busy = False
        for peer, _ in self._channels:
            for _ in range(FRAMES_PER_TURN):
                raw = self._fabric.receive(peer)
                if raw is None:
                    break
                busy = True
                core.receive(peer, raw)
        return busy

    def _run(self, core: ShardCore, deadline: float) -> bool:
        """Run what waits until the slice ends. The chunk of a type follows its speed, so a slow one does not hold the loop."""
        if not core.may_execute:
            return False
        started = self._clock()
        ran = False
        while (target := core.run(core.limits.frame_messages)) is not None:
            ended = self._clock()
            took = ended - started
            self._spent.running_s += took
            if took > CHUNK_S:
                target.chunk = max(1, int(target.chunk * CHUNK_S / (2 * took)))
            elif took < CHUNK_S / 2:
                target.chunk = min(core.limits.frame_messages, 2 * target.chunk)
            if not ran and not self.resumed_at:
                self.resumed_at = self._wall()
            ran = True
            if ended > deadline:
                break
            started = ended
        return ran

    def _read(self, core: ShardCore, deadline: float) -> bool:
        """Take in records while the slice lasts and what they cause is not piling up, running them as they come."""
        busy = False
        while self._clock() < deadline:
            if self._is_full():
                break
            if not self._ingress.read(self._monotonic()):
                break
            busy = True
            self._run(core, deadline)
            self._send(flush=False)
        return busy

    def _is_full(self) -> bool:
        """Whether what was read causes more than can go on."""
        dispatcher = self.core.dispatcher
        return dispatcher.waiting > self._room or any(dispatcher.outgoing(peer) > self._room for peer, _ in self._channels)

    def _send(self, *, flush: bool) -> bool:
        """Send what there is room for; whether anything was."""
        sent = False
        for peer, channel in self._channels:
            if not channel.flush():
                continue
            while (raw := self.core.next_frame(peer, flush=flush)) is not None:
                sent = True
                if not channel.send(raw):
                    channel.waiting = raw
                    break
            self._watch(channel)
        return sent

    def _watch(self, channel: FrameChannel) -> None:
        """Wake up for room to send only while a frame waits for it."""
        waits = channel.waiting is not None
        if waits and channel.send_fd not in self._watched:
            self._watched.add(channel.send_fd)
            self._epoll.register(channel.send_fd, select.EPOLLIN)
        elif not waits and channel.send_fd in self._watched:
            self._watched.discard(channel.send_fd)
            self._epoll.unregister(channel.send_fd)

    def _checkpoint(self, core: ShardCore) -> bool:
        if not core.undecided:
            return False
        started = self._clock()
        limit = started + CHECKPOINT_PIECE_S
        more = core.checkpoint_work()  # at least one piece: a machine may be so slow that the limit is over before it
        while more and self._clock() < limit:
            more = core.checkpoint_work()
        self.checkpoint_s += self._clock() - started
        return more


def _wait_s(due_s: float, now_s: float) -> float:
    """How long to sleep for something that is due at ``due_s``, by the wall clock."""
    if due_s <= now_s:
        return 0.0
    return min(-(-due_s // TICK_S) * TICK_S - now_s, CLOCK_CHECK_S)
