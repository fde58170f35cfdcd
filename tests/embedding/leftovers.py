"""What a node may have left behind in this process and around it: processes, sockets, files, threads."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections import Counter
from pathlib import Path

WAIT_S = 20.0


def children() -> list[int]:
    """Processes that this one has started and not reaped."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == os.getpid():
                found.append(int(entry.name))
    return found


def open_files() -> Counter[str]:
    """Descriptors by what they are; of files and folders, which."""
    found: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue
        kind = target.partition(":")[0] if ":[" in target and not target.startswith("anon_inode") else target
        found[kind] += 1
    return found


def threads() -> list[str]:
    """Python threads but those that Trio keeps for a while, for others."""
    return sorted(thread.name for thread in threading.enumerate() if not thread.name.startswith("Trio thread"))


class Leftovers:
    """Compares with how it was at the beginning.

    Args:
        temporary: the folder for temporary files, empty at the beginning.
    """

    def __init__(self, temporary: Path) -> None:
        self._temporary = temporary
        self._children = set(children())
        self._threads = threads()
        gc.collect()
        self._files = open_files()

    def mark(self) -> None:
        """What is open now is the test's own: an event loop, for one."""
        self._files = open_files()

    def found(self) -> list[str]:
        """What is there now and was not."""
        more = open_files() - self._files
        new = [name for name in threads() if name not in self._threads]
        return [
            *(f"process {pid}" for pid in children() if pid not in self._children),
            *(f"thread {name}" for name in new),
            *(f"{count} open: {target}" for target, count in more.items()),
            *(f"temporary {entry.name}" for entry in self._temporary.iterdir()),
        ]

    def check(self) -> None:
        """Assert that there is nothing. Trio's own threads may still close what they had for a moment."""
        deadline = time.monotonic() + WAIT_S
        while self.found() and time.monotonic() < deadline:
            time.sleep(0.02)
        found = self.found()
        assert not found, found
