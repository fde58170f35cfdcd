"""All channels of one shard in one incarnation.

Every incarnation has sockets of its own, with its number and a nonce in the address: a left-over process of an earlier run that
dials again cannot take the place of the real peer, and nothing of an old incarnation is in any buffer. Of two shards the one with
the lower number listens. The first frame on a channel is a hello that names incarnation, shard and nonce; only after it frames
are passed on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shardfun.errors import ChannelLossError
from shardfun.mesh.channel import Channel
from shardfun.model.frames import Hello, decode_frame
from shardfun.ports import FrameChannel, OpenChannel


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where channels listen.

    Args:
        transport: ``ipc`` or ``tcp``.
        host: for tcp; ``folder`` for the socket files of ipc, short enough for a socket address.
    """

    transport: str
    host: str
    folder: Path
    buffer_frames: int

    def url(self, name: str) -> str:
        """A new address to listen on."""
        return f"tcp://{self.host}:0" if self.transport == "tcp" else f"ipc://{self.folder / name}"


class Fabric:
    """The channels of ``shard`` to all its peers.

    Args:
        wake: called from a thread of nng when a peer's pipe is gone, after ``lost_peer`` was set.
        open_channel: makes the channels.
    """

    def __init__(
        self,
        shard: int,
        shards: int,
        nonce: str,
        endpoint: Endpoint,
        wake: Callable[[], None],
        open_channel: OpenChannel = Channel,
    ) -> None:
        self.nonce = nonce
        self.shard = shard
        self.channels: dict[int, FrameChannel] = {}
        self.lost_peer: int | None = None
        """A peer whose pipe is gone; of several any one will do. Here, so that a late call for an old fabric means nothing."""
        self._greeted: set[int] = set()
        self._wake = wake
        for peer in range(shards):
            if peer != shard:
                self.channels[peer] = open_channel(endpoint.buffer_frames, lambda peer=peer: self._on_loss(peer))  # type: ignore[misc]
        self.listening = {
            peer: channel.listen(endpoint.url(f"m-{nonce}-{shard}-{peer}"))
            for peer, channel in self.channels.items()
            if peer > shard
        }

    def _on_loss(self, peer: int) -> None:
        self.lost_peer = peer
        self._wake()

    def connect(self, peers: dict[int, str], hello: bytes) -> None:
        """Dial those that listen, and greet everybody."""
        for peer, url in peers.items():
            self.channels[peer].dial(url)
        for channel in self.channels.values():
            if not channel.send(hello):
                channel.waiting = hello

    def receive(self, peer: int) -> bytes | None:
        """The next frame from a peer after its hello, ``None`` if none is there.

        Raises:
            ChannelLossError: the channel is broken, or somebody else is at the other end.
        """
        channel = self.channels[peer]
        raw = channel.receive()
        if raw is None or peer in self._greeted:
            return raw
        body = decode_frame(raw).body
        if type(body) is not Hello or body.shard != peer or body.nonce != self.nonce:
            msg = f"channel to shard {peer}: expected its hello, got {body!r:.100}"
            raise ChannelLossError(msg)
        self._greeted.add(peer)
        return channel.receive()

    def close(self) -> None:
        """Close all channels."""
        for channel in self.channels.values():
            channel.close()
