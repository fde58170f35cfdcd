"""Every decoder, with bytes that nobody meant for it: a value or its documented error, and nothing else."""

from __future__ import annotations

import gc
import os
import tracemalloc

import pytest
from fuzz_mutations import hostile, mutations
from fuzz_registry import Refused, Target, all_targets, outcome, round_trip, seeds_of
from fuzz_regressions import regressions
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("SHARDFUN_FUZZ_EXAMPLES", "40"))
LONG_EXAMPLES = 3000
PEAK_BYTES_MAX = 24 << 20
"""For one hostile input, of at most some tens of kilobytes."""

NAMES = sorted(all_targets())


@pytest.fixture(params=NAMES)
def target(request: pytest.FixtureRequest) -> Target:
    return all_targets()[request.param]


def test_valid_inputs_are_read_and_written_as_they_were(target: Target) -> None:
    for seed in seeds_of(target.name):
        round_trip(target, seed)
    assert any(not isinstance(outcome(target, seed), Refused) for seed in seeds_of(target.name)), "no seed is a valid input"


def test_arbitrary_and_mutated_inputs(target: Target) -> None:
    _search(target, EXAMPLES)


@pytest.mark.long
def test_many_arbitrary_and_mutated_inputs(target: Target) -> None:
    _search(target, LONG_EXAMPLES)


def _search(target: Target, examples: int) -> None:
    wrong = st.binary(max_size=200) | mutations(seeds_of(target.name), target.words)

    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(wrong)
    def search(data: bytes) -> None:
        round_trip(target, data)

    search()


def test_hostile_inputs_cost_little_memory_and_time(target: Target) -> None:
    for data in hostile():
        gc.collect(0)
        tracemalloc.start()
        try:
            outcome(target, data)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < PEAK_BYTES_MAX, f"{peak} bytes of memory for {len(data)} bytes: {data[:40]!r}"


@pytest.mark.parametrize("found", regressions(), ids=lambda found: f"{found.target}-{found.name}")
def test_inputs_that_once_were_found(found: object) -> None:
    from fuzz_regressions import Regression

    assert isinstance(found, Regression)
    round_trip(all_targets()[found.target], found.data)
