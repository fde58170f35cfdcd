"""What a process of a node imports before it can serve: nothing that only terminals need, and nothing twice as slow as it has to be."""

from __future__ import annotations

import subprocess
import sys

import pytest


def imported(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("process", "slow"), [("shard", ("rich", "pygments", "importlib.metadata", "email")), ("door", ("rich", "pygments"))]
)
def test_what_takes_long_is_not_imported(process: str, slow: tuple[str, ...]) -> None:
    found = imported(f"import shardfun.{process}.__main__")
    assert "structlog.dev" in found
    assert [name for name in slow if name in found] == []


def test_an_application_that_wants_rich_gets_it() -> None:
    assert "rich.console" in imported("import shardfun.shard.__main__\nimport rich.console\nassert rich.console.Console()")


def test_where_rich_is_already_structlog_takes_it() -> None:
    assert "structlog" not in imported(
        "import rich\nfrom shardfun.telemetry import structlog_alone\nassert rich.__name__ == 'rich'"
    )
