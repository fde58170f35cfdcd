"""Runs something in a process of its own, a copy of this one, and hands back what it returns.

So that each run of an application begins with its modules as they are right after their import: what functions leave behind in
modules would make a run depend on those before it. A copy by ``fork`` takes milliseconds; importing anew takes seconds. (Nodes never
fork, since nng cannot; there is no nng here.)
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any, Final

HEAD_BYTES: Final = 8
READ_BYTES: Final = 1 << 16
BATCH: Final = 500  # events that are sent together
RESULT, EVENTS, ERROR = b"r", b"e", b"x"


class ChildError(Exception):
    """A run did not come to its end: its process has died, took too long, or raised."""


def in_child(
    work: Callable[[Callable[[Any], None]], Any], limit_s: float, on_event: Callable[[Any], None] | None = None
) -> Any:
    """Call ``work`` in a copy of this process; what it returns.

    Args:
        work: gets a function with which it can send events on the way.
        limit_s: real seconds, after which it is killed.
        on_event: called with each of these.

    Raises:
        ChildError: see there.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Threads of others do not exist in the copy, and it uses nothing of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(reading)
        _be_child(work, writing, wanted=on_event is not None)
    os.close(writing)
    try:
        return _receive(reading, time.monotonic() + limit_s, limit_s, on_event)
    except EOFError:
        _, status = os.waitpid(child, 0)
        child = 0
        code = os.waitstatus_to_exitcode(status)
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        raise ChildError(f"the process of the run has ended {how}: a function has ended it") from None
    finally:
        os.close(reading)
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _receive(reading: int, until: float, limit_s: float, on_event: Callable[[Any], None] | None) -> Any:
    while True:
        kind, body = _frame(reading, until, limit_s)
        match kind:
            case b"r":
                return pickle.loads(body)  # noqa: S301 - from a copy of ourselves
            case b"x":
                raise ChildError(body.decode())
            case _:
                for event in pickle.loads(body):  # noqa: S301
                    if on_event is not None:
                        on_event(event)


def _frame(reading: int, until: float, limit_s: float) -> tuple[bytes, bytes]:
    head = _exactly(reading, HEAD_BYTES + 1, until, limit_s)
    return head[:1], _exactly(reading, int.from_bytes(head[1:], "big"), until, limit_s)


def _exactly(reading: int, size: int, until: float, limit_s: float) -> bytes:
    found = bytearray()
    while len(found) < size:
        ready, _, _ = select.select([reading], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            msg = (
                f"the run has not ended within {limit_s:g} s of real time: some function may run for ever or wait for something"
            )
            raise ChildError(msg)
        piece = os.read(reading, min(READ_BYTES, size - len(found)))
        if not piece:
            raise EOFError
        found += piece
    return bytes(found)


# ---- in the child --------------------------------------------------------------------------------------------------------
def _be_child(work: Callable[[Callable[[Any], None]], Any], writing: int, *, wanted: bool) -> None:
    """Do the work, tell of it, and be gone."""
    code = 1
    try:
        # What functions print must not get between our own lines. One run that is watched may say what it likes on standard error.
        os.dup2(2 if wanted else os.open(os.devnull, os.O_WRONLY), 1)
        if not wanted:
            os.dup2(1, 2)
        events: list[Any] = []

        def send(event: Any) -> None:
            events.append(event)
            if len(events) >= BATCH:
                _send(writing, EVENTS, pickle.dumps(events))
                events.clear()

        try:
            result = work(send)
            if events:
                _send(writing, EVENTS, pickle.dumps(events))
            _send(writing, RESULT, pickle.dumps(result))
        except Exception as error:  # noqa: BLE001 - told to the parent
            _send(writing, ERROR, "".join(traceback.format_exception(error)[-3:]).encode())
        code = 0
    finally:
        os._exit(code)


def _send(writing: int, kind: bytes, body: bytes) -> None:
    data = memoryview(kind + len(body).to_bytes(HEAD_BYTES, "big") + body)
    while data:
        data = data[os.write(writing, data) :]
