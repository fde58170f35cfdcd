"""What a death says of the messages that were under way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shardfun.config.schema import SupervisionConfig
from shardfun.core.poison import Cause
from shardfun.model.crumbs import KEY_BYTES, Crumb, read_crumbs
from shardfun.model.exits import crumbs_name
from shardfun.shard.crumbs import open_crumbs
from shardfun.supervisor.liveness import overdue
from shardfun.supervisor.pool import ShardHandle
from shardfun.supervisor.postmortem import examine

CRUMB = Crumb(b"k" * KEY_BYTES, 1, "test/worker:a")
RUNNING = SimpleNamespace(running="test/worker:a", loop_age_s=0.1)
IDLE = SimpleNamespace(running="", loop_age_s=0.0)


def dead(code: int, beat: Any = None) -> ShardHandle:
    handle = ShardHandle(SimpleNamespace(returncode=code, pid=os.getpid()), None, 0.0)  # type: ignore[arg-type]
    handle.beat = beat
    return handle


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (-11, Cause.INSIDE),
        (-6, Cause.INSIDE),
        (0, Cause.INSIDE),
        (3, Cause.INSIDE),
        (70, Cause.INSIDE),
        (71, Cause.EXPLAINED),
        (75, Cause.EXPLAINED),
        (-9, Cause.OUTSIDE),
        (-15, Cause.OUTSIDE),
    ],
)
def test_exits(tmp_path: Path, code: int, cause: Cause) -> None:
    assert examine(dead(code), tmp_path).cause is cause


def test_silence_counts_only_if_something_was_running(tmp_path: Path) -> None:
    for beat, with_crumb, expected in (
        (IDLE, False, Cause.EXPLAINED),
        (None, False, Cause.EXPLAINED),
        (RUNNING, False, Cause.OUTSIDE),
        (IDLE, True, Cause.OUTSIDE),
    ):
        if with_crumb:
            open_crumbs(tmp_path).put(CRUMB)
        handle = dead(-9, beat)
        handle.kill("no heartbeat for 5.0 s", Cause.OUTSIDE)
        assert examine(handle, tmp_path).cause is expected


def test_the_first_reason_to_kill_counts(tmp_path: Path) -> None:
    handle = dead(-9, RUNNING)
    handle.kill("stuck", Cause.INSIDE)
    handle.kill("the node stops")
    death = examine(handle, tmp_path)
    assert (death.cause, death.text) == (Cause.INSIDE, "SIGKILL: stuck")


def test_breadcrumbs_are_read_once(tmp_path: Path) -> None:
    open_crumbs(tmp_path).put(CRUMB)
    assert examine(dead(-11), tmp_path).crumbs == (CRUMB,)
    assert examine(dead(-11), tmp_path).crumbs is None
    assert list(tmp_path.iterdir()) == []


def test_breadcrumbs_outlive_a_process_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from shardfun.shard.crumbs import open_crumbs;"
        "from shardfun.model.crumbs import Crumb;"
        "t = open_crumbs(Path(sys.argv[1])); a = t.put(Crumb(b'a' * 16, 1, 'x/y:a')); t.put(Crumb(b'b' * 16, 1, 'x/y:b'));"
        "t.clear(a); print(os.getpid(), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    raw = (tmp_path / crumbs_name(int(done.stdout))).read_bytes()
    assert read_crumbs(raw) == (Crumb(b"b" * 16, 1, "x/y:b"),)


def test_without_a_place_for_breadcrumbs_a_shard_still_runs(tmp_path: Path) -> None:
    table = open_crumbs(tmp_path / "no such folder")
    table.clear(table.put(CRUMB))


def test_a_function_that_is_stuck_is_told_from_silence() -> None:
    limits = SupervisionConfig()
    handle = dead(0, SimpleNamespace(running="test/worker:a", loop_age_s=limits.invocation_timeout_s + 1))
    found = overdue(handle, limits, 1.0, restoring=False)
    assert found is not None
    assert found.cause is Cause.INSIDE
    handle.beat = None
    assert overdue(handle, limits, 1.0, restoring=False) is None
    handle.warmed.set()
    found = overdue(handle, limits, limits.heartbeat_timeout_s + 1, restoring=False)
    assert found is not None
    assert found.cause is Cause.OUTSIDE
