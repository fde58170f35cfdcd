"""Keys are found by jumping, in a snapshot."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardfun.errors import StorageError
from shardfun.model.delta import RecordBlock
from shardfun.state.leveldb import Database
from shardfun.state.options import StoreOptions

NOTHING = RecordBlock([], [])
KEYS = st.binary(min_size=1, max_size=3)


def opened(path: Path, keys: set[bytes]) -> Database:
    database = Database(path, StoreOptions())
    database.open(paranoid=True)
    database.write([RecordBlock(sorted(keys), [b"v"] * len(keys))], each=NOTHING, last=NOTHING)
    return database


@settings(deadline=None, max_examples=40)
@given(st.sets(KEYS, max_size=30), st.lists(KEYS, max_size=20), KEYS)
def test_the_first_key_from_a_given_one_on(
    tmp_path_factory: pytest.TempPathFactory, keys: set[bytes], asked: list[bytes], stop: bytes
) -> None:
    database = opened(tmp_path_factory.mktemp("db"), keys)
    seek = database.seeker(stop)
    database.write([RecordBlock([b"\0"], [b"later"])], each=NOTHING, last=NOTHING)
    for key in asked:
        assert seek(key) == min((each for each in keys if key <= each < stop), default=None)
    database.close()


def test_a_store_that_was_opened_again_fails_instead_of_crashing(tmp_path: Path) -> None:
    database = opened(tmp_path, {b"a"})
    seek = database.seeker(b"z")
    assert seek(b"") == b"a"
    database.open(paranoid=True)
    with pytest.raises(StorageError, match="opened again"):
        seek(b"")
    database.close()
    with pytest.raises(StorageError, match="is closed"):
        database.seeker(b"z")
