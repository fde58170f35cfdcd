"""What becomes of a node whose storage fails: it stops, somebody starts it again, and at last the start is refused, if damage stays.

An error is believed only if there is a reason for it: damage has to be named by the message, and nothing is damaged unless a bit has flipped.
"""

from __future__ import annotations

from shardfun.errors import CorruptionError, StorageError
from shardfun.simulation.disk import FileSupervisorDisk
from shardfun.simulation.node import Node
from shardfun.simulation.surroundings import Surroundings

STARTS = 3
"""So many failures in a row for damage, without a complete checkpoint in between, are a refusal: repair is tried at a start."""


class Repairs:
    """See the module."""

    def __init__(self, around: Surroundings, node: Node) -> None:
        self.refused = False
        """The damage cannot be repaired, and the node says so: the right end of a run."""
        self._around = around
        self._node = node
        self._failures = 0
        self._complete = 0

    def failed(self, error: StorageError) -> None:
        """A process cannot go on for this error: the node stops.

        Raises:
            StorageError: the error is not to be expected.
        """
        disk = self._around.disk
        if not isinstance(disk, FileSupervisorDisk):
            raise error
        if isinstance(error, CorruptionError):
            if not disk.explains(error):
                raise error
            if self._complete != self._around.checker.complete:
                self._complete, self._failures = self._around.checker.complete, 0
            self._failures += 1
            self.refused = self._failures >= STARTS
        self._around.trace.note("world", "start refused" if self.refused else "storage fails", f"{error}")
        self._node.stop()
