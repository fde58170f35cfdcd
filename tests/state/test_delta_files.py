"""The delta format: what goes in comes out, and nothing else does."""

from __future__ import annotations

import os
import random
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardfun.errors import CorruptionError, LocalProtocolError, StorageError
from shardfun.model.delta import DeltaHeader, RecordBlock, StoredDelta
from shardfun.state import delta as delta_module
from shardfun.state.delta import BLOCK_BYTES_MAX, BLOCK_RECORDS_MAX, DeltaReader, decode_delta, encode_delta, slot_of_key
from shardfun.state.files import digest_of

HEADER = DeltaHeader("ab" * 16, 1, 4, (8192, 16384), 3, (3 << 32) | 2, (3 << 32) | 1, b"d" * 16)

keys = st.binary(min_size=1, max_size=12).filter(lambda key: key < b"\xff")
changes = st.dictionaries(keys, st.none() | st.binary(max_size=20), max_size=30)


def encode(blocks: list[RecordBlock], queues: bytes = b"", header: DeltaHeader = HEADER) -> bytes:
    pieces: list[bytes] = []
    summary = encode_delta(header, blocks, queues, pieces.append)
    raw = b"".join(pieces)
    assert summary.bytes == len(raw)
    assert summary.digest == raw[-16:]
    return raw


def block_of(mapping: dict[bytes, bytes | None]) -> RecordBlock:
    ordered = sorted(mapping)
    return RecordBlock(ordered, [mapping[key] for key in ordered])


@given(st.lists(changes, max_size=4), st.binary(max_size=50))
@settings(max_examples=100)
def test_round_trip(mappings: list[dict[bytes, bytes | None]], queues: bytes) -> None:
    blocks = [block_of(mapping) for mapping in mappings]
    stored = decode_delta(encode(blocks, queues))
    assert stored.header == HEADER
    assert stored.blocks == [block for block in blocks if block.keys]
    assert stored.queues == queues
    assert stored.summary.records == sum(map(len, mappings))


def test_a_file_gives_the_same_as_its_bytes(tmp_path: Path) -> None:
    raw = encode([block_of({b"\0\1a": b"1", b"\0\2a": None})], b"q")
    path = tmp_path / "delta"
    path.write_bytes(raw)
    assert decode_delta(path) == decode_delta(raw)


def test_equal_content_gives_equal_bytes() -> None:
    blocks = [block_of({b"\0\1a": b"1"})]
    assert encode(blocks) == encode(blocks)


def test_large_blocks_are_split_by_records_and_by_bytes() -> None:
    many = block_of({b"%06d" % i: b"v" for i in range(5000)})
    heavy = block_of({b"%06d" % i: bytes(BLOCK_BYTES_MAX // 3) for i in range(10)})
    single = block_of({b"a": bytes(2 * BLOCK_BYTES_MAX)})
    for given_block in (many, heavy, single):
        stored = decode_delta(encode([given_block]))
        assert all(len(block.keys) <= BLOCK_RECORDS_MAX for block in stored.blocks)
        assert all(len(block.keys) == 1 or sum(map(len, block.values)) <= BLOCK_BYTES_MAX for block in stored.blocks)
        assert [key for block in stored.blocks for key in block.keys] == given_block.keys
        assert [value for block in stored.blocks for value in block.values] == given_block.values


def test_slots_of_short_keys() -> None:
    assert [slot_of_key(key) for key in (b"\1", b"\1\2", b"\1\2\3")] == [256, 258, 258]


def test_keys_and_values_of_different_number_are_a_bug() -> None:
    with pytest.raises(LocalProtocolError, match="as many values"):
        encode([RecordBlock([b"a"], [])])


def test_every_flipped_byte_and_every_cut_is_found() -> None:
    raw = encode([block_of({b"\0\1a": b"1", b"\0\1b": None})], b"queues")
    for position in range(len(raw)):
        damaged = bytearray(raw)
        damaged[position] ^= 0x10
        with pytest.raises(CorruptionError):
            decode_delta(bytes(damaged))
        with pytest.raises(CorruptionError):
            decode_delta(raw[:position])
    with pytest.raises(CorruptionError):
        decode_delta(raw + b"\0")


def test_torn_pages_are_found_in_files(tmp_path: Path) -> None:
    path = tmp_path / "delta"
    raw = encode([block_of({b"%06d" % i: os.urandom(20) for i in range(3000)})])
    chance = random.Random(1)
    for _ in range(20):
        damaged = bytearray(raw)
        start = chance.randrange(len(raw) // 512) * 512
        damaged[start : start + 512] = bytes(len(damaged[start : start + 512]))
        path.write_bytes(damaged)
        with pytest.raises(CorruptionError, match=str(path)):
            decode_delta(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorruptionError, match="gone: this delta is missing"):
        decode_delta(tmp_path / "gone")


def test_a_disk_that_fails_is_not_corruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "delta"
    path.write_bytes(encode([]))

    def fail(*_: Any) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(StorageError) as caught:
        decode_delta(path)
    assert not isinstance(caught.value, CorruptionError)
    assert caught.value.errno == 5


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_arbitrary_bytes_are_corruption(raw: bytes) -> None:
    for candidate in (raw, b"sfdelta\n" + raw, raw + digest_of(raw)):
        with pytest.raises(CorruptionError):
            decode_delta(candidate)


@given(st.data())
@settings(max_examples=400)
def test_forged_files_with_a_right_checksum_decode_or_are_corruption(data: st.DataObject) -> None:
    """A checksum does not protect against a writer with a bug: the parser has to stand on its own."""
    body = bytearray(encode([block_of({b"\0\1a": b"1", b"\0\1b": None}), block_of({b"\0\2c": b"x" * 30})], b"queues")[:-16])
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(body) - 1))
        body[position] = data.draw(st.integers(0, 255))
    try:
        stored = decode_delta(bytes(body) + digest_of(bytes(body)))
    except CorruptionError:
        return
    assert isinstance(stored, StoredDelta)
    for block in stored.blocks:
        assert block.keys == sorted(set(block.keys))
        assert len(block.keys) == len(block.values)


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (cbor2.CBORTag(35, "("), "not CBOR"),  # a regular expression that does not compile
        (cbor2.CBORTag(30, [1, 0]), "not CBOR"),  # a fraction with denominator 0
        ([[b"b", b"a"], [b"", b""]], "out of order"),
        ([[b"a", b"b"], [b"", 1]], "not bytes"),
        ([["a", "b"], [b"", b""]], "does not hold 2"),
        ([[b"a"], [b""]], "does not hold 2"),
        ({}, "not \\[keys, values\\]"),
        ([[b"zz", b"zzz"], [b"", b""]], "other slots"),
    ],
)
def test_forged_blocks_are_corruption(monkeypatch: pytest.MonkeyPatch, item: Any, says: str) -> None:
    dumps = cbor2.dumps
    good = [[b"a", b"b"], [b"", b""]]
    monkeypatch.setattr(delta_module.cbor2, "dumps", lambda plain: dumps(item if plain == good else plain))
    raw = encode([RecordBlock(good[0], [b"", b""])])
    with pytest.raises(CorruptionError, match=says):
        decode_delta(raw)


def test_a_forged_length_takes_no_memory() -> None:
    raw = encode([block_of({b"\0\1a": b"1"})])
    for position in (14, 10, len(raw) - 24):
        body = bytearray(raw[:-16])
        body[position : position + 4] = struct.pack(">I", 0x7FFFFFFF)
        tracemalloc.start()
        with pytest.raises(CorruptionError):
            decode_delta(bytes(body) + digest_of(bytes(body)))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 10 << 20


def test_a_checkpoint_cannot_build_on_a_later_one() -> None:
    raw = encode([], header=DeltaHeader("ab" * 16, 1, 4, (0, 1), 3, 5, 5, b""))
    with pytest.raises(CorruptionError, match="cannot build on"):
        decode_delta(raw)


def test_big_deltas_are_never_in_memory_twice(tmp_path: Path) -> None:
    value = os.urandom(10_000)
    blocks = [block_of({b"%03d%06d" % (part, i): value for i in range(200)}) for part in range(20)]  # 40 MB in the file
    path = tmp_path / "delta"
    tracemalloc.start()
    with path.open("wb") as file:
        encode_delta(HEADER, blocks, b"", lambda piece: file.write(piece) and None)
    read = sum(len(block.keys) for block in DeltaReader(path).blocks())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read == 4000
    assert path.stat().st_size > 40_000_000
    assert peak < 12 << 20
