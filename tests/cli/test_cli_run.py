"""``run`` starts, shows, obeys signals and sums up. The supervisor is a fake here; real ones run in the end-to-end tests."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

import msgspec
import pytest
import trio
from cli_samples import node_status, shardfun
from trio.testing import wait_all_tasks_blocked

from shardfun.cli import run as command
from shardfun.cli.progress import LineDisplay, NoDisplay
from shardfun.cli.run import RunningNode, run_node, summarize, summary_lines
from shardfun.config import Config
from shardfun.errors import EgressError
from shardfun.model.status import NodeStatus

APP = "shop.app:app"


class FakeNode:
    """Runs until it is told to end."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.end = trio.Event()
        self.outcome = "finished"
        self.failure: Exception | None = None

    async def run(self) -> NodeStatus:
        await self.end.wait()
        if self.failure is not None:
            raise self.failure
        return self.status()

    def status(self) -> NodeStatus:
        return node_status(state=self.outcome if self.end.is_set() else "running")

    def request_stop(self) -> None:
        self.calls.append("request_stop")

    def stop_now(self) -> None:
        self.calls.append("stop_now")
        self.outcome = "stopped"
        self.end.set()


async def _signalled(node: FakeNode, *numbers: int) -> None:
    for number in numbers:
        await wait_all_tasks_blocked(0.05)
        os.kill(os.getpid(), number)
    await wait_all_tasks_blocked(0.05)
    node.end.set()


async def _run(node: FakeNode, *numbers: int) -> command.Summary:
    checked: RunningNode = node
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_signalled, node, *numbers)
        return await run_node(checked, NoDisplay())
    raise AssertionError


async def test_a_node_that_finishes() -> None:
    summary = await _run(FakeNode())
    assert (summary.verdict, summary.stopped_now) == ("finished", False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_first_signal_asks_for_a_stop_at_a_checkpoint(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    node = FakeNode()
    node.outcome = "stopped"
    summary = await _run(node, number)
    assert node.calls == ["request_stop"]
    assert (summary.verdict, summary.stopped_now) == ("stopped", False)
    assert capsys.readouterr().err == "stopping at a checkpoint... (Ctrl-C again: stop now)\n"


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
async def test_ctrl_c_after_that_stops_now(first: int) -> None:
    node = FakeNode()
    summary = await _run(node, first, signal.SIGINT)
    assert node.calls == ["request_stop", "stop_now"]
    assert summary.stopped_now


async def test_a_repeated_sigterm_changes_nothing() -> None:
    node = FakeNode()
    node.outcome = "stopped"
    await _run(node, signal.SIGTERM, signal.SIGTERM)
    assert node.calls == ["request_stop"]


async def test_a_failure_comes_out() -> None:
    node = FakeNode()
    node.failure = EgressError("the disk is full")
    with pytest.RaisesGroup(EgressError, flatten_subgroups=True):
        await _run(node)


async def test_progress_is_shown_while_it_runs(autojump_clock: object) -> None:
    node, lines = FakeNode(), list[str]()
    async with trio.open_nursery() as nursery:

        async def end_later() -> None:
            await trio.sleep(12)
            node.end.set()

        nursery.start_soon(end_later)
        await run_node(node, LineDisplay(lines.append))
    assert [line.split("  ")[0] for line in lines] == ["shop running", "shop running", "shop finished"]


# ---- the summary ---------------------------------------------------------------------------------------------------------
def test_summary_of_a_run_with_trouble() -> None:
    status = node_status(state="stopped", recoveries=1, last_recovery_ms=93.0, dead_letters=3)
    lines = summary_lines(summarize(status, stopped_now=False), Path("conf/my shop.toml"))
    assert lines == [
        "shop stopped after 1 min 15 s",
        "  records in    500",
        "  invocations   1,000",
        "  egress out    50",
        "  checkpoints   90 complete, 1 aborted; the last is 3.17",
        "  recoveries    1; the last took 93 ms",
        "  dead letters  3; see: shardfun inspect 'conf/my shop.toml' --dead-letters",
        "  the next start goes on from checkpoint 3.17",
    ]


def test_the_summary_says_what_could_not_be_restored() -> None:
    note = "shard 0: 3 restored messages for shop/cart are parked: the type shop.Add does not exist any more"
    lines = summary_lines(summarize(node_status(state="finished", notes=[note]), stopped_now=False), Path("shop.toml"))
    assert lines[-1] == f"  not restored  {note}"


# ---- the command ---------------------------------------------------------------------------------------------------------
class _Terminal:
    def __init__(self, answer: str) -> None:
        self._answer = answer

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return self._answer


def _config(folder: Path) -> Path:
    path = folder / "shop.toml"
    path.write_text(f'app = "{APP}"\n')
    return path


def _options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    return parser.parse_args(["run", *arguments])


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configurations that a supervisor was made with."""
    made: list[Config] = []

    class Node(FakeNode):
        def __init__(self, config: Config, *, fresh: bool, accept_loss: bool) -> None:
            super().__init__()
            made.append(config)
            self.end.set()

    import shardfun.supervisor

    monkeypatch.setattr(shardfun.supervisor, "Node", Node)
    monkeypatch.setattr(command, "configure_logging", lambda **_: None)
    return made


def test_fresh_without_a_terminal_needs_yes(tmp_path: Path) -> None:
    ended = shardfun("run", _config(tmp_path), "--fresh", stdin="y\n")
    assert ended.returncode == 2
    [line] = ended.stderr.splitlines()
    assert "--fresh: expected --yes beside it" in line
    assert str(tmp_path / "data" / "shop") in line
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("answer", "code", "starts"), [("y\n", 0, 1), ("YES\n", 0, 1), ("\n", 1, 0), ("n\n", 1, 0), ("", 1, 0)]
)
def test_fresh_asks_on_a_terminal(
    answer: str,
    code: int,
    starts: int,
    tmp_path: Path,
    started: list[Config],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdin", _Terminal(answer))
    assert command.run(_options(str(_config(tmp_path)), "--fresh", "--no-progress")) == code
    assert len(started) == starts
    asked = capsys.readouterr().err
    assert asked.startswith(f"delete the state in {tmp_path / 'data' / 'shop'} and its outputs? [y/N] ")


def test_json_is_the_only_thing_on_standard_output(
    tmp_path: Path, started: list[Config], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.run(_options(str(_config(tmp_path)), "--json")) == 0
    summary = msgspec.json.decode(capsys.readouterr().out)
    assert summary["verdict"] == "finished"
    assert summary["records"] == 500
    assert len(started) == 1


def test_log_options_win_and_their_file_is_relative_to_the_working_directory(
    tmp_path: Path, started: list[Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    arguments = ["--set", "log.level=error", "--log-level", "debug", "--log-json", "--log-file", "node.log", "--no-progress"]
    command.run(_options(str(_config(tmp_path)), *arguments))
    [config] = started
    assert (config.log.level, config.log.format, config.log.file) == ("debug", "json", elsewhere / "node.log")
