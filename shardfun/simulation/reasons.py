"""Whether an error of storage is to be expected: a step was made to fail, the disk said that it is full, or damage is named.

Anything else that storage complains of is a mistake of whoever uses it, and no run goes on with that.
"""

from __future__ import annotations

import errno

from shardfun.errors import CorruptionError, StorageError
from shardfun.simulation.files import RefusedStepError, SimulatedDisk

TOO_FAR = "holds changes of checkpoint"
"""Of a store that is ahead of the newest checkpoint. No flipped bit brings it there, a mistake in the protocol does."""


def has_reason(error: StorageError, disk: SimulatedDisk) -> bool:
    """Whether the world has done something that explains an error."""
    if isinstance(error, CorruptionError):
        return TOO_FAR not in str(error) and _names_damage(str(error), disk)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, RefusedStepError):
            return True
        cause = cause.__cause__
    told, disk.told_full = disk.told_full, False
    return told and error.errno == errno.ENOSPC


def _names_damage(message: str, disk: SimulatedDisk) -> bool:
    """Whether a file is named that is damaged just now. LevelDB's are named by their folder."""
    return any(
        str(path) in message or (path.parent.name == "leveldb" and str(path.parent) in message) for path in disk.damaged()
    )
