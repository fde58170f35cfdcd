"""Files and what they hold after a power cut: deliberate mistakes. Found by the runs whose disk is simulated."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from shardfun.model.delta import DeltaHeader, DeltaSummary, RecordBlock
from shardfun.simulation.engine import SimulatedLevelDB
from shardfun.simulation.mutations.patching import Mutation, Patch
from shardfun.state import incarnation as incarnation_module
from shardfun.state import manifest as manifest_module
from shardfun.state import store as store_module
from shardfun.state.chain import Mark
from shardfun.state.delta import encode_delta
from shardfun.state.files import TEMPORARY_SUFFIX, FileForm, Write, digest_of, storage_error
from shardfun.state.filesystem import FileSystem
from shardfun.state.leveldb import Database
from shardfun.state.manifest import Manifests
from shardfun.state.store import LevelDBStore

_HEAD = struct.Struct(">8sHQ")  # of a checked file


def _write_all(disk: FileSystem, descriptor: int, piece: bytes) -> None:
    while piece:
        piece = piece[disk.write(descriptor, piece) :]


def _durable_file(
    *, sync: bool = True, rename_first: bool = False, sync_folder: bool = True, attempts: int = 1
) -> Callable[..., Any]:
    """``durable_file`` with one of its steps left out, or done again, or at another time."""

    @contextmanager
    def durable_file(path: Path, _points: object, disk: FileSystem) -> Iterator[Write]:
        temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
        with suppress(FileNotFoundError):
            disk.unlink(temporary)
        descriptor = disk.create(temporary)
        yield lambda piece: _write_all(disk, descriptor, piece)
        if rename_first:
            disk.rename(temporary, path)
        for left in reversed(range(attempts)):
            try:
                if sync:
                    disk.fsync(descriptor)
                break
            except OSError:
                if not left:
                    raise
        disk.close(descriptor)
        if not rename_first:
            disk.rename(temporary, path)
        if sync_folder:
            disk.sync_folder(path.parent)

    @contextmanager
    def mapped(path: Path, points: object = None, disk: Any = None) -> Iterator[Write]:
        try:
            with durable_file(path, points, disk) as write:
                yield write
        except OSError as error:
            raise storage_error("write", path, error) from error

    return mapped


# ---- the delta file ------------------------------------------------------------------------------------------------------
def _delta_written_by(**how: Any) -> Callable[[Any], Any]:
    return lambda _original: _durable_file(**how)


def _prepared_before_written(_original: Any) -> Any:
    """The summary is there before the file."""

    def write_delta(self: LevelDBStore, header: DeltaHeader, blocks: Sequence[RecordBlock], queues: bytes) -> DeltaSummary:
        pieces: list[bytes] = []
        summary = encode_delta(header, blocks, queues, pieces.append)
        self._late = self._delta_path(header.checkpoint), b"".join(pieces)  # type: ignore[attr-defined]
        self._written = header, summary
        return summary

    return write_delta


def _written_when_applied(original: Any) -> Any:
    def apply_delta(self: LevelDBStore, checkpoint: int, blocks: Sequence[RecordBlock]) -> None:
        path, content = getattr(self, "_late", (None, b""))
        if path == self._delta_path(checkpoint):
            with _durable_file()(path, None, self._disk) as write:
                write(content)
        original(self, checkpoint, blocks)

    return apply_delta


def _keep_files(_original: Any) -> Any:
    def remove_file(path: Path, disk: FileSystem) -> None:
        """Leave deltas that are aborted, undone or old."""

    return remove_file


def _recovery_keeps_newer(_original: Any) -> Any:
    """What is newer than the checkpoint that a recovery goes back to is taken for complete, too."""

    def recover(self: LevelDBStore, checkpoint: int, digest: bytes) -> Any:
        newest = max([checkpoint, *self._delta_checkpoints()])
        if newest > checkpoint:
            checkpoint, digest = newest, self._fetch(newest).summary.digest
        return _original(self, checkpoint, digest)

    return recover


def _redo_by_id(_original: Any) -> Any:
    """All deltas between two checkpoints are done again, whoever their parents are."""

    def bring_to(self: LevelDBStore, target: Mark) -> None:
        if self._damage is not None:
            self._rebuild(target)
            return
        for checkpoint in self._delta_checkpoints():
            if self._applied.checkpoint < checkpoint <= target.checkpoint:
                delta = self._fetch(checkpoint)
                self._apply(delta.header, delta.summary, delta.blocks())

    return bring_to


# ---- the key-value database ----------------------------------------------------------------------------------------------
def _applied_first(_original: Any) -> Any:
    """The mark is written before the changes, which follow one by one."""

    def write(self: Database, blocks: Any, *, each: RecordBlock, last: RecordBlock) -> None:
        _original(self, [], each=each, last=last)
        for keys, values in blocks:
            for key, value in zip(keys, values, strict=True):
                _original(self, [], each=RecordBlock([], []), last=RecordBlock([key], [value]))

    return write


def _mark_before_flush(_original: Any) -> Any:
    def flush(self: LevelDBStore) -> None:
        self._flushed_file.write(self._applied)
        self._flushed = self._applied
        self._unflushed_deltas = self._unflushed_bytes = 0
        self._database.flush(store_module._FLUSH_WITNESS)  # noqa: SLF001

    return flush


def _no_flush(_original: Any) -> Any:
    """Deltas go as soon as they are applied, as if LevelDB's log were durable."""

    def flush(self: LevelDBStore) -> None:
        self._flushed = self._applied
        self._unflushed_deltas = self._unflushed_bytes = 0

    return flush


def _unchecked_reads(original: Any) -> Any:
    def get(self: SimulatedLevelDB, number: int, *, verify: bool) -> Any:
        del verify
        return original(self, number, verify=False)

    return get


# ---- manifest and incarnation --------------------------------------------------------------------------------------------
def _checked_written_by(**how: Any) -> Callable[[Any], Any]:
    def make(_original: Any) -> Any:
        def written(path: Path, form: FileForm, content: bytes, disk: FileSystem) -> None:
            head = _HEAD.pack(form.magic, form.version, len(content))
            with _durable_file(**how)(path, None, disk) as write:
                write(head + content + digest_of(head, content))

        return written

    return make


def _guess_newest(original: Any) -> Any:
    """The newest manifest that can be read counts, whatever is newer."""

    def newest(self: Any, job: str, *, accept_loss: bool = False) -> Any:
        del accept_loss
        return original(self, job, accept_loss=True)

    return newest


MUTATIONS: dict[str, Mutation] = {
    "manifest-renamed-before-fsync": Mutation(
        "a manifest gets its name before its content is durable",
        (Patch(manifest_module, "write_checked", _checked_written_by(rename_first=True)),),
    ),
    "manifest-folder-not-synced": Mutation(
        "a checkpoint counts as complete before the name of its manifest is durable",
        (Patch(manifest_module, "write_checked", _checked_written_by(sync_folder=False)),),
        "correctness: .* a power cut could take its manifest",
    ),
    "delta-not-synced": Mutation(
        "a delta is not fsynced",
        (Patch(store_module, "durable_file", _delta_written_by(sync=False)),),
        "correctness: .* a power cut could take this delta",
    ),
    "delta-folder-not-synced": Mutation(
        "the name of a delta is not made durable", (Patch(store_module, "durable_file", _delta_written_by(sync_folder=False)),)
    ),
    "fsync-tried-again": Mutation(
        "a failed fsync is tried again on the same file", (Patch(store_module, "durable_file", _delta_written_by(attempts=2)),)
    ),
    "prepared-before-written": Mutation(
        "a manifest is written before all deltas are",
        (
            Patch(LevelDBStore, "write_delta", _prepared_before_written),
            Patch(LevelDBStore, "apply_delta", _written_when_applied),
        ),
    ),
    "newest-delta-counts": Mutation(
        "a recovery goes to the newest delta instead of the one that the manifest names",
        (Patch(LevelDBStore, "recover", _recovery_keeps_newer),),
        r"correctness: shard \d+: the store is not as in checkpoint",
    ),
    "redo-by-id": Mutation(
        "deltas are applied in the order of their ids, and those that never counted are left there",
        (Patch(LevelDBStore, "_bring_to", _redo_by_id), Patch(store_module, "remove_file", _keep_files)),
    ),
    "applied-before-changes": Mutation(
        "the mark of a checkpoint is written before its changes", (Patch(Database, "write", _applied_first),)
    ),
    "mark-before-flush": Mutation(
        "LevelDB counts as flushed before it is", (Patch(LevelDBStore, "_flush", _mark_before_flush),)
    ),
    "deltas-without-flush": Mutation(
        "deltas are deleted although LevelDB was not flushed", (Patch(LevelDBStore, "_flush", _no_flush),)
    ),
    "reads-not-checked": Mutation(
        "LevelDB reads without comparing checksums", (Patch(SimulatedLevelDB, "_table", _unchecked_reads),)
    ),
    "incarnation-not-durable": Mutation(
        "an incarnation begins before its number is durable",
        (Patch(incarnation_module, "write_checked", _checked_written_by(sync=False, sync_folder=False)),),
    ),
    "damaged-manifest-skipped": Mutation(
        "an older manifest counts if the newest is damaged", (Patch(Manifests, "newest", _guess_newest),)
    ),
}
