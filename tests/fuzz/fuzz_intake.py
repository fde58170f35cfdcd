"""Targets: the intake log and what comes back for requests (``shardfun.intake``)."""

from __future__ import annotations

import atexit
import functools
from typing import Any

import cbor2
from fuzz_registry import Target, empty_folder, file_with, joined, pieces

from shardfun.errors import CorruptionError, IngressError, ProtocolError, StorageError
from shardfun.intake.bells import Bell
from shardfun.intake.entries import (
    OWNERS,
    Entry,
    MessageEntry,
    RecordEntry,
    RequestEntry,
    decode_entry,
    encode_entry,
    request_digest,
    slot_of_entry,
)
from shardfun.intake.log import CONSUMED, DURABLE, LogWriter
from shardfun.intake.log_files import (
    Mark,
    frame,
    group_behind,
    group_frame,
    load_mark,
    save_mark,
    scan,
    segment_path,
    whole_frames,
)
from shardfun.intake.reader import LogReader
from shardfun.intake.replies import ReplyRecord, ReplyStream, encode_reply
from shardfun.model.cbor import load_cbor
from shardfun.model.keyspace import SLOTS
from shardfun.shard.doors import _open_at

ENTRIES = (
    MessageEntry("shop/cart", "42", "shop.Add", cbor2.dumps({"item": "x", "n": 2})),
    RecordEntry("orders", {"id": 1, "lines": [1.5, None, "x", True]}),
    RequestEntry("key", False, request_digest("shop/cart", "42", "int", b"\x01"), "shop/cart", "42", "int", b"\x01", "http"),
)


def _entry(data: bytes) -> Entry:
    """An entry, and where it goes: what a shard does with it first."""
    entry = decode_entry(data)
    assert 0 <= slot_of_entry(entry) < SLOTS
    return entry


# ---- the log on the disk -------------------------------------------------------------------------------------------------
def _log_bytes(offset: int = 0) -> bytes:
    parts = [group_frame(offset)]
    for entry in ENTRIES:
        parts.append(frame(offset + sum(map(len, parts)), slot_of_entry(entry), encode_entry(entry)))
    parts.append(group_frame(offset + sum(map(len, parts))))
    return b"".join(parts)


def _frames(data: bytes) -> Any:
    found, end = whole_frames(data, 0)
    assert 0 <= end <= len(data)
    group_behind(data, end, 0)
    return found


def _mark_bytes(mark: Mark) -> bytes:
    path = file_with("mark", b"")
    save_mark(path, mark)
    return path.read_bytes()


@functools.cache
def _bell() -> Bell:
    bell = Bell(empty_folder("bells"), 0)
    atexit.register(bell.close)
    return bell


def _log(data: bytes) -> Any:
    """A log with two segments and two marks: read to the mark, then opened by its writer, which may refuse."""
    durable, consumed, first, second = pieces(data, 4)
    folder = empty_folder("log")
    boundary = len(_log_bytes())
    for name, content in ((DURABLE, durable), (CONSUMED, consumed)):
        (folder / name).write_bytes(content)
    for start, content in ((0, first), (boundary, second)):
        if content:
            segment_path(folder, start).write_bytes(content)
    records = _read_all(folder)
    before = load_mark(folder / DURABLE)
    writer = LogWriter(folder)
    try:
        writer.open()
        assert before is None or writer.durable >= before.offset
        writer.append([(7, encode_entry(ENTRIES[0]))])
        list(scan(folder, 0 if first else writer.durable, writer.durable))
    finally:
        writer.close()
    return records


def _read_all(folder: Any) -> list[Any]:
    reader = LogReader(folder, (0, SLOTS), _bell())
    found: list[Any] = []
    try:
        reader.open(None)
        now = 0.0
        for _ in range(1000):
            now += 2.0
            batch = reader.read(2, now)
            if batch is None:
                break
            found += batch.records
    except (CorruptionError, StorageError):
        return found
    finally:
        reader.close()
    return found


def _logs() -> list[bytes]:
    first = _log_bytes()
    second = _log_bytes(len(first))
    whole, half = (_mark_bytes(Mark(len(first) + len(second), len(first))), _mark_bytes(Mark(len(first), 0)))
    return [
        joined(whole, half, first, second),
        joined(half, b"", first, b""),
        joined(half, b"", first, second),
        joined(b"", b"", b"", b""),
    ]


def _position(data: bytes) -> Any:
    """A position from a checkpoint, perhaps that of another kind of ingress."""
    folder = empty_folder("log")
    segment_path(folder, 0).write_bytes(_log_bytes())
    reader = LogReader(folder, (0, SLOTS), _bell())
    try:
        _open_at("in", reader, cbor_of(data))
    finally:
        reader.close()


def cbor_of(data: bytes) -> Any:
    """A plain value that a checkpoint could hold."""
    try:
        return load_cbor(data)
    except ValueError as error:
        raise CorruptionError("not CBOR") from error


# ---- replies -------------------------------------------------------------------------------------------------------------
def _reply_stream(data: bytes) -> list[ReplyRecord]:
    """However the stream is cut into pieces, the same records come out."""
    middle = len(data) // 2
    whole, cut = ReplyStream(), ReplyStream()
    found = list(whole.feed(data))
    assert [*cut.feed(data[:middle]), *cut.feed(data[middle:])] == found or found != found  # noqa: PLR0124 - NaN
    for record in found:
        assert type(record.key) is str
        assert type(record.digest) is bytes
        assert type(record.payload) is bytes
    return found


def _reply_bytes(records: list[ReplyRecord]) -> bytes:
    encoded = [encode_reply(record) for record in records if record.owner in OWNERS]
    return b"".join(len(raw).to_bytes(4, "big") + raw for raw in encoded)


def _replies() -> list[bytes]:
    records = [
        ReplyRecord("http", "key", b"d" * 32, "reply", "int", b"\x01"),
        ReplyRecord("local", "k", b"", "conflict", "", b""),
    ]
    return [_reply_bytes(records), _reply_bytes(records[:1])]


_DISK = (CorruptionError, StorageError)
TARGETS = (
    Target("intake-entry", _entry, (ProtocolError,), lambda: list(map(encode_entry, ENTRIES)), encode_entry),
    Target("intake-frames", _frames, (), lambda: [_log_bytes()]),
    Target("intake-log", _log, _DISK, _logs, words=(b"\xd5group\x0d\x0a", b"sfintak1")),
    Target(
        "intake-position",
        _position,
        (*_DISK, IngressError),
        lambda: [cbor2.dumps(each) for each in (None, 0, len(_log_bytes()), {"a": 1})],
    ),
    Target("replies", _reply_stream, (ProtocolError,), _replies, _reply_bytes),
)
