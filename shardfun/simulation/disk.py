"""The supervisor's part of the disk: the incarnation number and the manifests. As objects, or as real files on a simulated disk.

(The shards' part is ``state.memory``, or ``file_store``.)
"""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import dataclass

from shardfun.errors import StorageError
from shardfun.simulation.file_store import DATA, JOB_STEPS
from shardfun.simulation.files import ProcessDeath, ProcessFiles, SimulatedDisk, Trouble
from shardfun.simulation.violation import wrong
from shardfun.state.files import make_directory
from shardfun.state.incarnation import IncarnationFile
from shardfun.state.manifest import Manifest, Manifests, ShardDelta

JOB = "5eed" * 8
INCARNATION = DATA / "incarnation"


@dataclass(slots=True)
class StoredManifest:
    """``durable``: survives a power loss; before that it may be there or not."""

    checkpoint: int
    parent: int
    digests: list[bytes]
    end: bool
    durable: bool = False


class SupervisorDisk:
    """Objects. See the module."""

    machine: SimulatedDisk | None = None

    def __init__(self) -> None:
        self.incarnation = 0
        self._manifests: dict[int, StoredManifest] = {}

    def begin(self, trouble: Trouble | None) -> None:
        """The next job begins; with objects nothing goes wrong in it."""

    def raise_incarnation(self) -> int:
        """Durably, in one step (a new file, fsynced and renamed)."""
        self.incarnation += 1
        return self.incarnation

    def rename(self, manifest: StoredManifest) -> None:
        """The file has its name; the folder is not fsynced yet."""
        self._manifests[manifest.checkpoint] = manifest

    def make_durable(self, manifest: StoredManifest) -> None:
        """The folder is fsynced."""
        manifest.durable = True

    def die_in(self, manifest: StoredManifest | None, chance: random.Random) -> None:
        """The supervisor dies while it writes: between the two steps, or not at all."""

    def die_in_boot(self, chance: random.Random) -> None:
        """A new supervisor dies before it has read anything."""

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


class FileSupervisorDisk(SupervisorDisk):
    """The real code over a simulated disk, which is the shards' disk, too."""

    def __init__(self) -> None:
        super().__init__()
        self.machine: SimulatedDisk = SimulatedDisk()
        self._observer = Manifests(DATA / "manifests", self.machine.process())
        files = self.machine.process()
        make_directory(DATA / "manifests", files)
        IncarnationFile(INCARNATION, files).create()
        self._use(files)

    def _use(self, files: ProcessFiles) -> None:
        self._files = files
        self._trouble: Trouble | None = None
        self._real = Manifests(DATA / "manifests", files)
        self._number = IncarnationFile(INCARNATION, files)

    def begin(self, trouble: Trouble | None) -> None:
        """The next job begins.

        Args:
            trouble: a step of it that fails.
        """
        self._trouble = trouble
        self._files.begin_job(trouble)

    def raise_incarnation(self) -> int:
        """Raise the number, durably: it must be another one than ever before.

        Raises:
            CorruptionError: the file is damaged.
            StorageError: the disk refused.
        """
        number = self._raise()
        if number <= self.incarnation:
            wrong(f"incarnation {number} begins, and {self.incarnation} was used before")
        if not self.machine.is_durable(INCARNATION):
            wrong(f"incarnation {number} begins, and a power cut could take its number")
        self.incarnation = number
        return number

    def _raise(self) -> int:
        return self._number.raise_beyond(next(iter(self._real.checkpoints()), 0))

    def rename(self, manifest: StoredManifest) -> None:
        """The file will be written in the next step."""

    def make_durable(self, manifest: StoredManifest) -> None:
        """Write the file.

        Raises:
            StorageError: the disk refused; whether the checkpoint is complete is not known.
        """
        self._real.write(_as_file(manifest))
        if not self.machine.is_durable(self._real.path(manifest.checkpoint)):
            wrong(f"checkpoint {manifest.checkpoint} is complete, and a power cut could take its manifest")
        manifest.durable = True

    def die_in(self, manifest: StoredManifest | None, chance: random.Random) -> None:
        """The supervisor dies before one of the steps of writing a manifest, or of raising the incarnation."""
        kind = "incarnation" if manifest is None else "manifest"
        self._files.begin_job(dies_at=chance.randint(1, JOB_STEPS[kind]))
        with suppress(ProcessDeath, StorageError):
            if manifest is None:
                self.incarnation = max(self.incarnation, self._raise())
            else:
                self._real.write(_as_file(manifest))

    def die_in_boot(self, chance: random.Random) -> None:
        """A new supervisor dies before one of the steps of reading the newest manifest, and of making it durable."""
        self._begin_process()
        self._files.begin_job(dies_at=chance.randint(1, JOB_STEPS["boot"]))
        with suppress(ProcessDeath, StorageError):
            self._real.newest(JOB)

    def _begin_process(self) -> None:
        self._files.kill()
        self._use(self.machine.process())

    def newest(self) -> StoredManifest | None:
        """What a new supervisor reads, and makes durable before it acts on it.

        Raises:
            CorruptionError: the newest manifest is damaged.
            StorageError: the disk refused.
        """
        trouble = self._trouble
        self._begin_process()
        self._files.begin_job(trouble)
        manifest = self._real.newest(JOB)
        self._files.begin_job()
        if manifest is None:
            return None
        digests = [part.digest for part in manifest.shards]
        return StoredManifest(manifest.checkpoint, manifest.parent, digests, manifest.end_sent, durable=True)

    @property
    def newest_durable(self) -> int:
        """The id of the newest manifest that survives a power loss; 0 if there is none."""
        observer = self._observer
        return next((n for n in observer.checkpoints() if self.machine.is_durable(observer.path(n))), 0)

    def power_loss(self, chance: random.Random) -> None:
        """What is not durable may be gone."""
        self.machine.power_loss(chance)


def _as_file(manifest: StoredManifest) -> Manifest:
    return Manifest(
        job=JOB,
        checkpoint=manifest.checkpoint,
        parent=manifest.parent,
        incarnation=manifest.checkpoint >> 32,
        created_at=0.0,
        shards=[ShardDelta(shard, digest, 0, 0) for shard, digest in enumerate(manifest.digests)],
        end_sent=manifest.end,
    )
