"""The channels of a simulated shard to its peers, in one incarnation after the other."""

from __future__ import annotations

from collections.abc import Callable
from zlib import crc32

from shardfun.core.shard import ShardCore
from shardfun.errors import ChannelLossError
from shardfun.model.control import Loss
from shardfun.simulation.gauges import check_limits
from shardfun.simulation.network import InPipe
from shardfun.simulation.surroundings import Surroundings
from shardfun.simulation.violation import wrong


class Channels:
    """See the module.

    Args:
        send_control: to the supervisor.
    """

    def __init__(self, around: Surroundings, shard: int, send_control: Callable[[Loss], None]) -> None:
        self._around = around
        self._shard = shard
        self._name = f"shard {shard}"
        self._send_control = send_control
        self._peers = [peer for peer in range(around.options.shards) if peer != shard]
        self._broken: list[int] = []
        self._greetings: list[int] = []

    def attach(self) -> None:
        """A new incarnation: nothing is broken, and every peer has to be greeted."""
        self._broken = []
        self._greetings = list(self._peers)

    def _note(self, event: str, detail: str) -> None:
        self._around.note(self._name, event, detail)

    def receive(self, core: ShardCore) -> bool:
        """Take a frame from one of the channels that have some."""
        pipes = self._around.network.pipes
        peer = next((peer for peer in self._turn() if pipes[peer, self._shard] and peer not in self._broken), None)
        if peer is None:
            return False
        frame = self._around.network.take((peer, self._shard))
        if frame.incarnation != core.incarnation:
            self._receive_stale(core, peer, frame)
            return True
        link = core.link_of[peer]
        data, barrier = link.data_received, link.last_barrier
        try:
            core.receive(peer, frame.raw)
        except ChannelLossError as error:
            self._around.checker.lost(peer, self._shard, core.incarnation, str(error))
            self.report_loss(core, peer, str(error))
            return True
        kind = "control"
        if link.data_received != data:
            self._around.network.note_received((peer, self._shard), core.incarnation)
            kind = "data"
        self._note("received", f"{kind} from {peer}, {len(frame.raw)} bytes")
        if link.last_barrier != barrier:
            self._note("barrier came", f"from {peer}")
        check_limits(core)
        return True

    def _receive_stale(self, core: ShardCore, peer: int, frame: InPipe) -> None:
        """Nothing of another incarnation has an effect."""
        link = core.link_of[peer]
        before = (link.received_sequence, link.data_received, link.may_send, len(link.inbox), core.participant.cut)
        try:
            core.receive(peer, frame.raw)
        except ChannelLossError as error:
            wrong(f"{self._name}: a frame of incarnation {frame.incarnation} is looked at in {core.incarnation}: {error}")
        if (link.received_sequence, link.data_received, link.may_send, len(link.inbox), core.participant.cut) != before:
            wrong(f"{self._name}: a frame of incarnation {frame.incarnation} had an effect in {core.incarnation}")
        self._note("stale", f"from {peer} of {frame.incarnation}")

    def report_loss(self, core: ShardCore, peer: int, reason: str) -> None:
        """A channel is broken: the incarnation has to end."""
        if peer not in self._broken:
            self._broken.append(peer)
            self._send_control(Loss(core.incarnation, peer, reason))
            self._note("loss", reason)

    def send(self, core: ShardCore, *, flush: bool) -> bool:
        """Put the next frame into one of the channels that have room; ``flush``: it need not be full."""
        return any(self._send_to(core, peer, flush=flush) for peer in self._turn())

    def _turn(self) -> list[int]:
        """The peers, beginning with any of them."""
        first = int(self._around.chance.random() * len(self._peers))
        return self._peers[first:] + self._peers[:first]

    def _send_to(self, core: ShardCore, peer: int, *, flush: bool) -> bool:
        network, channel = self._around.network, (self._shard, peer)
        if not network.has_room(channel):
            return False
        if peer in self._greetings:
            self._greetings.remove(peer)
            network.send(channel, core.incarnation, core.hello("nonce"), data=False)
            return True
        link = core.link_of[peer]
        sent, barrier = link.data_sent, link.barrier
        raw = core.next_frame(peer, flush=flush)
        if raw is None:
            return False
        data = link.data_sent != sent
        network.send(channel, core.incarnation, raw, data=data)
        self._note("sent", f"{'data' if data else 'control'} to {peer}, {len(raw)} bytes {crc32(raw):08x}")
        if link.barrier != barrier:
            self._note("barrier sent", f"to {peer}")
        return True
