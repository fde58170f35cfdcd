"""What tests have left behind around them: living processes, and whatever is in the folder for temporary files.

Processes are found by a mark in their environment, which whatever they start inherits: also those whose parents are dead. It
holds for any number of workers at the same time, for each has its own mark and its own folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
import uuid
from pathlib import Path

MARK = "TEST_MODULE_MARK"
"""Name of the variable."""
WAIT_S = 20.0
"""Orphans need a moment to notice that their supervisor is gone."""
SHARED = b"multiprocessing.resource_tracker"
"""A process that Python starts once for all, and ends with its own."""


class Remains:
    """The processes and the folder of some tests.

    Args:
        folder: for temporary files, empty at the beginning.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex

    def processes(self) -> dict[int, str]:
        """Living processes, with their command lines."""
        mark = f"{MARK}={self.mark}".encode()
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):  # gone meanwhile
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        command = (entry / "cmdline").read_bytes()
                        if SHARED not in command:
                            found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
        return found

    def found(self) -> list[str]:
        """All there is."""
        processes = [f"process {pid}: {command}" for pid, command in self.processes().items()]
        return processes + [f"temporary {entry}" for entry in sorted(self.folder.iterdir())]

    def check(self, whose: str) -> None:
        """Assert that there is nothing, and clear away what there is.

        Args:
            whose: the tests, for the message.

        Raises:
            AssertionError: something is left.
        """
        deadline = time.monotonic() + WAIT_S
        while (found := self.found()) and time.monotonic() < deadline:
            time.sleep(0.02)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)
        assert not found, f"{whose} has left behind:\n" + "\n".join(found)
