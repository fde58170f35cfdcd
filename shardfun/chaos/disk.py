"""A small disk that can be filled: a memory file system of its own, where mounting is permitted; otherwise a failpoint.

Only a real file system shows what LevelDB makes of being full; an injected error shows only what our own code makes of it.
"""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from shardfun.chaos.armory import Armory

MOUNT_S: Final = 10.0
PIECE_BYTES: Final = 1 << 20
BALLAST: Final = "ballast"
ROOM_BYTES: Final = 96 << 20
"""Beside what the run is expected to store: LevelDB needs some of it to open again after a failed write."""
ROOM_FACTOR: Final = 4
DISK_BYTES_MAX: Final = 1 << 30
"""It is memory: a run that needs more gets the failpoint instead."""
UNMOUNT_TRIES: Final = 20


class FillableDisk(Protocol):
    """What the runner needs."""

    name: str
    """For people."""

    def fill(self) -> None:
        """From now on nothing can be written."""

    def free(self) -> None:
        """There is room again."""


class InjectedDisk:
    """Every step that writes finds the disk full."""

    name = "injected"

    def __init__(self, armory: Armory) -> None:
        self._armory = armory

    def fill(self) -> None:
        """See the protocol."""
        self._armory.fill()

    def free(self) -> None:
        """See the protocol."""
        self._armory.free()


class MemoryDisk:
    """A mounted tmpfs.

    Args:
        place: an empty folder; everything of the node has to be in it.
    """

    name = "tmpfs"

    def __init__(self, place: Path) -> None:
        self._place = place
        self._ballast = place / BALLAST

    @classmethod
    def mount(cls, place: Path, size_bytes: int) -> MemoryDisk | None:
        """Mount one; ``None`` if this process may not, or it would be too large."""
        if os.geteuid() != 0 or size_bytes > DISK_BYTES_MAX:
            return None
        place.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0700", "shardfun-chaos", str(place)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=MOUNT_S, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return cls(place) if done.returncode == 0 else None

    def fill(self) -> None:
        """See the protocol."""
        piece = b"\0" * PIECE_BYTES
        with suppress(OSError), self._ballast.open("wb", buffering=0) as file:
            while len(piece):
                written = file.write(piece)
                piece = piece[: written or 0]

    def free(self) -> None:
        """See the protocol."""
        self._ballast.unlink(missing_ok=True)

    def unmount(self) -> None:
        """Take it away, with everything in it."""
        for _ in range(UNMOUNT_TRIES):
            if subprocess.run(["umount", str(self._place)], capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.1)
        subprocess.run(["umount", "-l", str(self._place)], capture_output=True, check=False)


def size_for(expected_bytes: int) -> int:
    """How large a disk is made for a run that is expected to store so much."""
    return ROOM_BYTES + ROOM_FACTOR * expected_bytes


def bytes_in(folder: Path) -> int:
    """What is stored below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
