"""Manifests: the rename of ``manifest-<id>`` is the commit point of a checkpoint.

One small file per complete checkpoint says which deltas it consists of. The newest decides where a node goes on, so it is never
guessed: a damaged one stops the start. Knows nothing of stores and shards' files.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import cbor2
import msgspec

from shardfun.errors import CorruptionError, IncompatibleDataError, StorageError
from shardfun.failpoints import MANIFEST
from shardfun.model.delta import checkpoint_name
from shardfun.state.files import (
    FileForm,
    make_directory,
    read_checked,
    remove_file,
    remove_temporaries,
    storage_error,
    write_checked,
)
from shardfun.state.filesystem import REAL_FILES, FileSystem
from shardfun.state.plain import UndecodableError, load_typed

MANIFEST_FORMAT = 1
MANIFESTS_KEPT = 3
DAMAGED_SUFFIX = ".damaged"

_FORM = FileForm(b"sfmanif\n", MANIFEST_FORMAT, "manifest", MANIFEST)
_NAME = re.compile(r"manifest-([0-9a-f]{16})")


class ShardDelta(msgspec.Struct, frozen=True, array_like=True):
    """One shard's delta, as its ``DeltaSummary`` says."""

    shard: int
    digest: bytes
    size_bytes: int
    records: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One complete checkpoint.

    Args:
        parent: the complete checkpoint before it; 0: none.
        created_at: unix seconds.
        shards: one entry per shard, in order.
        end_sent: END rides on this checkpoint's COMPLETE.
        ingress: for display: name to one position per partition, each any CBOR value.
        figures: for display.
    """

    format: int = MANIFEST_FORMAT
    job: str
    checkpoint: int
    parent: int
    incarnation: int
    created_at: float
    shards: list[ShardDelta]
    end_sent: bool = False
    ingress: dict[str, list[Any]] = {}
    figures: dict[str, int] = {}

    def digest(self, shard: int) -> bytes:
        """The digest of a shard's delta: what its store recovers to."""
        return self.shards[shard].digest


def encode_manifest(manifest: Manifest) -> bytes:
    """A manifest as CBOR."""
    return cbor2.dumps(msgspec.to_builtins(manifest, builtin_types=(bytes,)))


def decode_manifest(raw: bytes) -> Manifest:
    """The manifest back.

    Raises:
        CorruptionError: it is not one.
    """
    try:
        manifest = load_typed(raw, Manifest)
        msgspec.to_builtins(manifest.ingress, builtin_types=(bytes,))  # positions of readers: what was never written is refused
    except (UndecodableError, TypeError) as error:
        raise CorruptionError(f"the manifest is damaged: {error}") from error
    if manifest.format != MANIFEST_FORMAT or [delta.shard for delta in manifest.shards] != list(range(len(manifest.shards))):
        raise CorruptionError(f"the manifest is damaged: format {manifest.format}, shards {[s.shard for s in manifest.shards]}")
    if not 0 <= manifest.parent < manifest.checkpoint:
        raise CorruptionError(f"the manifest is damaged: checkpoint {manifest.checkpoint} cannot build on {manifest.parent}")
    return manifest


class Manifests:
    """The folder of manifests."""

    def __init__(self, folder: Path, disk: FileSystem = REAL_FILES) -> None:
        self.folder = folder
        self._disk = disk
        self._made = False

    def path(self, checkpoint: int) -> Path:
        """Where the manifest of a checkpoint is."""
        return self.folder / f"manifest-{checkpoint:016x}"

    def checkpoints(self) -> list[int]:
        """The ids of all manifests, the newest first.

        Raises:
            StorageError: the folder cannot be read.
        """
        try:
            names = self._disk.names(self.folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise storage_error("list", self.folder, error) from error
        return sorted((int(found[1], 16) for name in names if (found := _NAME.fullmatch(name))), reverse=True)

    def write(self, manifest: Manifest) -> None:
        """Commit a checkpoint: when this returns it is complete. Older manifests than the newest three are removed.

        Raises:
            StorageError: whether the checkpoint is complete is not known; only reading again at the next start tells.
        """
        if not self._made:
            make_directory(self.folder, self._disk)
            self._made = True
        write_checked(self.path(manifest.checkpoint), _FORM, encode_manifest(manifest), self._disk)
        with suppress(StorageError):  # the checkpoint is complete; what is left over goes with the next one
            for old in self.checkpoints()[MANIFESTS_KEPT:]:
                remove_file(self.path(old), self._disk)

    def read(self, checkpoint: int) -> Manifest:
        """One manifest.

        Raises:
            CorruptionError: it is missing or damaged.
            StorageError: it cannot be read.
        """
        path = self.path(checkpoint)
        content = read_checked(path, _FORM, self._disk)
        if content is None:
            raise CorruptionError(f"{path}: the manifest is missing")
        try:
            manifest = decode_manifest(content)
        except CorruptionError as error:
            raise CorruptionError(f"{path}: {error}") from error
        if manifest.checkpoint != checkpoint:
            raise CorruptionError(f"{path}: expected the manifest of {checkpoint}, got that of {manifest.checkpoint}")
        return manifest

    def newest(self, job: str, *, accept_loss: bool = False) -> Manifest | None:
        """The manifest to start from, made durable (again) before it is returned; ``None`` if there is none.

        A supervisor may have died between the rename and the fsync of the folder, or after an fsync that failed. Instead of an
        fsync of the old file, which may wrongly succeed after a failed one, the same content is written as a new file.

        Args:
            job: what the data directory says.
            accept_loss: go back to an older manifest if the newest is damaged; the damaged file is kept under another name.

        Raises:
            CorruptionError: the newest manifest is damaged (with ``accept_loss``: all of them).
            IncompatibleDataError: it belongs to another job.
            StorageError: it cannot be read or written.
        """
        checkpoints = self.checkpoints()
        if not checkpoints:
            return None
        remove_temporaries(self.folder, self._disk)
        damaged: list[Path] = []
        for checkpoint in checkpoints:
            path = self.path(checkpoint)
            try:
                manifest = self.read(checkpoint)
            except CorruptionError as error:
                if not accept_loss:
                    raise CorruptionError(_refusal(error, checkpoint)) from error
                damaged.append(path)
                continue
            if manifest.job != job:
                raise IncompatibleDataError(
                    f"{path}: expected a manifest of job {job}, got one of {manifest.job}; remove the foreign file"
                )
            write_checked(path, _FORM, encode_manifest(manifest), self._disk)
            for unusable in damaged:  # only now: with nothing to go back to, they stay and keep stopping the start
                self._set_aside(unusable)
            return manifest
        raise CorruptionError(
            f"{self.folder}: all manifests are damaged; restore the data directory, or start with an empty one"
        )

    def _set_aside(self, path: Path) -> None:
        try:
            self._disk.rename(path, path.with_name(path.name + DAMAGED_SUFFIX))
        except OSError as error:
            raise storage_error("rename", path, error) from error


def _refusal(error: CorruptionError, checkpoint: int) -> str:
    return (
        f"{error}. It is the newest one, so checkpoint {checkpoint_name(checkpoint)} cannot be told from one that never was. "
        "Restore the file, or start with --accept-loss to go back to an older checkpoint: what was published since then happens again"
    )
