"""Failpoints: off without the runner's folder, and obeyed by one process, once, when a point is armed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shardfun import failpoints
from shardfun.failpoints import DISK_POINTS, ENVIRONMENT, FOLDER_MODE, FULL, MARK, Action, Point

REACH = "from shardfun.failpoints import Point, reached\nfor _ in range(3): reached(Point.APPLIED)\nprint('alive')"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "failpoints"
    folder.mkdir(mode=FOLDER_MODE)
    (folder / MARK).touch()
    return folder


def arm(folder: Path, point: Point, action: Action, passes: int = 0) -> None:
    (folder / point).write_text(f"{action} 7 {passes}")


def in_process(folder: Path | str | None) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != ENVIRONMENT}
    if folder is not None:
        environment[ENVIRONMENT] = str(folder)
    return subprocess.run(
        [sys.executable, "-c", REACH], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_off_in_this_process() -> None:
    """A function that does nothing is bound when the module is imported: nothing is looked up at a step."""
    assert not failpoints.ON
    assert failpoints.reached is failpoints._nothing
    assert failpoints.reached(Point.APPLIED) is None


@pytest.mark.parametrize("wrong", ["not there", "open to others", "no mark", "a file", "a link", "not set"])
def test_off_unless_the_folder_is_the_runners(tmp_path: Path, folder: Path, wrong: str) -> None:
    arm(folder, Point.APPLIED, Action.KILL)
    match wrong:
        case "not there":
            folder = tmp_path / "elsewhere"
        case "open to others":
            folder.chmod(0o755)
        case "no mark":
            (folder / MARK).unlink()
        case "a file":
            folder = folder / Point.APPLIED
        case "a link":
            link = tmp_path / "link"
            link.symlink_to(folder)
            folder = link
    ended = in_process(None if wrong == "not set" else folder)
    assert (ended.returncode, ended.stdout) == (0, "alive\n")


def test_an_armed_point_kills_the_first_process_that_reaches_it_and_no_other(folder: Path) -> None:
    arm(folder, Point.APPLIED, Action.KILL)
    assert in_process(folder).returncode == -signal.SIGKILL
    assert in_process(folder).returncode == 0
    (taken,) = [path.name for path in folder.iterdir() if path.name != MARK]
    assert taken.startswith(f"{Point.APPLIED}.7.")


def test_other_points_are_passed(folder: Path) -> None:
    arm(folder, Point.CUT_MADE, Action.KILL)
    assert in_process(folder).returncode == 0


@pytest.mark.parametrize(("passes", "dies"), [(2, True), (3, False)])
def test_passes_before_it_acts(folder: Path, passes: int, *, dies: bool) -> None:
    arm(folder, Point.APPLIED, Action.KILL, passes)
    assert (in_process(folder).returncode == -signal.SIGKILL) is dies


@pytest.mark.parametrize("action", [Action.ENOSPC, Action.EIO])
def test_errors_of_the_disk(folder: Path, action: Action) -> None:
    reached = failpoints._bound(folder)
    arm(folder, Point.DELTA_WRITTEN, action)
    with pytest.raises(OSError, match=os.strerror(getattr(errno, action))) as raised:
        reached(Point.DELTA_WRITTEN)
    assert raised.value.errno == getattr(errno, action)
    reached(Point.DELTA_WRITTEN)


def test_a_full_disk_stays_full_for_all_that_write_until_it_is_not(folder: Path) -> None:
    reached = failpoints._bound(folder)
    (folder / FULL).touch()
    for point in [*sorted(DISK_POINTS), *sorted(DISK_POINTS)]:
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            reached(point)
    for point in sorted(set(Point) - DISK_POINTS):
        reached(point)
    (folder / FULL).unlink()
    for point in sorted(DISK_POINTS):
        reached(point)


@pytest.mark.parametrize("content", ["", "kill", "kill 1 x y", "\0\0\0"])
def test_a_damaged_order_is_none(folder: Path, content: str) -> None:
    (folder / Point.APPLIED).write_text(content)
    failpoints._bound(folder)(Point.APPLIED)


def test_every_point_is_reached_by_some_driver() -> None:
    """A name that nobody calls would be a fault that never happens."""
    package = Path(failpoints.__file__).parent
    sources = [path.read_text() for path in package.rglob("*.py") if path.name != "failpoints.py" and "chaos" not in path.parts]
    bundled = {*failpoints.DELTA, *failpoints.MANIFEST}
    missing = [point for point in Point if point not in bundled and not any(f"Point.{point.name}" in text for text in sources)]
    assert missing == []
    for name in ("DELTA", "MANIFEST"):
        assert any(f"failpoints import {name}" in text for text in sources)
