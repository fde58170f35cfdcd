"""Follow docs/HTTP.md: its application is run, its commands are typed, what comes is compared; its tables are those of the code."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_tutorial import blocks_of, typed_in

from shardfun.door.reference import problem_table, route_table

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "HTTP.md").read_text(encoding="utf-8")
PORT = "8484"
READY_S = 60.0


def test_tables_are_those_of_the_code() -> None:
    assert route_table() in PAGE, "python -m shardfun.door.reference prints it"
    assert problem_table() in PAGE, "python -m shardfun.door.reference prints it"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The page's node, on a port that is free; the port."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = str(found.getsockname()[1])
    for block in blocks_of(PAGE):
        if block.file is not None:
            (tmp_path / block.file).write_text(block.body.replace(PORT, port))
    environment = {name: text for name, text in os.environ.items() if not name.startswith("SHARDFUN_")}
    node = subprocess.Popen(
        [sys.executable, "-m", "shardfun", "run", "cart.toml"],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + READY_S
    while not _ready(port):
        assert node.poll() is None, node.communicate()[1]
        assert time.monotonic() < deadline, "the node is not ready"
        time.sleep(0.1)
    yield port
    node.send_signal(signal.SIGTERM)
    _, errors = node.communicate(timeout=60)
    assert node.returncode == 0, errors


def _ready(port: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _fits(shown: str, came: str) -> bool:
    return re.fullmatch(".*?".join(map(re.escape, shown.strip().split("..."))), came.strip(), re.DOTALL) is not None


def test_its_commands_show_what_it_shows(served: str) -> None:
    typed = [one for block in blocks_of(PAGE) if block.info == "console" for one in typed_in(block.body)]
    assert len(typed) >= 10
    for one in typed:
        done = subprocess.run(
            ["bash", "-c", one.command.replace(PORT, served)], check=False, capture_output=True, text=True, timeout=60
        )
        assert _fits(one.shown, done.stdout), f"$ {one.command}\n{done.stdout}{done.stderr}\nexpected:\n{one.shown}"
