"""What differs between two runs is found, counted and shown; what may differ is not."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfun.chaos.published import compare_published, read_lines
from shardfun.chaos.stored import StoredWorld, _add_timer, compare_worlds
from shardfun.core.timer_index import TIMER_PREFIX
from shardfun.errors import CorruptionError

RECORDS = [{"id": f"k{number % 3}", "n": number} for number in range(12)]


def publish(folder: Path, *partitions: list[Any], egress: str = "sums") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, records in enumerate(partitions):
        (folder / f"{egress}-{number}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


@pytest.fixture
def calm(tmp_path: Path) -> Path:
    return publish(tmp_path / "calm", RECORDS)


def differences(calm: Path, *partitions: list[Any], order: dict[str, str] | None = None) -> list[str]:
    return compare_published(calm, publish(calm.parent / "chaos", *partitions), ["sums"], order)


def test_other_partitions_and_another_order_are_no_difference(calm: Path) -> None:
    assert differences(calm, RECORDS[7:], RECORDS[:7]) == []


def test_a_missing_record_and_one_too_many_are_counted_and_shown(calm: Path) -> None:
    assert differences(calm, RECORDS[1:]) == [
        "egress sums: of 12 records 1 missing",
        'egress sums: missing: {"id": "k0", "n": 0}',
    ]
    twice = differences(calm, [*RECORDS, RECORDS[4]])
    assert twice == [
        "egress sums: of 12 records 1 too many",
        'egress sums: too many: {"id": "k1", "n": 4} (there 2 times instead of 1)',
    ]


def test_a_changed_record_is_shown_beside_what_it_should_be(calm: Path) -> None:
    changed = [*RECORDS[:-1], {"id": "k2", "n": 99}]
    assert differences(calm, changed)[1] == 'egress sums: n: expected 11, got 99 in the record with {"id": "k2"}'


def test_order_counts_within_a_key_if_asked_for(calm: Path) -> None:
    other_keys = sorted(RECORDS, key=lambda record: record["id"])
    assert differences(calm, other_keys, order={"sums": "id"}) == []
    swapped = [RECORDS[3], *RECORDS[:3], *RECORDS[4:]]
    assert differences(calm, swapped) == []
    assert differences(calm, swapped, order={"sums": "id"}) == ['egress sums: the 4 records with id "k0" are in another order']
    assert differences(calm, swapped, order={"sums": "no"}) == [
        "egress sums: expected a field 'no' in every record, to compare their order"
    ]


def test_damaged_lines_are_differences(calm: Path) -> None:
    chaos = publish(calm.parent / "chaos", RECORDS)
    with (chaos / "sums-0.jsonl").open("a") as file:
        file.write("{torn\n" + '{"cut": "off"}')
    found = compare_published(calm, chaos, ["sums"])
    assert found == [
        "egress sums: sums-0.jsonl, line 13 is no record: b'{torn\\n'",
        'egress sums: sums-0.jsonl, line 14 is cut off: b\'{"cut": "off"}\'',
    ]


def test_files_of_another_egress_are_not_taken(tmp_path: Path) -> None:
    publish(tmp_path, [1], egress="sums")
    publish(tmp_path, [2], egress="sums-of-all")
    assert read_lines(tmp_path, "sums") == ([1], [])


@given(
    st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 3), max_size=3), max_size=12),
    st.randoms(use_true_random=False),
)
def test_any_change_is_found(tmp_path_factory: pytest.TempPathFactory, records: list[Any], chance: random.Random) -> None:
    folder = tmp_path_factory.mktemp("any")
    other = list(records)
    chance.shuffle(other)
    calm, same = publish(folder / "calm", records), publish(folder / "same", other)
    assert compare_published(calm, same, ["sums"]) == []
    if other and chance.random() < 0.5:
        del other[chance.randrange(len(other))]
    else:
        other.insert(chance.randint(0, len(other)), {"a": chance.randint(0, 3)})
    assert compare_published(calm, publish(folder / "chaos", other), ["sums"])


def test_timers_with_other_payloads_or_tokens_differ() -> None:
    def pending(token: str | None, payload: object, payload_type: str = "dict") -> StoredWorld:
        raw = cbor2.dumps([token, "shop/a", "1", "shop/b", "2", payload_type, payload])
        world = StoredWorld()
        _add_timer(world, TIMER_PREFIX + b"\x00" * 30, raw)
        return world

    calm = pending("t", cbor2.dumps({"b": 1, "a": 2}))
    assert compare_worlds(calm, pending("t", cbor2.dumps({"a": 2, "b": 1}))) == []
    for other in (pending("u", cbor2.dumps({"a": 2, "b": 1})), pending("t", cbor2.dumps({"a": 2, "b": 3}))):
        assert [text.partition(":")[0] for text in compare_worlds(calm, other)] == [
            "pending timer missing",
            "pending timer too many",
        ]
    assert compare_worlds(pending(None, b"x", "bytes"), pending(None, b"y", "bytes"))
    with pytest.raises(CorruptionError, match="the payload of a timer is damaged"):
        pending(None, b"\xff")


def test_worlds() -> None:
    calm = StoredWorld({"a/b:1": {"n": "1", "m": "2"}, "a/b:2": {"n": "5"}}, Counter(x=2), Counter(t=1), Counter())
    chaos = StoredWorld({"a/b:1": {"n": "3", "m": "2"}, "a/b:3": {"n": "5"}}, Counter(x=3), Counter(), Counter(l=1))
    assert compare_worlds(calm, calm) == []
    assert compare_worlds(calm, chaos) == [
        "state of a/b:1: n: expected 1, got 3",
        "state of a/b:2: missing; expected n: 5",
        "state of a/b:3: expected none, got n: 5",
        "element of a buffer too many: x",
        "pending timer missing: t",
        "dead letter too many: l",
    ]
