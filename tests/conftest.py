"""The whole test suite: its options, its worker processes, and the rule that no module leaves anything behind."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog
from remains import MARK, Remains

WORKERS_PER_CORE = 2
"""Half of the suite waits: for processes to start, for heartbeats, for files to be synced."""
WORKERS_MAX = 16

COMPILED = pytest.StashKey[str]()

# Machines are shared, and what is slow for once is no mistake. Few examples find what is broken; many find what is rare.
hypothesis.settings.register_profile("short", deadline=None, max_examples=50)
hypothesis.settings.register_profile("long", deadline=None, max_examples=500)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long", action="store_true", help="also run the tests that take minutes, and more examples of the others"
    )


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile("long" if config.getoption("--long") else "short")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts what it puts into the background like this, and whatever tests start would be deaf to Ctrl-C, too.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", "") and "PYTHONPYCACHEPREFIX" not in os.environ:
        # Half of the start of a node would be compiling. Workers of pytest-xdist inherit this, and so does what tests start.
        compiled = tempfile.mkdtemp(prefix="compiled-")
        config.stash[COMPILED] = os.environ["PYTHONPYCACHEPREFIX"] = compiled


def pytest_unconfigure(config: pytest.Config) -> None:
    if compiled := config.stash.get(COMPILED, ""):
        shutil.rmtree(compiled, ignore_errors=True)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """What ``-n auto`` means."""
    return min(WORKERS_PER_CORE * (os.cpu_count() or 1), WORKERS_MAX)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    for item in items:
        if item.get_closest_marker("long") is not None:
            item.add_marker(pytest.mark.skip(reason="takes minutes: only with --long"))


@pytest.fixture(autouse=True)
def _logs_stay_as_they_are() -> Iterator[None]:
    """A command that runs inside a test sets the logs up for its process; the next test begins without that."""
    configured, config = structlog.is_configured(), structlog.get_config()
    root = logging.getLogger()
    level, handlers = root.level, [*root.handlers]
    yield
    structlog.reset_defaults()
    if configured:
        structlog.configure(**config)
    root.setLevel(level)
    for handler in [handler for handler in root.handlers if handler not in handlers and "shardfun" in type(handler).__module__]:
        root.removeHandler(handler)


@pytest.fixture(scope="module", autouse=True)
def _nothing_remains(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """At the end of a module, after all its fixtures, no process of its tests lives and nothing is in the temporary folder."""
    tmp_path_factory.getbasetemp()  # is not in the folder that is looked at
    remains = Remains(Path(tempfile.mkdtemp(prefix="s")))  # short: sockets are in it
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(remains.folder))
        patch.setattr(tempfile, "tempdir", None)
        patch.setenv(MARK, remains.mark)
        yield
    remains.check(request.node.nodeid)
