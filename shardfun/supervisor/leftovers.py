"""What a node that was killed left behind: shard processes that have not noticed yet, and socket files.

Shards of a dead supervisor end themselves; one that is stopped (SIGSTOP) cannot. A process that may still write to the store or a
sink must be gone before anything is opened: a write call of a zombie cannot be fenced.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

from shardfun.errors import UnavailableError
from shardfun.state.directory import NodeRecord, ProcessMark

RUNTIME_PREFIX = "shardfun-"
REAP_TIMEOUT_S = 10.0
SOCKET_PATH_BYTES_MAX = 107
"""Of the address of a socket file: ``sun_path`` of unix(7) without its NUL."""
RUNTIME_ROOM_BYTES = 56
"""Of it for a runtime folder's name and the longest socket's in it."""
_THREADS_FIELD = 17
_STARTTIME_FIELD = 19  # both of /proc/PID/stat, counted behind the command name: fields 20 and 22 of proc(5)


def runtime_parent() -> Path:
    """Where a runtime folder may be made: the folder for temporary files, unless its path is too long for sockets in it.

    Raises:
        UnavailableError: neither it nor ``/tmp`` will do.
    """
    first = Path(tempfile.gettempdir())
    for folder in (first, Path("/tmp")):  # noqa: S108 - the runtime folder in it has a random name and is private
        if len(os.fsencode(folder)) + RUNTIME_ROOM_BYTES <= SOCKET_PATH_BYTES_MAX and os.access(folder, os.W_OK):
            return folder
    limit = SOCKET_PATH_BYTES_MAX - RUNTIME_ROOM_BYTES
    msg = f"{first}: expected a folder for sockets with a path of at most {limit} bytes; set TMPDIR to a shorter one"
    raise UnavailableError(msg)


def process_start(pid: int) -> int | None:
    """Clock ticks since boot at which a process started; ``None`` if there is none (or only its corpse).

    While a thread of it lives, a process whose first thread is a corpse still has its files and sockets open.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} and int(fields[_THREADS_FIELD]) <= 1 else int(fields[_STARTTIME_FIELD])


def mark_of(pid: int) -> ProcessMark:
    """Names a process so that a younger one with the same pid is not taken for it."""
    return ProcessMark(pid, process_start(pid) or 0)


def clean_up(record: NodeRecord | None) -> int:
    """Kill the processes of a dead node and remove its sockets; how many were still alive.

    Raises:
        UnavailableError: a process cannot be killed.
    """
    if record is None:
        return 0
    alive = [mark for mark in record.processes if process_start(mark.pid) == mark.started]
    for mark in alive:
        try:
            os.kill(mark.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    deadline = time.monotonic() + REAP_TIMEOUT_S
    for mark in alive:
        while process_start(mark.pid) == mark.started:
            if time.monotonic() > deadline:
                msg = f"process {mark.pid} of an earlier run cannot be killed (stuck in the kernel?); nothing was started"
                raise UnavailableError(msg)
            time.sleep(0.005)
    folder = Path(record.runtime_dir)
    if folder.name.startswith(RUNTIME_PREFIX):
        shutil.rmtree(folder, ignore_errors=True)
    return len(alive)
