"""What a node leaves, and how it has ended, is told apart from what somebody else did."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfun.chaos.node import Node, NodeFailedError, NodeFinishedError
from shardfun.chaos.plan import Plan
from shardfun.chaos.report import Report
from shardfun.chaos.run import Chaos
from shardfun.errors import InconclusiveError

WAIT_S = 30.0


class Ends(Node):
    """Nothing but a process with an exit code, or one that waits to be killed."""

    code: int | None = 0

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-c", "import time; time.sleep(600)" if self.code is None else f"raise SystemExit({self.code})"]

    def start(self) -> None:
        self.process = subprocess.Popen(self.command)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Ends]:
    made = Ends(tmp_path, "")
    yield made
    made.kill()
    made.close()


def chaos_of(node: Node) -> Chaos:
    return Chaos(node, Report("app", 1, Plan(0, ())), end_s=WAIT_S)


def test_only_a_supervisor_that_was_killed_is_started_again(node: Ends) -> None:
    """One that ends by itself at the same moment is what is looked for, or has come to its end."""
    chaos = chaos_of(node)
    node.code = 70
    node.start()
    with pytest.raises(NodeFailedError, match="by itself, with exit code 70"):
        chaos._start_again()
    node.code = 0
    node.start()
    with pytest.raises(NodeFinishedError):
        chaos._start_again()
    node.code = None
    node.start()
    node.kill()
    first = node.process
    chaos._start_again()
    assert node.process is not first
    assert not node.ended


def test_a_run_that_fails_says_how_long_it_took(node: Ends) -> None:
    node.code = 70
    chaos = chaos_of(node)
    with pytest.raises(NodeFailedError):
        chaos.run()
    assert chaos._report.duration_s > 0.0
    node.code = 0
    with pytest.raises(InconclusiveError):
        chaos.run()


def test_what_functions_leave_is_not_the_nodes(tmp_path: Path) -> None:
    node = Node(tmp_path, "")
    functions = [sys.executable, "-c", "input()"]  # until its input ends
    shard = [sys.executable, "-m", "shardfun.shard"]
    started = []
    try:
        (node.temporary / "tmp-of-a-function").mkdir()
        started.append(subprocess.Popen(functions, env=node._environment, stdin=subprocess.PIPE))
        assert len(node.leftovers()) == 2
        assert node.leftovers(strict=False) == []
        (node.temporary / "shardfun-0123").mkdir()
        started.append(subprocess.Popen(shard, env=node._environment, stdin=subprocess.PIPE))
        deadline = time.monotonic() + WAIT_S
        while len(node.leftovers(strict=False)) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)  # its environment is to be seen a moment later
        assert node.leftovers(strict=False) == [f"process {started[1].pid}", str(node.temporary / "shardfun-0123")]
    finally:
        node.close()
        for process in started:
            process.communicate()
