"""The stdout egress: whole lines, and what becomes of a reader that goes away."""

from __future__ import annotations

import os
import threading

import pytest

from shardfun.egress.stdout import PIPE_BYTES, StdoutEgress, StdoutEgressOptions
from shardfun.errors import EgressError
from shardfun.ports import Partition, PublishedPosition


def sink(descriptor: int) -> StdoutEgress:
    egress = StdoutEgress("lines", StdoutEgressOptions(), Partition(0, 1, lambda _: True))
    egress._descriptor = descriptor
    return egress


def test_writes_whole_lines_that_a_pipe_takes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []
    monkeypatch.setattr(os, "write", lambda _, data: writes.append(bytes(data)) or len(data))
    records = [b"x" * size + b"\n" for size in (10, 2000, 2000, 100, PIPE_BYTES * 2, 5)]
    sink(99).publish(records)
    assert b"".join(writes) == b"".join(records)
    assert all(write.endswith(b"\n") for write in writes)
    assert [len(write) > PIPE_BYTES for write in writes].count(True) == 1
    assert len(writes) == 4


def test_nothing_is_known_of_earlier_output() -> None:
    assert sink(99).open(PublishedPosition(5, 50), [b"1\n"]) == 0


def test_waits_for_a_slow_reader_of_a_non_blocking_pipe() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    received: list[bytes] = []

    def read() -> None:
        while data := os.read(reading, 1000):
            received.append(data)

    thread = threading.Thread(target=read)
    thread.start()
    sink(writing).publish([b"y" * 300_000 + b"\n"])
    os.close(writing)
    thread.join()
    os.close(reading)
    assert len(b"".join(received)) == 300_001


def test_a_reader_that_is_gone_is_an_egress_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(EgressError, match="standard output"):
        sink(writing).publish([b"1\n"])
    os.close(writing)
