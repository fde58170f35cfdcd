"""Named steps of the real drivers, at which the chaos runner can make a process die, stop or meet a failing disk.

Off unless the environment names a folder that the chaos runner made: then ``reached`` does nothing, and that is decided once, when
this module is imported. No configuration and no message can switch it on. When it is on, the runner arms a point by a file of its
name in that folder; the process that takes the file does what it says, and so does nobody else.

Called a few times per checkpoint, never per message. Knows nothing of what the steps mean.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import threading
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

ENVIRONMENT: Final = "SHARDFUN_FAILPOINTS"
FOLDER_MODE: Final = 0o700
MARK: Final = "made-by-shardfun-chaos"
"""A file in the folder: without it, it is somebody else's."""
FULL: Final = "full"
"""A file in the folder: as long as it is there, whatever writes to a disk finds it full."""
ARMED_BYTES_MAX: Final = 100


class Point(StrEnum):
    """The steps. The values are what ``--failpoint`` takes."""

    CUT_MADE = "cut-made"
    BARRIER_SENT = "barrier-sent"
    BARRIER_RECEIVED = "barrier-received"
    DELTA_WRITTEN = "delta-written"
    DELTA_SYNCED = "delta-synced"
    DELTA_RENAMED = "delta-renamed"
    DELTA_DURABLE = "delta-durable"
    PREPARED_SENT = "prepared-sent"
    APPLY_CHUNK = "apply-chunk"
    APPLIED = "applied"
    PUBLISHING = "publishing"
    PUBLISHED = "published"
    SINK_PROGRESS = "sink-progress"
    RESET = "reset"
    RECOVERED = "recovered"
    READY_SENT = "ready-sent"
    STARTED = "started"
    FINISH = "finish"
    TRIGGER_SENT = "trigger-sent"
    MANIFEST_WRITTEN = "manifest-written"
    MANIFEST_SYNCED = "manifest-synced"
    MANIFEST_RENAMED = "manifest-renamed"
    MANIFEST_DURABLE = "manifest-durable"
    COMPLETE_SENT = "complete-sent"
    INCARNATION_RAISED = "incarnation-raised"
    ASSIGN_SENT = "assign-sent"
    RESET_SENT = "reset-sent"
    START_SENT = "start-sent"


class Action(StrEnum):
    """What the process does that reaches an armed point."""

    KILL = "kill"
    STOP = "stop"
    ENOSPC = "ENOSPC"
    EIO = "EIO"


class FilePoints(NamedTuple):
    """The steps of a file that is written durably: content written, content fsynced, renamed, name fsynced."""

    written: Point
    synced: Point
    renamed: Point
    durable: Point


DELTA: Final = FilePoints(Point.DELTA_WRITTEN, Point.DELTA_SYNCED, Point.DELTA_RENAMED, Point.DELTA_DURABLE)
MANIFEST: Final = FilePoints(Point.MANIFEST_WRITTEN, Point.MANIFEST_SYNCED, Point.MANIFEST_RENAMED, Point.MANIFEST_DURABLE)

DISK_POINTS: Final = frozenset({Point.DELTA_WRITTEN, Point.APPLY_CHUNK, Point.PUBLISHING, Point.MANIFEST_WRITTEN})
"""Where an error of the disk may be injected: the drivers meet it as if the kernel had raised it there."""

_ERRNOS: Final = {Action.ENOSPC: errno.ENOSPC, Action.EIO: errno.EIO}


class _Switchboard:
    """What is armed, seen from one process.

    Args:
        folder: of the runner.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._passed: dict[str, int] = {}  # how often a point that was armed to be passed was passed here, by its serial number
        self._lock = threading.Lock()

    def reached(self, point: Point) -> None:
        """Do what the point is armed for, if it is.

        Raises:
            OSError: injected.
        """
        if point in DISK_POINTS and (self._folder / FULL).exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with self._lock:
            action = self._taken(point)
        match action:
            case None:
                return
            case Action.KILL:
                os.kill(os.getpid(), signal.SIGKILL)
            case Action.STOP:
                os.kill(os.getpid(), signal.SIGSTOP)
            case Action.ENOSPC | Action.EIO:
                number = _ERRNOS[action]
                raise OSError(number, os.strerror(number))

    def _taken(self, point: Point) -> Action | None:
        path = self._folder / point
        try:
            with path.open() as file:
                text, serial, passes = file.read(ARMED_BYTES_MAX).split()
            action, wanted = Action(text), int(passes)
        except (OSError, ValueError):  # not armed, or not written by the runner
            return None
        passed = self._passed.get(serial, 0)
        if passed < wanted:
            self._passed[serial] = passed + 1
            return None
        try:
            path.rename(self._folder / taken_name(point, serial, os.getpid()))
        except OSError:  # another process, or the runner itself, was faster
            return None
        return action


def taken_name(point: Point, serial: str, pid: int) -> str:
    """The name that an armed file gets when a process has taken it."""
    return f"{point}.{serial}.{pid}"


def _nothing(_: Point) -> None:
    """Off."""


def _folder() -> Path | None:
    """The folder that the environment names, if the chaos runner has made it for this user."""
    text = os.environ.get(ENVIRONMENT)
    if not text:
        return None
    folder = Path(text)
    try:
        found = folder.lstat()
        good = stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == FOLDER_MODE and found.st_uid == os.geteuid()
        return folder if good and (folder / MARK).is_file() else None
    except OSError:
        return None


def _bound(folder: Path | None) -> Callable[[Point], None]:
    return _nothing if folder is None else _Switchboard(folder).reached


reached: Final = _bound(_folder())
"""Call it where a step is done, with the step's point.

Raises:
    OSError: injected; at ``DISK_POINTS`` only.
"""

ON: Final = reached is not _nothing
"""Whether this process has failpoints at all: for what is not worth a call when there are none."""
