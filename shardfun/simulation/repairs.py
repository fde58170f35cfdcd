"""What becomes of a node whose storage or sink fails: it stops, somebody starts it again, and at last the start is refused, if damage stays.

An error is believed only if there is a reason for it (see ``reasons``).
"""

from __future__ import annotations

from shardfun.errors import CorruptionError, EgressError, StorageError
from shardfun.simulation.node import Node
from shardfun.simulation.reasons import has_reason
from shardfun.simulation.surroundings import Surroundings

WAITS_FOR_SINKS = 0.8
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
        machine = self._around.disk.machine
        if machine is None or not has_reason(error, machine):
            raise error
        if isinstance(error, CorruptionError):
            if self._complete != self._around.checker.complete:
                self._complete, self._failures = self._around.checker.complete, 0
            self._failures += 1
            self.refused = self._failures >= STARTS
        self._around.trace.note("world", "start refused" if self.refused else "storage fails", f"{error}")
        self._node.stop()

    def sink_failed(self, error: EgressError) -> None:
        """A sink cannot be opened: the node stops. Whoever starts it again may wait until all sinks are back."""
        around = self._around
        around.trace.note("world", "sink fails", f"{error}")
        self._node.stop()
        if around.chance.random() < WAITS_FOR_SINKS:
            self._node.boots_at = max(sink.down_until for sink in around.sinks.values())
