"""LevelDB, made safe: the only module that imports plyvel.

Each call verifies checksums and maps plyvel's errors to ours. What a store means by its keys, deltas and marks is not known here.

Tried and found, and why things are as they are here:

- Without ``verify_checksums`` a flipped byte in a table is returned as good data.
- Without ``paranoid_checks`` a damaged record in the middle of the log is skipped silently at open.
- After a failed append the log may hold half a record, and LevelDB goes on behind it; a failed background flush makes all
  later writes fail. So after any failed write the database has to be opened again (``failed``).
- ``compact_range`` swallows errors. So a write after it asks whether the flush went well.
- ``with write_batch()`` writes the partial batch even if the block raises: batches are written by an explicit call.
- Closing while another thread is inside a call is a crash of the process. So reads and ``close`` share a lock; writes come from
  the one thread that also closes.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

import plyvel

from shardfun.errors import CorruptionError, StorageError
from shardfun.failpoints import Point, reached
from shardfun.model.delta import RecordBlock
from shardfun.state.files import storage_error, sync_directory
from shardfun.state.filesystem import REAL_FILES, FileSystem
from shardfun.state.options import StoreOptions

BLOCK_BYTES = 1024  # a cold read looks at a whole block: with LevelDB's 4 KiB a small record takes a third longer
CHUNK_RECORDS = 2000
CHUNK_BYTES = 4 << 20
FILL_RECORDS = 250  # how often the size of a growing batch is looked at
SCAN_RECORDS = 256  # pairs fetched each time the lock is taken
SCAN_SEEKS = 100

_NOTHING = (b"\xff\xff", b"\xff\xff\xff")  # a key range that is always empty
_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS, errno.EMFILE, errno.EACCES, errno.EPERM)
_DAMAGE = (os.strerror(errno.ENOENT), os.strerror(errno.EINVAL))  # a file is gone, or shorter than the database knows it

EngineError = plyvel.Error
EngineDamage = plyvel.CorruptionError


class Engine(Protocol):
    """What we use of plyvel. It raises ``EngineError``; ``EngineDamage`` if checksums do not fit."""

    def get(self, key: bytes, *, verify_checksums: bool) -> bytes | None: ...  # noqa: D102
    def put(self, key: bytes, value: bytes) -> None: ...  # noqa: D102
    def write_batch(self) -> Any: ...  # noqa: D102
    def iterator(  # noqa: D102
        self,
        *,
        start: bytes = ...,
        stop: bytes | None = ...,
        include_value: bool = ...,
        verify_checksums: bool,
        fill_cache: bool = ...,
    ) -> Any: ...
    def compact_range(self, *, start: bytes, stop: bytes) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


OpenEngine = Callable[[Path, StoreOptions, bool], Engine]
"""Opens the database of a folder, or makes it; the last argument: check everything (``paranoid``)."""


def open_leveldb(path: Path, options: StoreOptions, paranoid: bool) -> Engine:  # noqa: FBT001 - one kind of call, as OpenEngine
    """LevelDB.

    Raises:
        plyvel.Error: as it says.
    """
    database: Engine = plyvel.DB(
        str(path),
        create_if_missing=True,
        paranoid_checks=paranoid,
        write_buffer_size=options.write_buffer_bytes,
        lru_cache_size=options.cache_bytes,
        bloom_filter_bits=options.bloom_bits,
        max_open_files=options.open_files_max,
        block_size=BLOCK_BYTES,
        compression=None,  # a read of a cold key takes 8.7 us instead of 21, for three times the disk
    )
    return database


LEVELDB: Final[OpenEngine] = open_leveldb


class Database:
    """One LevelDB directory.

    ``get`` and ``scan`` may come from another thread than the rest. Whoever opens or repairs holds ``exclusive`` around it, so
    that no read sees what is in between.

    Raises:
        CorruptionError: (any call) the files are damaged.
        StorageError: (any call) the disk refused, another process holds the database, or it is closed.
    """

    def __init__(self, path: Path, options: StoreOptions, disk: FileSystem = REAL_FILES, engine: OpenEngine = LEVELDB) -> None:
        self.path = path
        self._disk = disk
        self._engine = engine
        self.failed = False
        """A write went wrong: reads are good, but the database has to be opened again before the next write."""
        self.exclusive = threading.RLock()
        self._options = options
        self._db: Any = None
        self._generation = 0
        self._closed_for: BaseException | None = None

    @property
    def is_open(self) -> bool:
        """Whether reads are possible."""
        return self._db is not None

    @property
    def lost(self) -> bool:
        """Whether it is closed because it could not be opened again."""
        return self._db is None and self._closed_for is not None

    @property
    def exists(self) -> bool:
        """Whether there is a database to open."""
        path = self.path / "CURRENT"
        try:
            return self._disk.exists(path)
        except OSError as error:
            raise storage_error("read", path, error) from error

    @property
    def has_strays(self) -> bool:
        """Whether there are files of a database that lost its ``CURRENT``: a new one in this place would read them as its own."""
        try:
            return bool(self._disk.names(self.path))
        except OSError as error:
            raise storage_error("list", self.path, error) from error

    def open(self, *, paranoid: bool) -> None:
        """Open, and create what does not exist."""
        with self.exclusive:
            self.close()
            try:
                self._db = self._engine(self.path, self._options, paranoid)
            except plyvel.Error as error:
                raise self._mapped(error, "open") from error
            self.failed = False

    def close(self, why: BaseException | None = None) -> None:
        """Close; running scans end with an error. Safe to call twice.

        Args:
            why: what went wrong before; whoever reads from now on is told.
        """
        with self.exclusive:
            self._closed_for = why
            if self._db is not None:
                self._db.close()
                self._db = None
                self._generation += 1

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key``."""
        self.exclusive.acquire()  # ``with`` takes 0.3 us longer, a tenth of a read
        try:
            if self._db is None:
                raise self.closed()
            value: bytes | None = self._db.get(key, verify_checksums=True)
        except plyvel.Error as error:
            raise self._mapped(error, "read") from error
        finally:
            self.exclusive.release()
        return value

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with ``start <= key < stop``, as they are at the moment of this call."""
        with self.exclusive:
            if self._db is None:
                raise self.closed()
            iterator = self._db.iterator(start=start, stop=stop, verify_checksums=True, fill_cache=False)
            return self._fetch(iterator, self._generation)

    def scan_kind(self, kind: bytes, first: int, end: int) -> Iterator[tuple[bytes, bytes]]:
        """Pairs of the slots ``first`` to before ``end`` whose key has ``kind`` behind the slot. Goes from slot to slot by seeks,
        so what is of other kinds is not read.
        """
        with self.exclusive:
            if self._db is None:
                raise self.closed()
            start, stop = first.to_bytes(2, "big"), end.to_bytes(2, "big")
            iterator = self._db.iterator(start=start, stop=stop, verify_checksums=True, fill_cache=False)
            generation = self._generation
        at: bytes | None = start + kind
        while at is not None:
            with self.exclusive:
                if generation != self._generation:
                    raise StorageError(f"{self.path}: the store was opened again during a scan; scan again")
                try:
                    pairs, at = _of_kind(iterator, kind, at)
                except plyvel.Error as error:
                    raise self._mapped(error, "scan") from error
            yield from pairs

    def seeker(self, stop: bytes) -> Callable[[bytes], bytes | None]:
        """Gives the first key from a given one on and before ``stop``, of a snapshot taken now."""
        with self.exclusive:
            if self._db is None:
                raise self.closed()
            iterator = self._db.iterator(stop=stop, include_value=False, verify_checksums=True, fill_cache=False)
            generation = self._generation

        def seek(key: bytes) -> bytes | None:
            with self.exclusive:
                if generation != self._generation:
                    raise StorageError(f"{self.path}: the store was opened again during a scan; scan again")
                try:
                    iterator.seek(key)
                    found: bytes | None = next(iterator, None)
                except plyvel.Error as error:
                    raise self._mapped(error, "scan") from error
            return found

        return seek

    def _fetch(self, iterator: Any, generation: int) -> Iterator[tuple[bytes, bytes]]:
        while True:
            with self.exclusive:
                if generation != self._generation:
                    raise StorageError(f"{self.path}: the store was opened again during a scan; scan again")
                try:
                    pairs = list(islice(iterator, SCAN_RECORDS))
                except plyvel.Error as error:
                    raise self._mapped(error, "scan") from error
                if not pairs:
                    iterator.close()
                    return
            yield from pairs

    def write(self, blocks: Iterable[RecordBlock], *, each: RecordBlock, last: RecordBlock) -> None:
        """Write blocks in chunks that are atomic: ``each`` goes into every chunk, ``last`` into the last one.

        After a crash a prefix of the chunks is there.
        """
        if self._db is None:
            raise self.closed()
        try:
            batch = self._db.write_batch()
            _fill(batch, each)
            count = 0
            for keys, values in blocks:
                for start in range(0, len(keys), FILL_RECORDS):
                    piece = keys[start : start + FILL_RECORDS]
                    _fill(batch, RecordBlock(piece, values[start : start + FILL_RECORDS]))
                    count += len(piece)
                    if count >= CHUNK_RECORDS or batch.approximate_size() >= CHUNK_BYTES:
                        batch.write()
                        reached(Point.APPLY_CHUNK)
                        batch = self._db.write_batch()
                        _fill(batch, each)
                        count = 0
            _fill(batch, last)
            reached(Point.APPLY_CHUNK)
            batch.write()
        except plyvel.Error as error:
            self.failed = True
            raise self._mapped(error, "write") from error
        except OSError as error:  # of a failpoint
            self.failed = True
            raise storage_error("write", self.path, error) from error

    def flush(self, witness: bytes) -> None:
        """Force everything written so far into table files, which LevelDB fsyncs.

        Args:
            witness: a key of no meaning, written afterwards: LevelDB reports a flush that failed only to the next write.
        """
        if self._db is None:
            raise self.closed()
        try:
            self._db.compact_range(start=_NOTHING[0], stop=_NOTHING[1])
            self._db.put(witness, b"")
        except plyvel.Error as error:
            self.failed = True
            raise self._mapped(error, "flush") from error
        sync_directory(self.path, self._disk)

    def closed(self) -> StorageError:
        """The error of whoever uses it while it is closed."""
        why = self._closed_for
        error = StorageError(
            f"{self.path}: the store is closed, or damaged and not yet recovered" + ("" if why is None else f": {why}")
        )
        error.__cause__ = why
        return error

    def _mapped(self, error: plyvel.Error, doing: str) -> StorageError:
        text = _text(error)
        if isinstance(error, plyvel.CorruptionError) or any(reason in text for reason in _DAMAGE):
            return CorruptionError(f"{self.path}: cannot {doing}: the database is damaged: {text}")
        if "LOCK" in text:
            return StorageError(f"{self.path}: cannot {doing}: another process has it open ({text}); end that shard process")
        code = next((code for code in _ERRNOS if os.strerror(code) in text), None)
        return StorageError(f"{self.path}: cannot {doing}: {text}", errno=code)


def _fill(batch: Any, block: RecordBlock) -> None:
    put, delete = batch.put, batch.delete
    if None not in block.values and len(block.keys) == len(block.values):
        deque(map(put, block.keys, block.values), maxlen=0)  # half as long with the GIL as the loop below
        return
    for key, value in zip(block.keys, block.values, strict=True):
        if value is None:
            delete(key)
        else:
            put(key, value)


def _text(error: plyvel.Error) -> str:
    """LevelDB's message, which plyvel hands on as bytes."""
    return " ".join(part.decode(errors="replace") if isinstance(part, bytes) else str(part) for part in error.args)


def _of_kind(iterator: Any, kind: bytes, at: bytes) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
    """Some pairs of a kind from the key ``at`` on, and the key to go on from; ``None`` at the end."""
    pairs: list[tuple[bytes, bytes]] = []
    for _ in range(SCAN_SEEKS):
        prefix = at[:2] + kind
        iterator.seek(at)
        for pair in iterator:
            key = pair[0]
            if not key.startswith(prefix):
                break
            pairs.append(pair)
            if len(pairs) == SCAN_RECORDS:
                return pairs, key + b"\0"
        else:
            return pairs, None
        slot = int.from_bytes(key[:2], "big") + (key[2:3] > kind)
        at = slot.to_bytes(2, "big") + kind
    return pairs, at
