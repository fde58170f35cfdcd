"""Targets: files that are read (JSON lines, CSV, gzip), and positions that a checkpoint gives back, perhaps to another kind of ingress."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cbor2
from fuzz_intake import cbor_of
from fuzz_registry import Target, file_with

from shardfun.errors import CorruptionError, IngressError
from shardfun.ingress.file import FileIngress, FileIngressOptions
from shardfun.ingress.generator import GeneratorIngress, GeneratorOptions
from shardfun.model.keyspace import owner_of
from shardfun.ports import Partition
from shardfun.shard.doors import _open_at

JSONL = b'{"id":"a","n":1}\n{"id":2,"n":[1.5,null]}\n\n{"n":3}\n{"id":"b"}'
CSV = b'id,name,n\r\na,"Smith, J.",1\r\nb,"two\nlines",2\n\nc,"quo""ted",3\n'
KEYS = ("id", None)


def _reader(path: Path, key: str | None, index: int, count: int) -> FileIngress:
    options = FileIngressOptions(path=path, partition_by=key)
    return FileIngress("in", options, Partition(index, count, lambda key: owner_of(key, count) == index))


def _batches(reader: FileIngress, limit: int, position: Any = None) -> Iterator[Any]:
    reader.open(position)
    try:
        while not reader.finished:
            batch = reader.read(limit, 0.0)
            if batch is not None:
                yield batch
    finally:
        reader.close()


def _file(name: str) -> Callable[[bytes], Any]:
    """Every record is one partition's, and the same whether it is read alone or with many others, or behind a position."""

    def read(data: bytes) -> Any:
        path = file_with(name, data)
        found: list[Any] = []
        for key in KEYS:
            whole = list(_batches(_reader(path, key, 0, 1), 512))
            slow = list(_batches(_reader(path, key, 0, 1), 1))
            assert _content(whole) == _content(slow)
            if slow and len(slow) < 50:
                half = slow[len(slow) // 2]
                rest = list(_batches(_reader(path, key, 0, 1), 512, cbor2.loads(cbor2.dumps(half.position))))
                assert _content(slow[len(slow) // 2 + 1 :]) == _content(rest)
            parts = [_content(_batches(_reader(path, key, index, 2), 512)) for index in range(2)]
            assert sum(map(len, parts)) == len(_content(whole))
            found.append(_content(whole))
        return found

    return read


def _content(batches: Any) -> list[str]:
    found = list(batches)
    return [repr(item) for batch in found for item in batch.records] + [repr(item) for batch in found for item in batch.rejects]


def _zipped(data: bytes) -> Any:
    return _file("in.jsonl.gz")(gzip.compress(data, mtime=0))


# ---- positions -----------------------------------------------------------------------------------------------------------
GENERATOR = GeneratorOptions(ids=10)


def _generator(index: int = 0) -> GeneratorIngress:
    return GeneratorIngress("in", GENERATOR, Partition(index, 2, lambda _: True))


def _positions() -> list[bytes]:
    path = file_with("position.jsonl", JSONL)
    found: list[Any] = [batch.position for batch in _batches(_reader(path, "id", 0, 1), 2)]
    for index in range(2):
        generator = _generator(index)
        generator.open(None)
        batch = generator.read(5, 0.0)
        assert batch is not None
        found.append(batch.position)
    return [cbor2.dumps(position) for position in (*found, 7, None, [1, 2], {"offset": 3})]


def _file_position(data: bytes) -> Any:
    path = file_with("position.jsonl", JSONL)
    reader = _reader(path, "id", 0, 1)
    try:
        _open_at("in", reader, cbor_of(data))
        return reader.read(10, 0.0)
    finally:
        reader.close()


def _csv_position(data: bytes) -> Any:
    path = file_with("position.csv", CSV)
    reader = _reader(path, "id", 0, 1)
    try:
        _open_at("in", reader, cbor_of(data))
        return reader.read(10, 0.0)
    finally:
        reader.close()


def _generator_position(data: bytes) -> Any:
    generator = _generator()
    _open_at("in", generator, cbor_of(data))
    batch = generator.read(10, 0.0)
    generator.close()
    return batch


_ERRORS = (IngressError, CorruptionError)
_POSITION_WORDS = (b"goffset", b"dline", b"frecord", b"greading", b"dfile", b"einode", b"jhead_bytes", b"eindex", b"goptions")
TARGETS = (
    Target("file-jsonl", _file("in.jsonl"), (IngressError,), lambda: [JSONL, b"\xef\xbb\xbf" + JSONL]),
    Target(
        "file-csv",
        _file("in.csv"),
        (IngressError,),
        lambda: [CSV, b"\xef\xbb\xbf" + CSV, b"\n\nid\n1\n2\n"],
        words=(b'"', b"\r\n", b","),
    ),
    Target("file-gzip", _file("in.csv.gz"), (IngressError,), lambda: [gzip.compress(CSV, mtime=0)]),
    Target("file-zipped", _zipped, (IngressError,), lambda: [JSONL]),
    Target("file-position", _file_position, _ERRORS, _positions, words=_POSITION_WORDS),
    Target("csv-position", _csv_position, _ERRORS, _positions, words=_POSITION_WORDS),
    Target("generator-position", _generator_position, _ERRORS, _positions, words=_POSITION_WORDS),
)
