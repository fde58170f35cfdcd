"""The contract of a channel with nng, whose functions it calls behind pynng's back: a new pynng that breaks it shows here."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shardfun.errors import ChannelLossError, ProtocolError, UnavailableError
from shardfun.mesh import channel as channel_module
from shardfun.mesh.channel import Channel

WAIT_S = 60.0


def until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


def readable(fd: int, timeout_s: float = 0.0) -> bool:
    return bool(select.select([fd], [], [], timeout_s)[0])


def receive(channel: Channel) -> bytes:
    assert readable(channel.receive_fd, WAIT_S)
    raw = channel.receive()
    assert raw is not None
    return raw


def send(channel: Channel, raw: bytes) -> None:
    assert until(lambda: channel.send(raw))


@pytest.fixture(params=["ipc", "tcp"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "tcp://127.0.0.1:0" if request.param == "tcp" else f"ipc://{tmp_path}/s"


class Ends:
    def __init__(self, url: str, frames: int) -> None:
        self.lost = threading.Event()
        self.threads: list[int] = []
        self.listener = Channel(frames, self._loss)
        self.dialer = Channel(frames, lambda: None)
        self.dialer.dial(self.listener.listen(url))

    def _loss(self) -> None:
        self.threads.append(threading.get_ident())
        self.lost.set()

    def close(self) -> None:
        self.listener.close()
        self.dialer.close()


@pytest.fixture
def ends(url: str) -> Iterator[Ends]:
    found = Ends(url, 4)
    yield found
    found.close()


def test_what_is_used_of_pynng_is_there() -> None:
    for name in ("nng_recvmsg", "nng_send", "nng_msg_body", "nng_msg_len", "nng_msg_free", "nng_strerror"):
        assert callable(getattr(channel_module.lib, name))
    assert isinstance(channel_module.lib.NNG_EAGAIN, int)
    assert isinstance(channel_module.lib.NNG_FLAG_NONBLOCK, int)


def test_frames_arrive_in_order_both_ways(ends: Ends) -> None:
    frames = [b"", b"\0", b"x" * 100_000, *(str(number).encode() for number in range(20))]
    for one, other in ((ends.dialer, ends.listener), (ends.listener, ends.dialer)):
        for raw in frames:
            send(one, raw)
            assert receive(other) == raw
        assert other.receive() is None


def test_nothing_there_is_none_and_not_a_wait(ends: Ends) -> None:
    started = time.monotonic()
    assert ends.listener.receive() is None
    assert ends.dialer.receive() is None
    assert time.monotonic() - started < 0.5


def test_the_descriptor_is_readable_exactly_while_frames_wait(ends: Ends) -> None:
    send(ends.dialer, b"first")
    assert readable(ends.listener.receive_fd, WAIT_S)
    assert readable(ends.listener.receive_fd), "as long as the frame is there"
    send(ends.dialer, b"second")
    assert receive(ends.listener) == b"first"
    assert receive(ends.listener) == b"second"
    assert not readable(ends.listener.receive_fd)


def test_received_bytes_are_our_own(ends: Ends) -> None:
    send(ends.dialer, b"first")
    first = receive(ends.listener)
    send(ends.dialer, b"other")
    receive(ends.listener)
    assert first == b"first"


def test_a_full_channel_says_so_and_its_descriptor_tells_when_there_is_room(ends: Ends) -> None:
    send(ends.dialer, b"hello")
    receive(ends.listener)
    sent = 0
    block = b"x" * 100_000  # more than a socket's own buffer holds of them
    while ends.dialer.send(block):
        sent += 1
        assert sent < 1000
    time.sleep(0.05)
    while ends.dialer.send(block):
        sent += 1
    ends.dialer.waiting = b"last"
    assert not ends.dialer.flush()
    assert not readable(ends.dialer.send_fd)
    for _ in range(sent):
        assert receive(ends.listener) == block
    assert readable(ends.dialer.send_fd, WAIT_S)
    assert until(ends.dialer.flush)
    assert ends.dialer.waiting is None
    assert ends.dialer.flush(), "nothing waits"
    assert receive(ends.listener) == b"last"


def test_frames_sent_before_the_listener_exists_are_kept(tmp_path: Path) -> None:
    url = f"ipc://{tmp_path}/late"
    dialer = Channel(4, lambda: None)
    dialer.dial(url)
    assert dialer.send(b"early")
    listener = Channel(4, lambda: None)
    listener.listen(url)
    assert receive(listener) == b"early"
    dialer.close()
    listener.close()


def test_the_loss_of_the_peer_is_reported_from_another_thread(ends: Ends) -> None:
    send(ends.dialer, b"x")
    assert receive(ends.listener) == b"x"
    ends.dialer.close()
    assert ends.lost.wait(WAIT_S)
    assert threading.get_ident() not in ends.threads


def test_closing_oneself_is_no_loss(ends: Ends) -> None:
    send(ends.dialer, b"x")
    receive(ends.listener)
    ends.listener.close()
    assert not ends.lost.wait(0.1)
    ends.listener.close()
    with pytest.raises(ChannelLossError, match=r"receive on .*: Object closed"):
        ends.listener.receive()
    with pytest.raises(ChannelLossError, match=r"send on .*: Object closed"):
        ends.listener.send(b"x")


def test_a_frame_that_the_receiver_would_not_take_is_refused_here(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "FRAME_BYTES_MAX", 10)
    send(ends.dialer, b"x" * 10)
    with pytest.raises(ProtocolError, match=r"frame of 11 bytes .* expected at most 10"):
        ends.dialer.send(b"x" * 11)
    assert receive(ends.listener) == b"x" * 10


def test_the_receiver_takes_no_frame_beyond_the_limit(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "FRAME_BYTES_MAX", 1000)
    ends = Ends(url, 4)
    monkeypatch.setattr(channel_module, "FRAME_BYTES_MAX", 10_000)
    send(ends.dialer, b"fits")
    assert receive(ends.listener) == b"fits"
    send(ends.dialer, b"x" * 2000)
    assert ends.lost.wait(WAIT_S), "nng ends the pipe: a loss, never a cut frame"
    assert ends.listener.receive() is None
    ends.close()


def test_a_socket_file_is_private_and_goes_with_the_listener(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listener = Channel(4, lambda: None)
    assert listener.listen(f"ipc://{path}") == f"ipc://{path}"
    assert path.stat().st_mode & 0o777 == 0o600
    dialer = Channel(4, lambda: None)
    dialer.dial(f"ipc://{path}")
    send(dialer, b"x")
    assert receive(listener) == b"x"
    listener.close()
    assert not path.exists()
    dialer.close()


def test_tcp_tells_the_real_port() -> None:
    listener = Channel(4, lambda: None)
    url = listener.listen("tcp://127.0.0.1:0")
    port = int(url.rpartition(":")[2])
    assert 0 < port < 65_536
    other = Channel(4, lambda: None)
    with pytest.raises(UnavailableError, match=f"^cannot listen on {url}: "):
        other.listen(url)
    other.close()
    listener.close()


def test_addresses_that_are_none(tmp_path: Path) -> None:
    channel = Channel(4, lambda: None)
    with pytest.raises(UnavailableError, match="cannot listen on"):
        channel.listen(f"ipc://{tmp_path}/missing/socket")
    with pytest.raises(UnavailableError, match="cannot listen on"):
        channel.listen(f"ipc://{tmp_path}/{'x' * 200}")
    with pytest.raises(UnavailableError, match="cannot connect to"):
        channel.dial("nonsense")
    channel.close()


async def test_a_frame_can_be_awaited(tmp_path: Path) -> None:
    ends = Ends(f"ipc://{tmp_path}/s", 4)
    send(ends.dialer, b"awaited")
    assert await ends.listener.wait_frame() == b"awaited"
    ends.listener.close()
    with pytest.raises(ChannelLossError):
        await ends.listener.wait_frame()
    ends.close()
