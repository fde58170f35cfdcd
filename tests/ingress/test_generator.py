"""The generator: even, deterministic, and only resumed with the settings it had."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfun.errors import IngressError
from shardfun.ingress.generator import GeneratorIngress, GeneratorOptions
from shardfun.ports import Partition


def reader(options: GeneratorOptions, index: int = 0, count: int = 1) -> GeneratorIngress:
    return GeneratorIngress("events", options, Partition(index, count, lambda _: True))


def ids(options: GeneratorOptions, index: int = 0, count: int = 1) -> list[str]:
    source = reader(options, index, count)
    source.open(None)
    found: list[str] = []
    while batch := source.read(7, 0.0):
        found += batch.ids or []
    return found


@given(st.integers(1, 300), st.integers(0, 10), st.integers(1, 4))
def test_every_partition_goes_evenly_round_all_ids(distinct: int, seed: int, count: int) -> None:
    options = GeneratorOptions(count=2 * distinct * count, ids=distinct, seed=seed, prefix="p-")
    for index in range(count):
        found = Counter(ids(options, index, count))
        assert found == {f"p-{n}": 2 for n in range(distinct)}


def test_seeds_and_partitions_differ() -> None:
    options = GeneratorOptions(count=100, ids=1000)
    assert ids(options) == ids(options)
    assert ids(options) != ids(msgspec.structs.replace(options, seed=1))
    assert ids(options, 0, 2) != ids(options, 1, 2)


def test_the_count_is_shared() -> None:
    options = GeneratorOptions(count=10)
    assert [len(ids(options, index, 4)) for index in range(4)] == [3, 3, 2, 2]
    assert ids(GeneratorOptions(count=0)) == []


def test_the_rate_is_that_of_all_partitions() -> None:
    source = reader(GeneratorOptions(rate=100.0), 1, 4)
    source.open(None)
    assert source.read(1000, 0.0) is None
    batch = source.read(1000, 2.0)
    assert batch is not None
    assert batch.scanned == 50
    assert not source.finished


def test_a_limit_beyond_the_ids_goes_round_several_times() -> None:
    source = reader(GeneratorOptions(ids=3, value="v"))
    source.open(None)
    batch = source.read(10, 0.0)
    assert batch is not None
    assert batch.ids is not None
    assert batch.ids[:3] * 3 + batch.ids[:1] == batch.ids
    assert batch.values == ["v"] * 10


def test_changed_settings_are_refused_but_a_changed_rate_is_not() -> None:
    options = GeneratorOptions(count=10, rate=None)
    source = reader(options)
    source.open(None)
    batch = source.read(4, 0.0)
    assert batch is not None
    reader(msgspec.structs.replace(options, rate=5.0)).open(batch.position)
    with pytest.raises(IngressError, match="seed was 0 and is 9"):
        reader(msgspec.structs.replace(options, seed=9)).open(batch.position)
    with pytest.raises(IngressError, match="partitions was 1 and is 2"):
        reader(options, 0, 2).open(batch.position)
