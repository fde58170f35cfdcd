"""Slots are part of the stored format: the golden values may never change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfun.model.keyspace import SLOTS, owner_of, owner_of_slot, slot_of, slot_range


@pytest.mark.parametrize(
    ("id", "slot"),
    [
        ("0", 24353),
        ("a", 15939),
        ("user-42", 14451),
        ("Zürich", 10558),
        ("a\0b", 30833),
        ("日本", 19916),
        ("00000000-0000-0000-0000-000000000000", 23177),
    ],
)
def test_golden_slots(id: str, slot: int) -> None:
    assert slot_of(id) == slot


@pytest.mark.parametrize("shards", range(1, 65))
def test_ranges_cover_all_slots_and_agree_with_the_owner(shards: int) -> None:
    end = 0
    for shard in range(shards):
        first, after = slot_range(shard, shards)
        assert first == end
        assert owner_of_slot(first, shards) == owner_of_slot(after - 1, shards) == shard
        end = after
    assert end == SLOTS
    sizes = [after - first for first, after in (slot_range(shard, shards) for shard in range(shards))]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("shards", [1, 2, 3, 7, 64])
def test_range_is_exactly_the_owned_slots(shards: int) -> None:
    owned: dict[int, list[int]] = {}
    for slot in range(SLOTS):
        owned.setdefault(owner_of_slot(slot, shards), []).append(slot)
    assert {shard: (slots[0], slots[-1] + 1) for shard, slots in owned.items()} == {
        shard: slot_range(shard, shards) for shard in range(shards)
    }


@given(st.text(min_size=1), st.integers(1, 64))
def test_the_owner_depends_on_the_id_alone(id: str, shards: int) -> None:
    first, after = slot_range(owner_of(id, shards), shards)
    assert first <= slot_of(id) < after


def test_decimal_ids_spread_evenly() -> None:
    counts = [0] * 8
    for number in range(8000):
        counts[owner_of(str(number), 8)] += 1
    assert 850 < min(counts) <= max(counts) < 1150
