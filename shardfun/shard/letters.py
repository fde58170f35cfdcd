"""Finds dead letters in the store of a shard, in the storage's thread, and only so many that the answer fits a control message."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any, Protocol

import cbor2

from shardfun.core.function import DEAD_LETTER_KIND
from shardfun.model.control import Letters
from shardfun.model.letters import SHOWN_BYTES_MAX, decoded, is_for_type

FOUND_BYTES_MAX = 6 << 20
LISTED_CHARACTERS = 300  # of a reason, in a list


class KindStore(Protocol):
    """What is needed of the store."""

    def scan_kind(self, kind: bytes, slots: tuple[int, int]) -> Iterator[tuple[bytes, bytes]]:
        """The keys of one kind in a range of slots, and their values."""


def find_letters(store: KindStore, slots: tuple[int, int], question: Letters) -> tuple[list[tuple[bytes, bytes]], int]:
    """The newest letters that fit the question, as they can be sent: key and content; and how many fit.

    Args:
        slots: the shard's.

    Raises:
        StorageError: the store cannot be read.
        CorruptionError: a letter is damaged.
    """
    wanted = frozenset(question.keys)
    newest: list[tuple[bytes, bytes, bytes]] = []  # a heap of the newest: name, key, content
    total = 0
    for key, raw in store.scan_kind(DEAD_LETTER_KIND, slots):
        name = key[3:]
        if wanted and name not in wanted:
            continue
        if question.typename is not None and not is_for_type(raw, question.typename):
            continue
        total += 1
        item = (name, key, _short(raw, question.action))
        if len(newest) < question.limit:
            heapq.heappush(newest, item)
        else:
            heapq.heappushpop(newest, item)
    found: list[tuple[bytes, bytes]] = []
    size = 0
    for _, key, raw in sorted(newest, reverse=True):
        size += len(raw)
        if size > FOUND_BYTES_MAX:
            break
        found.append((key, raw))
    return found, total


def _short(raw: bytes, action: str) -> bytes:
    """A letter without what would not be shown; the whole stays in the store."""
    if action == "show" and len(raw) <= SHOWN_BYTES_MAX:
        return raw
    letter: dict[str, Any] = decoded(raw, "a dead letter")
    if action != "show":
        letter["payload"] = None
        letter["traceback"] = ""
        letter["reason"] = f"{letter['reason']:.{LISTED_CHARACTERS}}"
    else:
        letter["payload"] = f"<{len(raw)} bytes: too long to show while the node runs>"
    return cbor2.dumps(letter)
