"""When a shard says that it has something for a checkpoint."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from shardfun.shard.news import SETTLE_S, News


def core_at(cut: int, *, changed: bool = True) -> Any:
    return SimpleNamespace(changed=changed, participant=SimpleNamespace(cut=cut))


def test_once_for_each_cut_when_it_has_settled() -> None:
    news, core = News(), core_at(1)
    assert not news.are_due(core, 10.0, urgent=False)
    assert news.due_at == 10.0 + SETTLE_S
    assert news.are_due(core, 10.0 + SETTLE_S, urgent=False)
    assert news.due_at is None
    assert not news.are_due(core, 11.0, urgent=False)
    core.participant.cut = 2
    assert not news.are_due(core, 11.0, urgent=False)
    assert news.are_due(core, 12.0, urgent=False)


def test_at_once_and_once_more_when_it_is_urgent() -> None:
    news, core = News(), core_at(1)
    assert news.are_due(core, 10.0, urgent=True)
    assert not news.are_due(core, 10.0, urgent=True)
    core.participant.cut = 2
    assert not news.are_due(core, 11.0, urgent=False)
    assert news.are_due(core, 12.0, urgent=False)
    assert news.are_due(core, 12.0, urgent=True)


def test_without_changes_nothing_is_due_and_nothing_wakes() -> None:
    news = News()
    assert not news.are_due(core_at(1), 10.0, urgent=False)
    assert not news.are_due(core_at(1, changed=False), 11.0, urgent=True)
    assert news.due_at is None
