"""How far complete checkpoints have read the intake logs: tells their owners, and removes what no checkpoint needs any more."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shardfun.errors import StorageError
from shardfun.intake.entries import OWNERS, ingress_name
from shardfun.intake.log import CONSUMED, log_exists
from shardfun.intake.log_disk import REAL_LOG_DISK, LogDisk
from shardfun.intake.log_files import Mark, save_mark, trim
from shardfun.state.manifest import MANIFESTS_KEPT
from shardfun.telemetry.node_log import NodeLog

INTAKE_FOLDER = "intake"
"""In the data directory."""

INTERNAL_INGRESSES = tuple(map(ingress_name, OWNERS))

log = NodeLog("shardfun.supervisor")


class IntakeKeeper:
    """See the module.

    Args:
        folder: of all intake logs.
        positions: in the newest manifest, by ingress: one for each shard.

    ``consumed``: by owner, the offset up to which all shards have read as of the last complete checkpoint.
    """

    def __init__(self, folder: Path, positions: Mapping[str, Sequence[Any]], disk: LogDisk = REAL_LOG_DISK) -> None:
        self._folder = folder
        self._disk = disk
        self.consumed = {owner: min((at or 0 for at in positions.get(ingress_name(owner), ())), default=0) for owner in OWNERS}
        self._told: dict[str, int] = {}
        self._trimmed = dict.fromkeys(OWNERS, 0)
        self._kept: deque[dict[str, int]] = deque(maxlen=MANIFESTS_KEPT)
        """``consumed`` of the manifests that are kept, as far as this run wrote them; the oldest first."""

    def completed(self, parts: Sequence[Mapping[str, Any]]) -> bool:
        """A checkpoint is complete; whether ``tend`` has something to do.

        Args:
            parts: the positions of each shard's ingresses in it.
        """
        self.consumed = {owner: min(part.get(ingress_name(owner)) or 0 for part in parts) for owner in OWNERS}
        self._kept.append(self.consumed)
        untold = any(at and self._told.get(owner) != at for owner, at in self.consumed.items())
        return untold or (len(self._kept) == MANIFESTS_KEPT and self._kept[0] != self._trimmed)

    def tend(self) -> None:
        """Blocks on the disk: write the marks, remove segments. An older checkpoint that may still be gone back to keeps what it
        needs.
        """
        consumed, oldest = self.consumed, self._kept[0]
        for owner in OWNERS:
            folder = self._folder / owner
            try:
                if not log_exists(folder, self._disk):
                    continue
                if self._told.get(owner) != consumed[owner]:
                    save_mark(folder / CONSUMED, Mark(consumed[owner], 0), self._disk)
                    self._told[owner] = consumed[owner]
                if len(self._kept) == MANIFESTS_KEPT:
                    trim(folder, oldest[owner], self._disk)
                    self._trimmed[owner] = oldest[owner]
            except StorageError as error:  # nothing is lost; it is done again after the next checkpoint
                log.warning("intake log cannot be trimmed", owner=owner, error=str(error))
