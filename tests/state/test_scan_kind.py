"""Keys of one kind are found by seeks, whatever lies between them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardfun.model.delta import RecordBlock
from shardfun.state import leveldb
from shardfun.state.leveldb import Database
from shardfun.state.options import StoreOptions

KEYS = st.sets(st.tuples(st.integers(0, 40) | st.just(0x7FFF), st.sampled_from("bdms"), st.binary(max_size=3)), max_size=60)
NOTHING = RecordBlock([], [])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(KEYS, st.integers(0, 42), st.sampled_from([5, 41, 0x8000]), st.sampled_from([(1, 1), (3, 2), (256, 100)]))
def test_the_same_as_looking_at_every_key(
    tmp_path_factory: pytest.TempPathFactory, keys: set[tuple[int, str, bytes]], first: int, end: int, sizes: tuple[int, int]
) -> None:
    stored = [*sorted(slot.to_bytes(2, "big") + kind.encode() + rest for slot, kind, rest in keys), b"\xff\xffmark"]
    database = Database(tmp_path_factory.mktemp("db"), StoreOptions())
    database.open(paranoid=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leveldb, "SCAN_RECORDS", sizes[0])
        patch.setattr(leveldb, "SCAN_SEEKS", sizes[1])
        database.write([RecordBlock(stored, [key[::-1] for key in stored])], each=NOTHING, last=NOTHING)
        found = list(database.scan_kind(b"d", first, end))
    database.close()
    expected = [key for key in stored if first <= int.from_bytes(key[:2], "big") < end and key[2:3] == b"d"]
    assert found == [(key, key[::-1]) for key in expected]


def test_an_empty_store(tmp_path: Path) -> None:
    database = Database(tmp_path / "db", StoreOptions())
    database.open(paranoid=True)
    assert list(database.scan_kind(b"d", 0, 0x8000)) == []
    database.close()
