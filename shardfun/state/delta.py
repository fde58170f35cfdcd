"""The delta file: what one shard contributes to one checkpoint, as bytes.

It is the unit of redo, and what remote storage, rescaling and savepoints read. So a key range can be found through the index
without reading the rest. Knows the format only; where deltas live and when they go is the store's business. ::

    head      magic (8), format version (u16), length of the header (u32)
    header    CBOR map of DeltaHeader
    block*    length (u64), CBOR [keys, values], ascending by key; null deletes the key
    queues    length (u64), opaque bytes
    footer    CBOR [records, offset of queues, index], index = [[offset, records, min slot, max slot], one per block]
    tail      length of the footer (u64), BLAKE2b-16 of everything before the digest

All numbers big-endian. Blocks may repeat a key of an earlier block; the later one wins. Both directions work block by block: a
delta of hundreds of megabytes is never in memory twice.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from operator import lt
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import cbor2
import msgspec

from shardfun.errors import CorruptionError, LocalProtocolError
from shardfun.model.delta import DeltaHeader, DeltaSummary, RecordBlock, StoredDelta
from shardfun.state.files import DIGEST_BYTES, Write, storage_error
from shardfun.state.filesystem import REAL_FILES, FileSystem
from shardfun.state.plain import UndecodableError, load_plain, load_typed

MAGIC = b"sfdelta\n"
FORMAT_VERSION = 1
RESERVED = b"\xff"
"""Keys from here on are the store's own. A key begins with a slot below 2^15 or with a readable letter, so none gets here."""

BLOCK_RECORDS_MAX = 2048  # encoding holds the GIL: about 0.8 ms for a block of this size
BLOCK_BYTES_MAX = 1 << 20  # a block of more than one record is split above this
HEADER_BYTES_MAX = 64 << 10
READ_BYTES = 1 << 20

_HEAD = struct.Struct(">8sHI")
_LENGTH = struct.Struct(">Q")
_TAIL_BYTES = _LENGTH.size + DIGEST_BYTES


class _Damage(Exception):  # noqa: N818 - never leaves this module: the reader adds the name of the file
    """What is wrong with a delta."""


# ---- encoding ------------------------------------------------------------------------------------------------------------
def encode_delta(header: DeltaHeader, blocks: Sequence[RecordBlock], queues: bytes, write: Write) -> DeltaSummary:
    """Encode a delta piece by piece into ``write``.

    Raises:
        LocalProtocolError: keys are not ascending, empty or reserved, or keys and values differ in number.
    """
    hasher = hashlib.blake2b(digest_size=DIGEST_BYTES)
    offset = 0

    def put(piece: bytes) -> None:
        nonlocal offset
        hasher.update(piece)
        write(piece)
        offset += len(piece)

    encoded_header = cbor2.dumps(msgspec.to_builtins(header, builtin_types=(bytes,)))
    put(_HEAD.pack(MAGIC, FORMAT_VERSION, len(encoded_header)) + encoded_header)
    index = []
    records = 0
    for given in blocks:
        check_block(given)
        for block in _pieces(given):
            encoded = cbor2.dumps([block.keys, block.values])
            index.append([offset, len(block.keys), slot_of_key(block.keys[0]), slot_of_key(block.keys[-1])])
            put(_LENGTH.pack(len(encoded)) + encoded)
            records += len(block.keys)
    footer = cbor2.dumps([records, offset, index])
    put(_LENGTH.pack(len(queues)) + queues)
    put(footer + _LENGTH.pack(len(footer)))
    digest = hasher.digest()
    write(digest)
    return DeltaSummary(digest, offset + DIGEST_BYTES, records)


def check_block(block: RecordBlock) -> None:
    """Check what every store relies on.

    Raises:
        LocalProtocolError: as ``encode_delta``.
    """
    keys, values = block
    if len(keys) != len(values):
        raise LocalProtocolError(f"record block: expected as many values as keys ({len(keys)}), got {len(values)}")
    if keys and not (keys[0] and keys[-1] < RESERVED and all(map(lt, keys, keys[1:]))):
        raise LocalProtocolError(
            f"record block of {len(keys)} keys: expected ascending keys from 01 to below {RESERVED.hex()}, "
            f"got {keys[0].hex()} ... {keys[-1].hex()}"
        )


def slot_of_key(key: bytes) -> int:
    """The first two bytes of a key as a number (a one-byte key counts as if followed by zero)."""
    return int.from_bytes(key[:2].ljust(2, b"\0"), "big")


def _pieces(block: RecordBlock) -> Iterator[RecordBlock]:
    keys, values = block
    if len(keys) <= BLOCK_RECORDS_MAX:
        size = sum(map(len, keys)) + sum(map(len, filter(None, values)))
        if size <= BLOCK_BYTES_MAX or len(keys) == 1:
            if keys:
                yield block
            return
        step = len(keys) // 2
    else:
        step = BLOCK_RECORDS_MAX
    for start in range(0, len(keys), step):
        yield from _pieces(RecordBlock(keys[start : start + step], values[start : start + step]))


# ---- decoding ------------------------------------------------------------------------------------------------------------
class _Source(Protocol):
    name: str
    size: int

    def read(self, offset: int, length: int) -> bytes: ...


class _BytesSource:
    def __init__(self, raw: bytes) -> None:
        self.name = "delta"
        self.size = len(raw)
        self._raw = raw

    def read(self, offset: int, length: int) -> bytes:
        return self._raw[offset : offset + length]


class _FileSource:
    def __init__(self, path: Path, disk: FileSystem) -> None:
        self.name = str(path)
        self._path = path
        self._disk = disk
        try:
            self.size = disk.size(path)
        except FileNotFoundError:
            raise CorruptionError(f"{path}: this delta is missing, and it is needed") from None
        except OSError as error:
            raise storage_error("read", path, error) from error

    def read(self, offset: int, length: int) -> bytes:
        try:
            return self._disk.read(self._path, offset, min(length, self.size))
        except OSError as error:
            raise storage_error("read", self._path, error) from error


_Result = TypeVar("_Result")


class _Entry(NamedTuple):
    offset: int
    records: int
    min_slot: int
    max_slot: int


class DeltaReader:
    """A verified delta whose blocks are decoded when they are asked for.

    Args:
        source: the file, or its bytes.

    Raises:
        CorruptionError: missing or damaged in any way. Blocks and queues raise it, too.
        StorageError: the disk refused.
    """

    def __init__(self, source: Path | bytes, disk: FileSystem = REAL_FILES) -> None:
        self._source: _Source = _FileSource(source, disk) if isinstance(source, Path) else _BytesSource(source)
        self.header, self.summary, self._queues_offset, self._index = self._checked(self._open)

    def queues(self) -> bytes:
        """The opaque section."""
        return self._checked(lambda: self._section(self._queues_offset))

    def blocks(self) -> Iterator[RecordBlock]:
        """The blocks in order, one in memory at a time."""
        for entry in self._index:
            yield self._checked(partial(self._block, entry))

    def read(self) -> StoredDelta:
        """All of it."""
        return StoredDelta(self.header, self.summary, list(self.blocks()), self.queues())

    def _checked(self, step: Callable[[], _Result]) -> _Result:
        try:
            return step()
        except (_Damage, UndecodableError) as damage:
            raise CorruptionError(f"{self._source.name}: the delta is damaged: {damage}") from damage

    def _open(self) -> tuple[DeltaHeader, DeltaSummary, int, list[_Entry]]:
        size = self._source.size
        if size < _HEAD.size + _TAIL_BYTES:
            raise _Damage(f"its size of {size} bytes cannot be right")
        magic, version, header_bytes = _HEAD.unpack(self._exactly(0, _HEAD.size))
        if magic != MAGIC or version != FORMAT_VERSION:
            raise _Damage(f"expected magic {MAGIC!r} and version {FORMAT_VERSION}, got {magic!r} and {version}")
        digest = self._verified_digest()
        (footer_bytes,) = _LENGTH.unpack(self._exactly(size - _TAIL_BYTES, _LENGTH.size))
        footer_offset = size - _TAIL_BYTES - footer_bytes
        if header_bytes > HEADER_BYTES_MAX or footer_offset < _HEAD.size + header_bytes:
            raise _Damage("the lengths of header and footer do not fit into it")
        header = _header(self._exactly(_HEAD.size, header_bytes))
        records, queues_offset, index = _footer(self._exactly(footer_offset, footer_bytes))
        self._check_layout(index, _HEAD.size + header_bytes, queues_offset, footer_offset)
        if sum(entry.records for entry in index) != records:
            raise _Damage("the number of records differs from the index")
        return header, DeltaSummary(digest, size, records), queues_offset, index

    def _verified_digest(self) -> bytes:
        """Hash the whole file first: nothing is parsed, and no length believed, before the checksum fits."""
        hasher = hashlib.blake2b(digest_size=DIGEST_BYTES)
        end = self._source.size - DIGEST_BYTES
        for offset in range(0, end, READ_BYTES):
            hasher.update(self._exactly(offset, min(READ_BYTES, end - offset)))
        digest = self._exactly(end, DIGEST_BYTES)
        if hasher.digest() != digest:
            raise _Damage("its checksum does not fit")
        return digest

    def _check_layout(self, index: list[_Entry], first: int, queues_offset: int, footer_offset: int) -> None:
        """Sections follow each other without a gap, so that a wrong offset cannot reach outside."""
        position = first
        for offset in (*(entry.offset for entry in index), queues_offset):
            if offset != position or position + _LENGTH.size > footer_offset:
                raise _Damage(f"expected a section at {position}, the index says {offset}")
            (length,) = _LENGTH.unpack(self._exactly(position, _LENGTH.size))
            position += _LENGTH.size + length
        if position != footer_offset:
            raise _Damage(f"expected the footer at {position}, it is at {footer_offset}")

    def _section(self, offset: int) -> bytes:
        (length,) = _LENGTH.unpack(self._exactly(offset, _LENGTH.size))
        return self._exactly(offset + _LENGTH.size, length)

    def _block(self, entry: _Entry) -> RecordBlock:
        block = load_plain(self._section(entry.offset))
        if type(block) is not list or [type(column) for column in block] != [list, list]:
            raise _Damage(f"the block at {entry.offset} is not [keys, values]")
        keys, values = block
        if len(keys) != entry.records or len(values) != entry.records or not {*map(type, keys)} <= {bytes}:
            raise _Damage(f"the block at {entry.offset} does not hold {entry.records} keys and values")
        if not {*map(type, values)} <= {bytes, type(None)} or not all(map(lt, keys, keys[1:])) or keys[-1] >= RESERVED:
            raise _Damage(f"the block at {entry.offset} has keys out of order, or values that are not bytes")
        if (slot_of_key(keys[0]), slot_of_key(keys[-1])) != (entry.min_slot, entry.max_slot):
            raise _Damage(f"the block at {entry.offset} has other slots than the index says")
        return RecordBlock(keys, values)

    def _exactly(self, offset: int, length: int) -> bytes:
        data = self._source.read(offset, length)
        if len(data) != length:
            raise _Damage(f"expected {length} bytes at {offset}, got {len(data)}")
        return data


def decode_delta(source: bytes | Path) -> StoredDelta:
    """Read and verify a whole delta.

    Raises:
        CorruptionError: missing or damaged in any way.
        StorageError: the disk refused.
    """
    return DeltaReader(source).read()


def _header(raw: bytes) -> DeltaHeader:
    header = load_typed(raw, DeltaHeader)
    if not 0 <= header.parent < header.checkpoint:
        raise _Damage(f"header: checkpoint {header.checkpoint} cannot build on {header.parent}")
    return header


def _footer(raw: bytes) -> tuple[int, int, list[_Entry]]:
    records, queues_offset, index = load_typed(raw, tuple[int, int, list[_Entry]])
    if any(entry.records < 1 for entry in index):
        raise _Damage("footer: a block without records")
    return records, queues_offset, index
