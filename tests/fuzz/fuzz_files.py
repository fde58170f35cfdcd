"""Targets: files of the data directory (``shardfun.state``).

A file with a checksum is fuzzed twice: as it is, where nearly everything fails at the checksum; and *sealed*, where the input is the
content and the checksum is made to fit, so that what lies behind it is reached.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import msgspec
from fuzz_registry import Target, empty_folder, file_with, scratch

from shardfun.errors import CorruptionError, IncompatibleDataError, StorageError
from shardfun.model.delta import DeltaHeader, RecordBlock, StoredDelta
from shardfun.state.chain import Mark
from shardfun.state.delta import decode_delta, encode_delta
from shardfun.state.directory import DataDirectory, JobIdentity, NodeRecord, ProcessMark
from shardfun.state.files import DIGEST_BYTES, FileForm, unwrap, write_checked
from shardfun.state.manifest import Manifest, Manifests, ShardDelta, decode_manifest, encode_manifest
from shardfun.state.marks import FLUSHED_FORM, decode_mark, encode_mark
from shardfun.state.store import LevelDBStore

HEADER = DeltaHeader("ab" * 16, 1, 4, (8192, 16384), 3, (3 << 32) | 8, (3 << 32) | 7, b"d" * 16)
BLOCKS = [RecordBlock([b"\0\1a", b"\0\1b"], [b"x", None]), RecordBlock([b"\0\2sshop/cart\x0042"], [cbor2.dumps({"n": 1})])]
FORM = FileForm(b"sffuzz-\n", 1, "file")
MANIFEST = Manifest(
    job="ab" * 16,
    checkpoint=(3 << 32) | 8,
    parent=(3 << 32) | 7,
    incarnation=3,
    created_at=1.5,
    shards=[ShardDelta(0, b"d" * 16, 100, 2), ShardDelta(1, b"e" * 16, 100, 2)],
    end_sent=True,
    ingress={"in": [{"offset": 7}, None]},
    figures={"records": 4},
)


# ---- deltas --------------------------------------------------------------------------------------------------------------
def _delta_bytes(queues: bytes = b"queues", blocks: list[RecordBlock] | None = None) -> bytes:
    parts: list[bytes] = []
    encode_delta(HEADER, BLOCKS if blocks is None else blocks, queues, parts.append)
    return b"".join(parts)


def _encode_delta(delta: StoredDelta) -> bytes:
    parts: list[bytes] = []
    encode_delta(delta.header, delta.blocks, delta.queues, parts.append)
    return b"".join(parts)


def _sealed_delta(data: bytes) -> StoredDelta:
    return decode_delta(data + hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest())


def _delta_file(data: bytes) -> StoredDelta:
    return decode_delta(file_with("delta-0000000300000008", data))


def _deltas() -> list[bytes]:
    many = RecordBlock([number.to_bytes(4, "big") + b"k" for number in range(1, 60)], [b"v"] * 59)
    return [_delta_bytes(), _delta_bytes(b"", []), _delta_bytes(blocks=[many])]


# ---- checked files -------------------------------------------------------------------------------------------------------
def checked(content: bytes, form: FileForm = FORM) -> bytes:
    """A checked file with that content."""
    path = scratch() / "checked"
    write_checked(path, form, content)
    return path.read_bytes()


def _unwrapped(data: bytes) -> bytes:
    return unwrap(Path("file"), FORM, data)


def _manifest_file(data: bytes) -> Any:
    """A folder of manifests whose newest is this one."""
    folder = empty_folder("manifests")
    manifests = Manifests(folder)
    manifests.write(msgspec.structs.replace(MANIFEST, checkpoint=MANIFEST.parent, parent=0))
    manifests.path(MANIFEST.checkpoint).write_bytes(data)
    older = manifests.newest(MANIFEST.job, accept_loss=True)
    manifests.path(MANIFEST.checkpoint).write_bytes(data)
    newest = manifests.newest(MANIFEST.job)
    assert older == newest, "a manifest is damaged or not, whether a loss is accepted or not"
    return newest


def _manifest_files() -> list[bytes]:
    folder = empty_folder("manifest-seeds")
    Manifests(folder).write(MANIFEST)
    return [Manifests(folder).path(MANIFEST.checkpoint).read_bytes()]


def _directory(name: str, form: FileForm, *, sealed: bool) -> Callable[[bytes], Any]:
    """A data directory with one file that is this one, as a start and ``shardfun inspect`` read it."""

    def read(data: bytes) -> Any:
        folder = empty_folder("data")
        if sealed:
            write_checked(folder / name, form, data)
        else:
            (folder / name).write_bytes(data)
        directory = DataDirectory(folder)
        return directory.identity(), directory.incarnation(), directory.read_node()

    return read


JOB_FORM = FileForm(b"sfjob--\n", 1, "job file")
INCARNATION_FORM = FileForm(b"sfincar\n", 1, "incarnation file")
IDENTITY = cbor2.dumps(msgspec.to_builtins(JobIdentity(format=1, job="ab" * 16, app="shop.app:app", shards=2)))
NODE = msgspec.json.encode(NodeRecord(pid=1, url="ipc:///x", runtime_dir="/tmp/x", processes=[ProcessMark(2, 77)]))


# ---- the flushed mark ----------------------------------------------------------------------------------------------------
def _mark(data: bytes) -> Any:
    return decode_mark(data)


def _flushed(*, sealed: bool) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        folder = empty_folder("shard")
        if sealed:
            write_checked(folder / "flushed", FLUSHED_FORM, data)
        else:
            (folder / "flushed").write_bytes(data)
        opened = LevelDBStore.open(folder, job="ab" * 16, shard=0, shards=1)
        opened.close()
        return opened._flushed

    return read


def _flushed_file() -> list[bytes]:
    return [checked(_marks()[0], FLUSHED_FORM)]


def _marks() -> list[bytes]:
    return [encode_mark(Mark((3 << 32) | 8, b"d" * 16))]


_DATA_ERRORS = (CorruptionError, IncompatibleDataError)
TARGETS = (
    Target("delta", decode_delta, (CorruptionError,), _deltas, _encode_delta),
    Target("delta-sealed", _sealed_delta, (CorruptionError,), lambda: [raw[:-DIGEST_BYTES] for raw in _deltas()]),
    Target("delta-file", _delta_file, (CorruptionError, StorageError), _deltas),
    Target("checked-file", _unwrapped, (CorruptionError,), lambda: [checked(b"content"), checked(b"")], checked),
    Target("manifest", decode_manifest, (CorruptionError,), lambda: [encode_manifest(MANIFEST)], encode_manifest),
    Target("manifest-file", _manifest_file, _DATA_ERRORS, _manifest_files),
    Target("job-file", _directory("job", JOB_FORM, sealed=False), _DATA_ERRORS, lambda: [checked(IDENTITY, JOB_FORM)]),
    Target("job-sealed", _directory("job", JOB_FORM, sealed=True), _DATA_ERRORS, lambda: [IDENTITY]),
    Target(
        "incarnation-sealed",
        _directory("incarnation", INCARNATION_FORM, sealed=True),
        _DATA_ERRORS,
        lambda: [cbor2.dumps(0), cbor2.dumps(77)],
    ),
    Target("node-file", _directory("node.json", FORM, sealed=False), (), lambda: [NODE]),
    Target("mark", _mark, (CorruptionError,), _marks, encode_mark),
    Target("flushed-file", _flushed(sealed=False), (CorruptionError, StorageError), _flushed_file),
    Target("flushed-sealed", _flushed(sealed=True), (CorruptionError, StorageError), _marks),
)
