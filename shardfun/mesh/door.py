"""A question and answer socket: how another process asks a running node something."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pynng
import trio

from shardfun.errors import UnavailableError

QUESTION_BYTES_MAX = 2 << 20
ANSWER_BYTES_MAX = 16 << 20
QUESTIONS_AT_ONCE = 96
"""More than all that may wait for something (``supervisor.queries``, ``supervisor.entrance``), so that the status always has room."""

Answerer = Callable[[bytes], Awaitable[bytes]]


async def answer_questions(url: str, answer: Answerer) -> None:
    """Answer on ``url`` (ipc) until cancelled, some questions at once: one may have to wait for a checkpoint.

    Whoever may open the socket file may ask; the file is private.
    """
    with pynng.Rep0(recv_max_size=QUESTION_BYTES_MAX) as socket:
        socket.listen(url)
        Path(url.removeprefix("ipc://")).chmod(0o600)  # noqa: ASYNC240 - one system call on a socket file
        async with trio.open_nursery() as nursery:
            for _ in range(QUESTIONS_AT_ONCE):
                nursery.start_soon(_answer_in_turn, socket, answer)


async def _answer_in_turn(socket: pynng.Rep0, answer: Answerer) -> None:
    with socket.new_context() as context:
        while True:
            question = await context.arecv()
            raw = await answer(question)
            with contextlib.suppress(pynng.NNGException):  # who asked may be gone
                await context.asend(raw)


class Asker:
    """Asks a node from a Trio program, many questions at once over one connection. Made by ``open_asker``."""

    def __init__(self, url: str, socket: pynng.Req0) -> None:
        self._url = url
        self._socket = socket

    async def ask(self, question: bytes, timeout_s: float) -> bytes:
        """Ask; may be called by many tasks, and cancelled.

        Raises:
            UnavailableError: nobody answers in time.
        """
        reason = f"no answer within {timeout_s:g} s"
        try:
            with trio.move_on_after(timeout_s), self._socket.new_context() as context:
                await context.asend(question)
                answer: bytes = await context.arecv()
                return answer
        except pynng.NNGException as error:
            reason = str(error)
        raise UnavailableError(f"the node does not answer at {self._url}: {reason}")


@contextlib.contextmanager
def open_asker(url: str) -> Iterator[Asker]:
    """Open a connection to a node's door; it need not be there yet, and may go away and come back."""
    # nng asks again after a minute without an answer: a question that changes something would be done twice
    with pynng.Req0(recv_max_size=ANSWER_BYTES_MAX, resend_time=-1) as socket:
        socket.dial(url, block=False)
        yield Asker(url, socket)


def ask(url: str, question: bytes, timeout_s: float) -> bytes:
    """Ask a node; blocks.

    Raises:
        UnavailableError: nobody answers in time.
    """
    timeout_ms = int(timeout_s * 1000)
    try:
        with pynng.Req0(send_timeout=timeout_ms, recv_timeout=timeout_ms, recv_max_size=ANSWER_BYTES_MAX) as socket:
            socket.dial(url, block=True)
            socket.send(question)
            answer: bytes = socket.recv()
    except pynng.NNGException as error:
        msg = f"the node does not answer at {url}: {error}"
        raise UnavailableError(msg) from error
    return answer
