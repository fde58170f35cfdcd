"""Options of the whole test suite."""

from __future__ import annotations

import hypothesis
import pytest

hypothesis.settings.register_profile("shardfun", deadline=None)  # machines are shared, and what is slow for once is no mistake
hypothesis.settings.load_profile("shardfun")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the tests that take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    for item in items:
        if item.get_closest_marker("long") is not None:
            item.add_marker(pytest.mark.skip(reason="takes minutes: only with --long"))
