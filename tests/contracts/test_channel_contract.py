"""The contract of ``ports.FrameChannel``: nng's channel in real time, and the simulated one of the shells in virtual time.

What only nng has (its C functions, socket files, ports) is in ``tests/mesh/test_channel.py``.
"""

from __future__ import annotations

import random
import select
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from shell_channels import Anybody, Net
from shell_order import run_virtually

from shardfun.errors import ChannelLossError, ProtocolError, UnavailableError
from shardfun.mesh.channel import Channel
from shardfun.model.frames import FRAME_BYTES_MAX
from shardfun.ports import FrameChannel

WAIT_S = 5.0
LOOK_S = 0.01
BUFFER = 4
BLOCK = b"x" * 100_000  # more than a socket's own buffer holds of them
BLOCKS_MAX = 1000


class Place:
    """Where channels are: makes them, and waits until something is so."""

    def __init__(self, url: str, open: Callable[[Callable[[], None]], FrameChannel]) -> None:
        self.url = url
        self._open = open
        self._made: list[FrameChannel] = []

    def open(self, on_loss: Callable[[], None] = lambda: None) -> FrameChannel:
        """A channel."""
        self._made.append(self._open(on_loss))
        return self._made[-1]

    def pair(self, on_loss: Callable[[], None] = lambda: None) -> tuple[FrameChannel, FrameChannel]:
        """One that dials, and one that listens and hears of losses."""
        dialer, listener = self.open(), self.open(on_loss)
        dialer.dial(listener.listen(self.url))
        return dialer, listener

    def close(self) -> None:
        """All of them."""
        for channel in self._made:
            channel.close()


Body = Callable[[Place], Awaitable[None]]


@pytest.fixture(params=["nng", "simulated"])
def contract(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Body], None]:
    """Runs a body at a place."""
    url = f"ipc://{tmp_path}/s"

    def really(body: Body) -> None:
        place = Place(url, lambda on_loss: Channel(BUFFER, on_loss))
        try:
            trio.run(body, place)
        finally:
            place.close()

    def virtually(body: Body) -> None:
        async def main() -> None:
            net = Net(random.Random(3))
            place = Place(url, lambda on_loss: net.open(Anybody(), BUFFER, on_loss))
            async with trio.open_nursery() as nursery:
                await nursery.start(net.run)
                await body(place)
                place.close()
                nursery.cancel_scope.cancel()

        run_virtually(3, main)

    return really if request.param == "nng" else virtually


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(WAIT_S):
        while not condition():  # noqa: ASYNC110 - it is not told when
            await trio.sleep(LOOK_S)


async def a_moment() -> None:
    await trio.sleep(5 * LOOK_S)


def readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


async def receive(channel: FrameChannel) -> bytes:
    await until(lambda: readable(channel.receive_fd))
    raw = channel.receive()
    assert raw is not None
    return raw


async def send(channel: FrameChannel, raw: bytes) -> None:
    await until(lambda: channel.send(raw))


def test_frames_arrive_in_order_both_ways(contract: Callable[[Body], None]) -> None:
    async def body(place: Place) -> None:
        dialer, listener = place.pair()
        frames = [b"", b"\0", BLOCK, *(str(number).encode() for number in range(20))]
        for one, other in ((dialer, listener), (listener, dialer)):
            for raw in frames:
                await send(one, raw)
                assert await receive(other) == raw
            assert other.receive() is None

    contract(body)


def test_the_descriptor_is_readable_exactly_while_frames_wait(contract: Callable[[Body], None]) -> None:
    async def body(place: Place) -> None:
        dialer, listener = place.pair()
        assert not readable(listener.receive_fd)
        await send(dialer, b"first")
        await until(lambda: readable(listener.receive_fd))
        assert readable(listener.receive_fd), "as long as the frame is there"
        await send(dialer, b"second")
        assert await receive(listener) == b"first"
        assert await receive(listener) == b"second"
        assert not readable(listener.receive_fd)

    contract(body)


def test_a_full_channel_says_so_and_its_descriptor_tells_when_there_is_room(contract: Callable[[Body], None]) -> None:
    async def body(place: Place) -> None:
        dialer, listener = place.pair()
        await send(dialer, b"hello")
        await receive(listener)
        sent = 0
        for _ in range(3):  # a real one moves frames on for a moment
            while dialer.send(BLOCK):
                sent += 1
                assert sent < BLOCKS_MAX, "it is bounded"
            await a_moment()
        assert sent >= BUFFER
        dialer.waiting = b"last"
        assert not dialer.flush()
        assert not readable(dialer.send_fd)
        for _ in range(sent):
            assert await receive(listener) == BLOCK
        await until(lambda: readable(dialer.send_fd))
        await until(dialer.flush)
        assert dialer.waiting is None
        assert dialer.flush(), "nothing waits"
        assert await receive(listener) == b"last"

    contract(body)


def test_frames_sent_before_anybody_listens_are_kept_as_far_as_there_is_room(contract: Callable[[Body], None]) -> None:
    async def body(place: Place) -> None:
        dialer = place.open()
        dialer.dial(place.url)
        sent = 0
        while dialer.send(b"%d" % sent):
            sent += 1
            assert sent < BLOCKS_MAX
        assert sent >= BUFFER
        await a_moment()
        listener = place.open()
        listener.listen(place.url)
        assert [await receive(listener) for _ in range(sent)] == [b"%d" % number for number in range(sent)]

    contract(body)


def test_the_loss_of_the_peer_is_reported(contract: Callable[[Body], None]) -> None:
    async def body(place: Place) -> None:
        lost: list[bool] = []
        dialer, listener = place.pair(lambda: lost.append(True))
        await send(dialer, b"x")
        assert await receive(listener) == b"x"
        await a_moment()
        assert lost == []
        dialer.close()
        await until(lambda: lost)
        await a_moment()
        assert lost == [True], "once"
        assert listener.receive() is None

    contract(body)


def test_closing_oneself_is_no_loss_and_ends_everything(contract: Callable[[Body], None]) -> None:
    async def body(place: Place) -> None:
        lost: list[bool] = []
        dialer, listener = place.pair(lambda: lost.append(True))
        await send(dialer, b"x")
        await receive(listener)
        listener.close()
        listener.close()
        await a_moment()
        assert lost == []
        with pytest.raises(ChannelLossError, match=r"receive on .*: Object closed"):
            listener.receive()
        with pytest.raises(ChannelLossError, match=r"send on .*: Object closed"):
            listener.send(b"x")

    contract(body)


def test_a_frame_can_be_awaited_until_the_channel_is_closed(contract: Callable[[Body], None]) -> None:
    async def body(place: Place) -> None:
        dialer, listener = place.pair()

        async def wait_for_the_end() -> None:
            with pytest.raises(ChannelLossError):
                await listener.wait_frame()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, dialer, b"awaited")
            assert await listener.wait_frame() == b"awaited"
            nursery.start_soon(wait_for_the_end)
            await a_moment()
            listener.close()

    contract(body)


def test_after_the_loss_the_dialer_finds_a_new_listener_and_what_was_kept_follows(contract: Callable[[Body], None]) -> None:
    async def body(place: Place) -> None:
        dialer, listener = place.pair()
        await send(dialer, b"x")
        assert await receive(listener) == b"x"
        listener.close()
        await a_moment()
        another = place.open()
        another.listen(place.url)
        await send(dialer, b"y")
        assert await receive(another) == b"y"

    contract(body)


def test_a_frame_that_is_too_long_is_refused(contract: Callable[[Body], None]) -> None:
    async def body(place: Place) -> None:
        dialer, _ = place.pair()
        with pytest.raises(ProtocolError, match=r"frame of \d+ bytes .* expected at most \d+"):
            dialer.send(bytes(FRAME_BYTES_MAX + 1))

    contract(body)


def test_addresses_that_cannot_be_used(contract: Callable[[Body], None]) -> None:
    async def body(place: Place) -> None:
        place.open().listen(place.url)
        with pytest.raises(UnavailableError, match="cannot listen on"):
            place.open().listen(place.url)
        with pytest.raises(UnavailableError, match="cannot connect to"):
            place.open().dial("nonsense")

    contract(body)
