"""One nng pair socket, driven without blocking from a loop that waits on file descriptors.

pynng's own ``arecv`` and ``asend`` wake a Trio task from a foreign thread for every frame, 72 to 156 us; taking what is there until
nothing is left costs 6 us for a 4 KiB frame. So this calls nng's C functions through pynng's cffi module ``pynng._nng``, which is
not public: the version is pinned, and a contract test fails if it changes. A receive into one reused pointer and a copy out of the
message buffer is the cheapest way that owns its bytes. A receive in vain takes nng 35 us when its code is not in a cache, and a loop
does one for every peer all the time, so the descriptor is asked first.

A pair socket takes one peer. A pipe that goes away is never taken up again: for the mesh that is the loss of a channel.
"""

from __future__ import annotations

import contextlib
import logging
import select
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynng
from pynng._nng import ffi, lib

from shardfun.errors import ChannelLossError, ProtocolError, UnavailableError
from shardfun.model.frames import FRAME_BYTES_MAX

logging.getLogger("pynng").setLevel(logging.WARNING)  # it has a debug line for every pipe, from its own threads

RECONNECT_MS = 5
SEND_BUFFER_MAX = 8192  # nng's own limit
_AGAIN = lib.NNG_EAGAIN
_NONBLOCK = lib.NNG_FLAG_NONBLOCK


class Channel:
    """A pair socket.

    Args:
        buffer_frames: frames that nng keeps in each direction.
        on_loss: called from a thread of nng when the peer's pipe is gone; must only set a flag or write to an eventfd.
    """

    __slots__ = (
        "_arrived",
        "_closed",
        "_message",
        "_number",
        "_receiving",
        "_socket",
        "receive_fd",
        "send_fd",
        "url",
        "waiting",
    )

    def __init__(self, buffer_frames: int, on_loss: Callable[[], None]) -> None:
        self._socket = pynng.Pair0(
            send_buffer_size=min(buffer_frames, SEND_BUFFER_MAX),
            recv_buffer_size=min(buffer_frames, SEND_BUFFER_MAX),
            recv_max_size=FRAME_BYTES_MAX,
        )
        self._socket.reconnect_time_min = RECONNECT_MS
        self._socket.reconnect_time_max = RECONNECT_MS
        self._number = self._socket.socket
        self._message = ffi.new("nng_msg **")
        self._closed = False
        self.receive_fd: int = self._socket.recv_fd
        self.send_fd: int = self._socket.send_fd
        self._arrived = select.poll()
        self._arrived.register(self.receive_fd, select.POLLIN)
        self._receiving = False
        self.url = ""
        self.waiting: bytes | None = None
        """A frame for which nng had no room; goes out before any other."""
        self._socket.add_post_pipe_remove_cb(lambda _pipe: None if self._closed else on_loss())

    def listen(self, url: str) -> str:
        """Listen; the url to dial, with the real port where ``url`` had port 0.

        Raises:
            UnavailableError: the address cannot be used.
        """
        try:
            listener = self._socket.listen(url)
        except pynng.NNGException as error:
            msg = f"cannot listen on {url}: {error}"
            raise UnavailableError(msg) from error
        self.url = url
        if url.startswith("tcp:"):
            self.url = f"{url.rpartition(':')[0]}:{_port(listener)}"
        elif url.startswith("ipc://"):
            with contextlib.suppress(OSError):
                Path(url.removeprefix("ipc://")).chmod(0o600)
        return self.url

    def dial(self, url: str) -> None:
        """Connect in the background; frames sent before are kept.

        Raises:
            UnavailableError: ``url`` is malformed.
        """
        try:
            self._socket.dial(url, block=False)
        except pynng.NNGException as error:
            msg = f"cannot connect to {url}: {error}"
            raise UnavailableError(msg) from error
        self.url = url

    def receive(self) -> bytes | None:
        """The next frame, ``None`` if none is there.

        Raises:
            ChannelLossError: the socket is broken.
        """
        if not self._receiving and not self._arrived.poll(0):
            return None
        code = lib.nng_recvmsg(self._number, self._message, _NONBLOCK)
        self._receiving = code == 0
        if code:
            if code == _AGAIN:
                return None
            msg = f"receive on {self.url}: {_reason(code)}"
            raise ChannelLossError(msg)
        message = self._message[0]
        raw: bytes = ffi.buffer(lib.nng_msg_body(message), lib.nng_msg_len(message))[:]
        lib.nng_msg_free(message)
        return raw

    def send(self, raw: bytes) -> bool:
        """Hand a frame to nng; ``False`` if there is no room (then keep it in ``waiting`` and watch ``send_fd``).

        Raises:
            ChannelLossError: the socket is broken.
            ProtocolError: the frame is larger than the receiver takes.
        """
        if len(raw) > FRAME_BYTES_MAX:
            msg = f"frame of {len(raw)} bytes for {self.url}: expected at most {FRAME_BYTES_MAX}; send smaller messages"
            raise ProtocolError(msg)
        code = lib.nng_send(self._number, raw, len(raw), _NONBLOCK)
        if code == 0:
            return True
        if code == _AGAIN:
            return False
        msg = f"send on {self.url}: {_reason(code)}"
        raise ChannelLossError(msg)

    def flush(self) -> bool:
        """Try to send what waits; whether nothing waits any more."""
        if self.waiting is not None:
            if not self.send(self.waiting):
                return False
            self.waiting = None
        return True

    async def wait_frame(self) -> bytes:
        """The next frame, awaited through pynng (for the supervisor, where a few hundred microseconds do not matter).

        Raises:
            ChannelLossError: the socket is closed.
        """
        try:
            raw: bytes = await self._socket.arecv()
        except pynng.NNGException as error:
            msg = f"receive on {self.url}: {error}"
            raise ChannelLossError(msg) from error
        return raw

    def close(self) -> None:
        """Close, and remove the socket file of a listener. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._socket.close()
        if self.url.startswith("ipc://"):
            with contextlib.suppress(OSError):
                Path(self.url.removeprefix("ipc://")).unlink()


def _port(listener: Any) -> int:
    address = listener.local_address
    text = str(address)
    return int(text.rpartition(":")[2])


def _reason(code: int) -> str:
    return str(ffi.string(lib.nng_strerror(code)).decode())
