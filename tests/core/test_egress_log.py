"""Egress numbering: nothing of an incomplete checkpoint may go out, and nothing is lost or doubled."""

from __future__ import annotations

import pytest

from shardfun.core.egress import EgressLog
from shardfun.model.doors import PublishedPosition


def rows(*records: bytes) -> list[tuple[None, str, None, bytes]]:
    return [(None, "", None, record) for record in records]


def test_only_records_of_complete_checkpoints_go_out() -> None:
    log = EgressLog(PublishedPosition(0, 0), [])
    log.add(rows(b"a", b"bb"))
    cut = log.emitted
    log.add(rows(b"ccc"))
    assert log.publishable(10) == []
    log.commit(cut)
    assert log.publishable(10) == [b"a", b"bb"]
    assert log.publishable(1) == [b"a"]
    log.note_published(2)
    assert log.published == PublishedPosition(2, 3)
    assert log.publishable(10) == []
    assert (log.pending, log.pending_bytes, log.emitted) == ([b"ccc"], 3, 3)
    with pytest.raises(AssertionError, match="incomplete checkpoint"):
        log.note_published(1)


def test_what_a_checkpoint_restores_is_complete() -> None:
    log = EgressLog(PublishedPosition(5, 50), [b"x", b"y"])
    assert log.emitted == 7
    assert log.publishable(10) == [b"x", b"y"]


def test_an_older_checkpoint_takes_nothing_back() -> None:
    log = EgressLog(PublishedPosition(0, 0), [])
    log.add(rows(b"a", b"b"))
    log.commit(2)
    log.commit(1)
    assert log.publishable(10) == [b"a", b"b"]


def test_a_snapshot_does_not_change() -> None:
    log = EgressLog(PublishedPosition(1, 2), [b"x"])
    snapshot = log.snapshot()
    log.note_published(1)
    log.add(rows(b"z"))
    assert snapshot == [1, 2, [b"x"]]
