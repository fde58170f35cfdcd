"""Fixtures for pytest: ``function_test`` and ``local_node`` make what their namesakes are, and close it after the test.

The option ``--shardfun-seed`` says under which seed: a number, or ``random`` for a new one in each session. It is shown when a
test that used one of the fixtures fails, so that the same order of events can be repeated.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from shardfun.sdk.app import App
    from shardfun.testing.function_test import FunctionTest
    from shardfun.testing.local_node import LocalNode

SEED_BITS = 32
FIXTURES = ("function_test", "local_node")

_seed_key = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--shardfun-seed``."""
    group = parser.getgroup("shardfun", "tests of shardfun applications")
    group.addoption(
        "--shardfun-seed",
        default="0",
        type=_seed_of,
        metavar="SEED",
        help="order of events and randomness in local nodes: a number, or 'random'; default 0",
    )


def _seed_of(text: str) -> int:
    if text == "random":
        return random.SystemRandom().getrandbits(SEED_BITS)
    if not text.isdigit():
        msg = f"expected a number from 0, or 'random', got {text!r}"
        raise pytest.UsageError(msg)
    return int(text)


def pytest_configure(config: pytest.Config) -> None:
    """Remember the seed of this session."""
    config.stash[_seed_key] = config.getoption("--shardfun-seed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the seed when a test fails."""
    report = yield
    if report.failed and any(name in FIXTURES for name in getattr(item, "fixturenames", ())):
        seed = item.config.stash[_seed_key]
        report.sections.append(("shardfun", f"seed {seed}; repeat with --shardfun-seed {seed}"))
    return report


@pytest.fixture
def shardfun_seed(pytestconfig: pytest.Config) -> int:
    """The seed of ``--shardfun-seed``."""
    return pytestconfig.stash[_seed_key]


@pytest.fixture
def function_test(shardfun_seed: int) -> Iterator[Callable[..., FunctionTest]]:
    """Make a ``FunctionTest``: ``function_test(app, "shop/cart", state={"items": 2})``."""
    from shardfun.testing.function_test import FunctionTest

    with ExitStack() as opened:

        def make(app: App, typename: str, id: str = "test", **options: Any) -> FunctionTest:
            return opened.enter_context(FunctionTest(app, typename, id, **{"seed": shardfun_seed, **options}))

        yield make


@pytest.fixture
def local_node(shardfun_seed: int) -> Iterator[Callable[..., LocalNode]]:
    """Make a ``LocalNode``: ``local_node(app, shards=3)``."""
    from shardfun.testing.local_node import LocalNode

    with ExitStack() as opened:

        def make(app: App, **options: Any) -> LocalNode:
            return opened.enter_context(LocalNode(app, **{"seed": shardfun_seed, **options}))

        yield make
