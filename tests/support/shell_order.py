"""The order in which Trio runs tasks, drawn from a seed. The only place that knows how Trio does it: none of this is public.

Trio shuffles the tasks that are ready, so that nobody relies on their order. It sorts them first, and shuffles with a generator of its
own, if a switch is set that is meant for Hypothesis.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import trio
from trio._core import _run as private
from trio.testing import MockClock

T = TypeVar("T")


@contextmanager
def seeded_order(seed: int) -> Iterator[None]:
    """Within it, each run of Trio that does the same does it in the same order."""
    assert private._r.__class__.__name__ == "Random"
    switch, state = private._ALLOW_DETERMINISTIC_SCHEDULING, private._r.getstate()
    private._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    private._r.seed(seed)
    try:
        yield
    finally:
        private._ALLOW_DETERMINISTIC_SCHEDULING = switch  # type: ignore[misc]
        private._r.setstate(state)


def run_virtually(seed: int, main: Callable[[], Awaitable[T]]) -> T:
    """Run a program in virtual time, in the order of a seed. Time jumps when all tasks wait; there may be no threads."""
    with seeded_order(seed):
        return trio.run(main, clock=MockClock(autojump_threshold=0))
