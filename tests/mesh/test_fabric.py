"""All channels of a shard: who listens, and that nobody but the real peer of this incarnation is heard."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfun.errors import ChannelLossError, ProtocolError
from shardfun.mesh.fabric import Endpoint, Fabric
from shardfun.model.frames import encode_frame

WAIT_S = 60.0


def hello(shard: int, nonce: str) -> bytes:
    return encode_frame(3, 0, 0, ["hello", shard, nonce])


DATA = encode_frame(3, 1, 0, [])


class Fabrics:
    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.wakes = 0
        self.made: list[Fabric] = []

    def make(self, shard: int, nonce: str = "n", shards: int = 2) -> Fabric:
        fabric = Fabric(shard, shards, nonce, self.endpoint, self._wake)
        self.made.append(fabric)
        return fabric

    def _wake(self) -> None:
        self.wakes += 1


@pytest.fixture(params=["ipc", "tcp"])
def fabrics(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fabrics]:
    found = Fabrics(Endpoint(request.param, "127.0.0.1", tmp_path, 16))
    yield found
    for fabric in found.made:
        fabric.close()


def receive(fabric: Fabric, peer: int) -> bytes:
    end = time.monotonic() + WAIT_S
    while (raw := fabric.receive(peer)) is None:
        assert time.monotonic() < end
        time.sleep(0.002)
    return raw


def test_of_two_shards_the_lower_listens(fabrics: Fabrics) -> None:
    made = [fabrics.make(shard, shards=3) for shard in range(3)]
    assert [sorted(fabric.listening) for fabric in made] == [[1, 2], [2], []]
    assert [sorted(fabric.channels) for fabric in made] == [[1, 2], [0, 2], [0, 1]]
    for shard, fabric in enumerate(made):
        peers = {other: made[other].listening[shard] for other in range(shard)}
        fabric.connect(peers, hello(shard, "n"))
    for shard, fabric in enumerate(made):
        for peer, channel in fabric.channels.items():
            assert channel.send(encode_frame(3, 1, shard, ["credit", peer]))
    for shard, fabric in enumerate(made):
        for peer in fabric.channels:
            assert receive(fabric, peer) == encode_frame(3, 1, peer, ["credit", shard])
            assert fabric.receive(peer) is None
    assert fabrics.wakes == 0
    assert [fabric.lost_peer for fabric in made] == [None] * 3


@pytest.mark.parametrize("first", [hello(1, "old"), hello(0, "n"), hello(2, "n"), DATA, encode_frame(3, 0, 0, ["credit", 1])])
def test_who_does_not_greet_as_the_peer_is_not_heard(fabrics: Fabrics, first: bytes) -> None:
    fabric = fabrics.make(0)
    stranger = fabrics.make(1)
    stranger.connect({0: fabric.listening[1]}, first)
    with pytest.raises(ChannelLossError, match="channel to shard 1: expected its hello"):
        receive(fabric, 1)


def test_noise_instead_of_a_hello(fabrics: Fabrics) -> None:
    fabric = fabrics.make(0)
    stranger = fabrics.make(1)
    stranger.connect({0: fabric.listening[1]}, b"\xff")
    with pytest.raises(ProtocolError):
        receive(fabric, 1)


def test_a_peer_that_goes_is_named(fabrics: Fabrics) -> None:
    fabric, peer = fabrics.make(0), fabrics.make(1)
    fabric.connect({}, hello(0, "n"))
    peer.connect({0: fabric.listening[1]}, hello(1, "n"))
    assert peer.channels[0].send(DATA)
    assert receive(fabric, 1) == DATA
    peer.close()
    end = time.monotonic() + WAIT_S
    while not fabrics.wakes and time.monotonic() < end:
        time.sleep(0.002)
    assert fabrics.wakes == 1
    assert (fabric.lost_peer, peer.lost_peer) == (1, None)


def test_incarnations_have_addresses_of_their_own(tmp_path: Path) -> None:
    fabrics = Fabrics(Endpoint("ipc", "", tmp_path, 16))
    old, new = fabrics.make(0, "a"), fabrics.make(0, "b")
    assert old.listening[1] != new.listening[1]
    assert len(list(tmp_path.iterdir())) == 2
    for fabric in fabrics.made:
        fabric.close()
    assert list(tmp_path.iterdir()) == []
