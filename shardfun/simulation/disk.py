"""The supervisor's part of the disk: the incarnation number and the manifests. (The shards' part is ``state.memory``.)"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(slots=True)
class StoredManifest:
    """``durable``: survives a power loss; before that it may be there or not."""

    checkpoint: int
    parent: int
    digests: list[bytes]
    end: bool
    durable: bool = False


class SupervisorDisk:
    """See the module."""

    def __init__(self) -> None:
        self.incarnation = 0
        self._manifests: dict[int, StoredManifest] = {}

    def raise_incarnation(self) -> int:
        """Durably, in one step (a new file, fsynced and renamed)."""
        self.incarnation += 1
        return self.incarnation

    def rename(self, manifest: StoredManifest) -> None:
        """The file has its name; the folder is not fsynced yet."""
        self._manifests[manifest.checkpoint] = manifest

    def newest(self) -> StoredManifest | None:
        """What a start reads. It makes the file durable before it acts on it."""
        if not self._manifests:
            return None
        manifest = self._manifests[max(self._manifests)]
        manifest.durable = True
        return manifest

    @property
    def newest_durable(self) -> int:
        """The id of the newest manifest that survives a power loss; 0 if there is none."""
        return max((item.checkpoint for item in self._manifests.values() if item.durable), default=0)

    def power_loss(self, chance: random.Random) -> None:
        """What is not durable may be gone."""
        for checkpoint, manifest in list(self._manifests.items()):
            if not manifest.durable and chance.random() < 0.5:
                del self._manifests[checkpoint]
