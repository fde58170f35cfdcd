"""Signals a node meets in everyday life. However it was stopped, the next start goes on, and the result is that of one calm run."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfun.chaos.jobs import Job, bank, settings_of
from shardfun.chaos.node import Node
from shardfun.chaos.plan import FREEZE_S, HEARTBEAT_TIMEOUT_S
from shardfun.chaos.run import all_running
from shardfun.chaos.sandbox import PUBLISHED, make_sandbox
from shardfun.chaos.subject import find_subject
from shardfun.config.writing import config_toml
from shardfun.model.status import NodeStatus

TRANSFERS = 7_000
RATE = 2_000.0
EXIT_S = 60.0
EXIT_STOPPED_NOW = 130
ORPHANS_S = 2.0
"""A shard whose supervisor is gone ends within this time, by itself."""


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return bank(tmp_path, TRANSFERS)


@pytest.fixture
def node(tmp_path: Path, job: Job) -> Iterator[Node]:
    yield from started(node_of(tmp_path, job, spares=0))


@pytest.fixture
def node_with_spare(tmp_path: Path, job: Job) -> Iterator[Node]:
    yield from started(node_of(tmp_path, job, spares=1))


def node_of(folder: Path, job: Job, *, spares: int) -> Node:
    """The private copy that the chaos runner makes."""
    subject = find_subject(job.app, egresses=job.egresses, settings=settings_of(job, spares=spares))
    sandbox = make_sandbox(subject.config, subject.app, folder, inputs={job.ingress: job.input})
    config = sandbox.at(folder, reading_s=TRANSFERS / RATE)
    return Node(folder, config_toml(config), config.data_dir)


def started(node: Node) -> Iterator[Node]:
    node.start()
    yield node
    node.close()


def in_the_middle(node: Node, after: NodeStatus | None = None) -> NodeStatus:
    """Running, and further than before."""
    before = 0 if after is None else after.records_in
    return node.until(lambda status: all_running(status) and before < status.records_in < TRANSFERS)


def finish(node: Node, job: Job, tmp_path: Path) -> None:
    assert node.wait(EXIT_S + TRANSFERS / RATE) == 0, node.log_tail()
    assert node.leftovers() == []
    assert job.differences(tmp_path / PUBLISHED) == []


@pytest.mark.chaos
def test_stopped_again_and_again(tmp_path: Path, job: Job, node: Node) -> None:
    status = None
    for number in (signal.SIGINT, signal.SIGTERM):
        status = in_the_middle(node, status)
        node.kill(number)
        assert node.wait(EXIT_S) == 0, node.log_tail()
        assert node.leftovers() == []
        node.start()
    status = in_the_middle(node, status)
    os.kill(status.shards[1].pid, signal.SIGSTOP)  # so that there can be no last checkpoint
    node.kill(signal.SIGINT)
    time.sleep(HEARTBEAT_TIMEOUT_S / 4)
    assert not node.ended
    node.kill(signal.SIGINT)
    assert node.wait(EXIT_S) == EXIT_STOPPED_NOW, node.log_tail()
    assert node.leftovers() == []
    node.start()
    finish(node, job, tmp_path)


@pytest.mark.chaos
def test_shards_end_when_the_supervisor_is_gone(tmp_path: Path, job: Job, node: Node) -> None:
    in_the_middle(node)
    node.kill()
    node.wait(EXIT_S)
    died_at = time.monotonic()
    while node.processes():
        assert time.monotonic() - died_at < ORPHANS_S, node.processes()
        time.sleep(0.01)
    node.start()
    status = in_the_middle(node)
    frozen = status.shards[0].pid  # this one cannot notice
    os.kill(frozen, signal.SIGSTOP)
    node.kill()
    node.wait(EXIT_S)
    node.start()
    in_the_middle(node)
    assert frozen not in node.processes()
    finish(node, job, tmp_path)


@pytest.mark.chaos
def test_stopped_spare_and_stopped_supervisor(tmp_path: Path, job: Job, node_with_spare: Node) -> None:
    node = node_with_spare
    in_the_middle(node)
    status = node.until(lambda status: status.spares == 1)
    (spare,) = {*node.processes()} - {status.pid, *(shard.pid for shard in status.shards)}
    os.kill(spare, signal.SIGSTOP)
    os.kill(status.shards[0].pid, signal.SIGKILL)  # the spare shall replace it, and cannot
    node.until(lambda status: status.recoveries > 0)
    status = node.until(all_running, 15 * HEARTBEAT_TIMEOUT_S)
    node.kill(signal.SIGSTOP)
    time.sleep(FREEZE_S)
    node.kill(signal.SIGCONT)
    status = node.until(lambda after: after.checkpoint.completed > status.checkpoint.completed + 2)
    assert status.recoveries <= 2, f"the silence was the supervisor's own\n{node.log_tail()}"
    finish(node, job, tmp_path)


@pytest.mark.chaos
@pytest.mark.long
def test_killed_while_starting(tmp_path: Path, job: Job, node_with_spare: Node) -> None:
    node = node_with_spare
    moments = random.Random(5)
    for _ in range(15):
        time.sleep(moments.uniform(0.2, 2.0))  # from before it holds the lock until after it runs
        node.kill()
        node.wait(EXIT_S)
        node.start()
    finish(node, job, tmp_path)
