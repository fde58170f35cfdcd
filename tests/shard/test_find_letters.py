"""Dead letters are looked for in bounded answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cbor2
import pytest

from shardfun.errors import CorruptionError
from shardfun.model.control import CONTROL_BYTES_MAX, Letters
from shardfun.model.letters import SHOWN_BYTES_MAX, LetterName, name_of_key
from shardfun.shard.letters import FOUND_BYTES_MAX, LISTED_CHARACTERS, find_letters


class Store:
    def __init__(self, *letters: tuple[int, dict[str, Any]]) -> None:
        self.pairs = []
        for number, changes in letters:
            content = {"target": ["test/a", "1"], "payload": 1, "traceback": "t", "reason": "r" * 1000} | changes
            key = (number % 7).to_bytes(2, "big") + b"d" + LetterName(5, number, 0).encode()
            self.pairs.append((key, cbor2.dumps(content)))

    def scan_kind(self, kind: bytes, slots: tuple[int, int]) -> Iterator[tuple[bytes, bytes]]:
        assert (kind, slots) == (b"d", (0, 7))
        return iter(sorted(self.pairs))


def look(
    store: Store, action: Any = "list", keys: list[bytes] | None = None, typename: str | None = None, limit: int = 10
) -> Any:
    found, total = find_letters(store, (0, 7), Letters(1, 1, action, keys or [], typename, limit))
    return [(name_of_key(key).number, cbor2.loads(raw)) for key, raw in found], total


def test_the_newest_first_without_what_a_list_does_not_show() -> None:
    found, total = look(Store(*[(number, {}) for number in range(1, 51)]), limit=3)
    assert ([number for number, _ in found], total) == ([50, 49, 48], 50)
    assert all((letter["payload"], letter["traceback"]) == (None, "") for _, letter in found)
    assert all(len(letter["reason"]) == LISTED_CHARACTERS for _, letter in found)


def test_by_name_and_by_type() -> None:
    store = Store(*[(number, {"target": [f"test/{'ab'[number % 2]}", "1"]}) for number in range(1, 21)])
    found, total = look(store, "show", [LetterName(5, 3, 0).encode(), LetterName(5, 99, 0).encode()])
    assert ([number for number, _ in found], total) == ([3], 1)
    assert found[0][1]["traceback"] == "t"
    found, total = look(store, typename="test/a", limit=2)
    assert ([number for number, _ in found], total) == ([20, 18], 10)


def test_an_answer_fits_a_control_message() -> None:
    assert FOUND_BYTES_MAX + SHOWN_BYTES_MAX < CONTROL_BYTES_MAX
    large = {"payload": "x" * (SHOWN_BYTES_MAX - 2000)}
    found, total = look(Store(*[(number, large) for number in range(1, 21)]), "show", limit=20)
    assert total == 20
    assert 0 < len(found) < 7


def test_what_is_too_long_is_said_to_be() -> None:
    ((_, letter),), _ = look(Store((1, {"payload": "x" * (SHOWN_BYTES_MAX + 1)})), "show")
    assert letter["payload"].endswith("bytes: too long to show while the node runs>")
    assert letter["traceback"] == "t"


def test_damage_is_told() -> None:
    store = Store((1, {}))
    store.pairs[0] = (store.pairs[0][0], b"\xff")
    with pytest.raises(CorruptionError, match="a dead letter is damaged"):
        look(store)
