from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import embedding_apps
import pytest
from leftovers import Leftovers

from shardfun import BlockingSupervisor


@pytest.fixture(scope="session")
def warmed_up() -> None:
    """What is opened once in a process (nng's own threads and descriptors) is open now."""
    with BlockingSupervisor(embedding_apps.app, shards=1, **embedding_apps.FAST) as node:
        node.send(embedding_apps.COUNTER, "a", embedding_apps.Add(1))


@pytest.fixture
def leftovers(warmed_up: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Leftovers]:
    """Nothing may be left at the end of a test; a test may look earlier."""
    temporary = Path(tempfile.mkdtemp(prefix="sfe"))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    before, found = Leftovers(temporary), Leftovers(temporary)
    yield found
    try:
        before.check()
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
