"""A key-value database with LevelDB's rules, over any ``FileSystem``: what the simulator has in LevelDB's place.

    CURRENT           names the manifest
    MANIFEST-<n>      a log whose newest record says which tables there are, and from which log on to read
    <n>.log           batches that are in no table yet: atomic, not fsynced
    <n>.ldb           a table: fsynced before the manifest names it

What is kinder than LevelDB: the name ``CURRENT`` is durable before what it named before is removed.
"""

from __future__ import annotations

import os
import re
import zlib
from bisect import bisect_left
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from shardfun.simulation.engine_log import LogWriter, read_log
from shardfun.state.filesystem import FileSystem
from shardfun.state.leveldb import EngineDamage, EngineError, OpenEngine
from shardfun.state.options import StoreOptions

TABLES_MAX = 4
READ_ALL = 1 << 40
_NUMBER = re.compile(r"\d{6,}")

Pair = tuple[bytes, bytes | None]
_decode_pairs = msgspec.msgpack.Decoder(list[Pair]).decode
_encode = msgspec.msgpack.Encoder().encode


class _Version(msgspec.Struct, array_like=True):
    """What a manifest says."""

    tables: list[int]
    log: int
    next: int


_decode_version = msgspec.msgpack.Decoder(_Version).decode


def simulated_leveldb(
    files: FileSystem, damages: Callable[[], int] = lambda: 0, look_again: Callable[[Path], None] = lambda _: None
) -> OpenEngine:
    """Opens databases on a file system.

    Args:
        damages: counts bits that have flipped; what was read before is read again when it changes.
        look_again: called for a table that is looked into and was read before; may raise ``OSError``.
    """

    def open_engine(path: Path, options: StoreOptions, paranoid: bool) -> SimulatedLevelDB:  # noqa: FBT001 - as OpenEngine
        return SimulatedLevelDB(files, path, options, damages, look_again, paranoid=paranoid)

    return open_engine


class SimulatedLevelDB:
    """Implements ``Engine``. See the module."""

    def __init__(
        self,
        files: FileSystem,
        path: Path,
        options: StoreOptions,
        damages: Callable[[], int],
        look_again: Callable[[Path], None],
        *,
        paranoid: bool,
    ) -> None:
        self._files = files
        self._path = path
        self._buffer_bytes = options.write_buffer_bytes
        self._damages = damages
        self._look_again = look_again
        self._seen_damages = damages()
        self._recent: dict[bytes, bytes | None] = {}
        self._recent_bytes = 0
        self._tables: dict[int, dict[bytes, bytes | None] | None] = {}
        """By number, the oldest first; ``None``: to be read."""
        self._sorted: list[tuple[bytes, bytes]] | None = None
        self._failed: OSError | None = None
        """A background error: all later writes fail with it."""
        self._log_file: int | None = None
        self._log = LogWriter()
        self._log_number = self._next = 0
        self._manifest_file: int | None = None
        self._manifest = LogWriter()
        with _as_engine_error():
            self._open(paranoid=paranoid)

    # ---- opening --------------------------------------------------------------------------------------------------------
    def _open(self, *, paranoid: bool) -> None:
        files, path = self._files, self._path
        old = _Version([], 0, 1)
        if files.exists(path / "CURRENT"):
            old = self._read_version()
        present = set(files.names(path))
        # LevelDB writes over what a death has left behind; here files are only made anew.
        self._next = max(old.next, *(int(number) + 1 for name in present for number in _NUMBER.findall(name)), 1)
        missing = [number for number in old.tables if f"{number:06d}.ldb" not in present]
        if missing:
            raise EngineDamage(f"Corruption: {len(missing)} missing files".encode())
        self._tables = dict.fromkeys(old.tables)
        for name in sorted(present):
            if name.endswith(".log") and int(name[:-4]) >= old.log:
                self._replay(path / name, paranoid=paranoid)
        if self._recent:
            self._write_table()
        self._begin_log()
        self._begin_manifest()
        self._remove_obsolete()

    def _read_version(self) -> _Version:
        name = self._files.read(self._path / "CURRENT", 0, READ_ALL).decode(errors="replace")
        if not name.startswith("MANIFEST-") or not name.endswith("\n"):
            raise EngineDamage(b"Corruption: CURRENT file does not end with newline")
        records, damaged = read_log(self._files.read(self._path / name.strip().replace("/", "_"), 0, READ_ALL))
        if damaged or not records:
            raise EngineDamage(b"Corruption: the MANIFEST is damaged")
        return _decode_version(records[-1])

    def _replay(self, path: Path, *, paranoid: bool) -> None:
        records, damaged = read_log(self._files.read(path, 0, READ_ALL))
        if damaged and paranoid:
            raise EngineDamage(b"Corruption: checksum mismatch")
        for record in records:
            self._recent.update(_decode_pairs(record))

    def _begin_log(self) -> None:
        number, self._next = self._next, self._next + 1
        self._log_file, old = self._files.create(self._path / f"{number:06d}.log"), self._log_file
        self._log, self._log_number = LogWriter(), number
        if old is not None:
            self._files.close(old)

    def _begin_manifest(self) -> None:
        name = f"MANIFEST-{self._next:06d}"
        self._next += 1
        self._manifest_file = self._files.create(self._path / name)
        self._record_version()
        temporary = self._path / f"{self._next:06d}.dbtmp"
        self._next += 1
        descriptor = self._files.create(temporary)
        self._write_all(descriptor, f"{name}\n".encode())
        self._files.fsync(descriptor)
        self._files.close(descriptor)
        self._files.rename(temporary, self._path / "CURRENT")
        self._files.sync_folder(self._path)

    def _record_version(self) -> None:
        """Append to the manifest. The names of the tables in it are durable first, as LevelDB has it."""
        assert self._manifest_file is not None
        record = _encode(_Version(list(self._tables), self._log_number, self._next))
        self._files.sync_folder(self._path)
        self._write_all(self._manifest_file, self._manifest.encode(record))
        self._files.fsync(self._manifest_file)

    def _remove_obsolete(self) -> None:
        """Remove what the manifest does not name. What cannot be removed stays until the next time."""
        keep = {f"{number:06d}.ldb" for number in self._tables} | {f"{self._log_number:06d}.log", "CURRENT"}
        with suppress(OSError):
            names = self._files.names(self._path)
            manifest = max(name for name in names if name.startswith("MANIFEST-"))
            for name in names:
                if name not in keep and name != manifest:
                    self._files.unlink(self._path / name)

    # ---- writing --------------------------------------------------------------------------------------------------------
    def put(self, key: bytes, value: bytes) -> None:
        """One pair."""
        self._write([(key, value)])

    def write_batch(self) -> _Batch:
        """Pairs that are written in one step."""
        return _Batch(self._write)

    def _write(self, pairs: list[Pair]) -> None:
        if self._failed is not None:
            raise EngineError(f"IO error: {self._failed}".encode()) from self._failed
        assert self._log_file is not None
        with _as_engine_error():
            self._write_all(self._log_file, self._log.encode(_encode(pairs)))
        self._recent.update(pairs)
        self._recent_bytes += sum(len(key) + len(value or b"") for key, value in pairs)
        self._sorted = None
        if self._recent_bytes > self._buffer_bytes:
            self._flush()

    def compact_range(self, *, start: bytes, stop: bytes) -> None:
        """Put what is only in the log into a table. Whatever goes wrong is told to the next write only."""
        del start, stop
        if self._failed is None:
            self._flush()

    def _flush(self) -> None:
        try:
            self._begin_log()
            if self._recent:
                self._write_table()
            self._record_version()
        except OSError as error:
            self._failed = error
            return
        self._remove_obsolete()

    def _write_table(self) -> None:
        """What is recent becomes a table; when there are many, all of them become one."""
        content, number = self._recent, self._next
        merged = len(self._tables) >= TABLES_MAX
        if merged:
            try:
                content = {key: value for key, value in self._merged().items() if value is not None}
            except EngineError:  # a damaged table stays as it is, and is found by who reads it
                merged, content = False, self._recent
        self._next += 1
        descriptor = self._files.create(self._path / f"{number:06d}.ldb")
        body = _encode(sorted(content.items()))
        self._write_all(descriptor, zlib.crc32(body).to_bytes(4, "big") + body)
        self._files.fsync(descriptor)
        self._files.close(descriptor)
        if merged:
            self._tables = {}
        self._tables[number] = dict(content)
        self._recent = {}
        self._recent_bytes = 0
        self._sorted = None

    def _write_all(self, descriptor: int, piece: bytes) -> None:
        done = 0
        while done < len(piece):
            done += self._files.write(descriptor, piece[done:])

    # ---- reading --------------------------------------------------------------------------------------------------------
    def get(self, key: bytes, *, verify_checksums: bool) -> bytes | None:
        """The value of ``key``; a table that has to be looked into is checked, if asked for."""
        if key in self._recent:
            return self._recent[key]
        for number in reversed(self._tables):
            table = self._table(number, verify=verify_checksums)
            if key in table:
                return table[key]
        return None

    def iterator(
        self,
        *,
        start: bytes = b"",
        stop: bytes | None = None,
        include_value: bool = True,
        verify_checksums: bool,
        fill_cache: bool = True,
    ) -> _Iterator:
        """Pairs as they are now."""
        del fill_cache
        self._drop_if_damaged()
        if self._sorted is None:
            try:
                merged = self._merged(verify=verify_checksums)
            except EngineError as error:
                return _Iterator([], start, stop, keys_only=True, error=error)
            self._sorted = sorted((key, value) for key, value in merged.items() if value is not None)
        return _Iterator(self._sorted, start, stop, keys_only=not include_value)

    def _merged(self, *, verify: bool = True) -> dict[bytes, bytes | None]:
        merged: dict[bytes, bytes | None] = {}
        for number in self._tables:
            merged |= self._table(number, verify=verify)
        return merged | self._recent

    def _drop_if_damaged(self) -> None:
        """What was read may not be what is stored any more."""
        if self._damages() != self._seen_damages:
            self._seen_damages = self._damages()
            self._tables = dict.fromkeys(self._tables)
            self._sorted = None

    def _table(self, number: int, *, verify: bool) -> dict[bytes, bytes | None]:
        self._drop_if_damaged()
        table, path = self._tables[number], self._path / f"{number:06d}.ldb"
        if table is not None:
            with _as_engine_error():
                self._look_again(path)
        else:
            with _as_engine_error():
                raw = self._files.read(path, 0, READ_ALL)
            if verify and zlib.crc32(raw[4:]).to_bytes(4, "big") != raw[:4]:
                raise EngineDamage(b"Corruption: block checksum mismatch")
            try:
                table = dict(_decode_pairs(raw[4:]))
            except msgspec.DecodeError as error:
                raise EngineDamage(b"Corruption: bad entry in block") from error
            self._tables[number] = table
        return table

    def close(self) -> None:
        """Close the files."""
        for descriptor in (self._log_file, self._manifest_file):
            if descriptor is not None:
                with suppress(OSError):
                    self._files.close(descriptor)
        self._log_file = self._manifest_file = None


class _Batch:
    """As plyvel's."""

    def __init__(self, write: Callable[[list[Pair]], None]) -> None:
        self._write = write
        self._pairs: list[Pair] = []

    def put(self, key: bytes, value: bytes) -> None:
        self._pairs.append((key, value))

    def delete(self, key: bytes) -> None:
        self._pairs.append((key, None))

    def approximate_size(self) -> int:
        return sum(len(key) + len(value or b"") for key, value in self._pairs)

    def write(self) -> None:
        self._write(self._pairs)


class _Iterator:
    """As plyvel's, forwards. What is damaged is found by the first step."""

    def __init__(
        self,
        pairs: list[tuple[bytes, bytes]],
        start: bytes,
        stop: bytes | None,
        *,
        keys_only: bool,
        error: EngineError | None = None,
    ) -> None:
        self._error = error
        self._pairs = pairs
        self._end = len(pairs) if stop is None else bisect_left(pairs, (stop,))
        self._start = start
        self._keys_only = keys_only
        self.seek(start)

    def seek(self, key: bytes) -> None:
        self._at = bisect_left(self._pairs, (max(key, self._start),))

    def __iter__(self) -> _Iterator:
        return self

    def __next__(self) -> Any:
        if self._error is not None:
            raise self._error
        if self._at >= self._end:
            raise StopIteration
        pair = self._pairs[self._at]
        self._at += 1
        return pair[0] if self._keys_only else pair

    def close(self) -> None:
        self._end = 0


class _as_engine_error:  # noqa: N801 - used as a function; a generator would cost more
    """LevelDB's words for what the system says."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            reason = os.strerror(error.errno or 0)
            raise EngineError(f"IO error: {error.filename}: {reason}".encode()) from error
