"""Targets: what egresses read back: streams and event ids, files, journals, and the answers of webhooks' receivers."""

from __future__ import annotations

import http.client
import io
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zlib import crc32

from fuzz_registry import Target, empty_folder, joined, pieces

from shardfun.egress.file import FileEgress, FileEgressOptions
from shardfun.egress.journal import Attempt, Journal
from shardfun.egress.post import Poster, _seconds
from shardfun.egress.segments import partition_folder, segment_at, segments_in
from shardfun.egress.stream import StreamEgress, StreamEgressOptions
from shardfun.egress.tail import EgressTail
from shardfun.errors import EgressError, EventIdError
from shardfun.ports import Partition, PublishedPosition

JOB = "ab" * 16
LINES = b'{"a":1}\n[1,2]\n"x"\n'
PENDING = [b'{"a":1}\n', b"[1,2]\n"]


# ---- streams -------------------------------------------------------------------------------------------------------------
def _stream_folder(first: bytes, second: bytes) -> Path:
    folder = empty_folder("node")
    stream = partition_folder(folder, "late", 0)
    stream.mkdir(parents=True)
    segment_at(stream, 0, 0, JOB[:8]).path.write_bytes(first)
    if second:
        segment_at(stream, 3, len(LINES), JOB[:8]).path.write_bytes(second)
    return folder


def _tail(data: bytes) -> Any:
    """Follow a stream with these segments from an event id on."""
    after, first, second = pieces(data, 3)
    folder = _stream_folder(first, second)
    tail = EgressTail(folder, "late", 1, after=after.decode("latin-1") or None)
    found = []
    for _ in range(50):
        taken = tail.take(2)
        found += taken
        if not taken:
            break
    if found:
        EgressTail(folder, "late", 1, after=found[-1][0])
    return found


def _event_id(data: bytes) -> Any:
    text = data.decode("latin-1")
    return EgressTail(_stream_folder(LINES, b""), "late", 1, after=text).event_id if text else ""


def _segment_names(data: bytes) -> Any:
    folder = empty_folder("names")
    for name in data.split(b"\n")[:5]:
        text = name.decode(errors="surrogateescape")
        if text not in {"", ".", ".."} and "/" not in text and "\0" not in text and len(name) < 200:
            (folder / text).touch()
    return segments_in(folder)


def _open(egress: Any) -> Any:
    """Open behind what was published, publish, and open again: what was published is found."""
    try:
        found = egress.open(PublishedPosition(1, len(PENDING[0])), PENDING)
        egress.publish(PENDING[found:])
        assert egress.open(PublishedPosition(1, len(PENDING[0])), PENDING) == len(PENDING)
    finally:
        egress.close()
    return found


def _stream(data: bytes) -> Any:
    first, second = pieces(data, 2)
    folder = _stream_folder(first, second)
    return _open(StreamEgress("late", StreamEgressOptions(fsync=False), Partition(0, 1, lambda _: True, JOB, folder)))


def _file(data: bytes) -> Any:
    folder = empty_folder("out")
    (folder / "out-0.jsonl").write_bytes(data)
    options = FileEgressOptions(path=folder / "out-{partition}.jsonl", fsync=False)
    return _open(FileEgress("out", options, Partition(0, 1, lambda _: True, JOB, folder)))


# ---- webhooks ------------------------------------------------------------------------------------------------------------
def _journal(data: bytes) -> Attempt | None:
    path = empty_folder("webhooks") / "hook" / "0"
    path.parent.mkdir()
    path.write_bytes(data)
    journal = Journal(path, JOB, fsync=False)
    try:
        return journal.open()
    finally:
        journal.close()


def _sealed_journal(data: bytes) -> Attempt | None:
    return _journal(b"%s %08x" % (data, crc32(data)))


def _journals() -> list[bytes]:
    path = empty_folder("webhooks") / "hook" / "0"
    journal = Journal(path, JOB, fsync=False)
    journal.open()
    journal.write(Attempt(5, 3, "ndjson"))
    journal.close()
    return [path.read_bytes()]


class _PlayedSocket:
    """A socket whose other side has sent bytes and closed."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def sendall(self, data: bytes) -> None:
        pass

    def makefile(self, *_: Any, **__: Any) -> io.BufferedReader:
        return io.BufferedReader(io.BytesIO(self._data))  # type: ignore[arg-type]

    def close(self) -> None:
        pass


class _PlayedPoster(Poster):
    """Connects to what was sent."""

    def __init__(self, data: bytes) -> None:
        super().__init__(urlsplit("http://127.0.0.1/hook"), 1.0, None)
        self._data = data

    def _connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", 80)
        connection.sock = _PlayedSocket(self._data)
        return connection


def _answer(data: bytes) -> Any:
    poster = _PlayedPoster(data)
    try:
        answer = poster.post(b"{}", {"Idempotency-Key": "k"})
        assert len(answer.text) <= 200
        return answer
    finally:
        poster.close()


_ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbusy\r\n0\r\n\r\n",
    b"HTTP/1.0 429 Later\r\nRetry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n\r\nlater",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 None\r\n\r\n",
    b"HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
)


def _retry_after(data: bytes) -> Any:
    seconds = _seconds(data.decode("latin-1"))
    assert seconds is None or seconds >= 0
    return seconds


_RETRY = [b"7", b"Wed, 21 Oct 2015 07:28:00 GMT", b"Mon, 01 Jan 0001 00:00:00 +2359", b"0.5", b" 12 "]
_HTTP_WORDS = (b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"\r\n", b"Retry-After: ", b"HTTP/1.1 ", b"ffffffff")

TARGETS = (
    Target(
        "stream-tail",
        _tail,
        (EgressError,),
        lambda: [joined(b"", LINES, LINES), joined(b"abababab-1", LINES, b""), joined(b"abababab-4", LINES, LINES)],
    ),
    Target("event-id", _event_id, (EventIdError,), lambda: [b"abababab-1", b"00000000-0", b"abababab-3"], words=(b".", b"-")),
    Target(
        "segment-names",
        _segment_names,
        (),
        lambda: [b"0000000000000003-000000000000000017-abababab.jsonl\n0000000000000000-000000000000000000-abababab.jsonl"],
    ),
    Target("stream-sink", _stream, (EgressError,), lambda: [joined(LINES, LINES), joined(LINES, b""), joined(LINES[:10], b"")]),
    Target("file-sink", _file, (EgressError,), lambda: [LINES, LINES[:8], LINES[:10]]),
    Target("journal", _journal, (), _journals),
    Target("journal-sealed", _sealed_journal, (), lambda: [raw.rstrip().rpartition(b" ")[0] for raw in _journals()]),
    Target(
        "webhook-answer", _answer, (OSError, http.client.HTTPException), lambda: _ANSWERS, words=_HTTP_WORDS, message_max=70_000
    ),
    Target("retry-after", _retry_after, (), lambda: _RETRY),
)
