"""Cells: all stored keys that are no records. Map entries, buffer elements, timers, tokens, operations, dead letters.

A cell is a key and bytes. It is written when the invocation that changed it commits, and encoded then, so a cut needs no
pre-images here: the changes since the last cut are a dictionary that is swapped. Keys are split into a *prefix* (one map of one
address, say) and a *suffix* within it, so that one map's changes are found without looking at everybody's.

Reads see the changes since the cut, those that are frozen for a checkpoint, and the store, in this order. Cells of maps are kept in
memory beyond that (``CellCache``).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import islice
from typing import Protocol

from shardfun.core.cell_cache import NOT_CACHED, STRIPE, CellCache
from shardfun.core.cell_keys import KIND, MAP_KIND
from shardfun.errors import CorruptionError, StorageError

CELL_BYTES = 200  # of memory for a changed cell besides its key and value: two dictionary entries and two objects

Changes = dict[bytes, dict[bytes, bytes | None]]
"""By prefix and suffix; ``None`` deletes."""


class Stored(Protocol):
    """What the core reads of a store: exactly the last applied checkpoint."""

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key``."""

    def scan(self, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Keys that begin with ``prefix``, from ``prefix + start`` on, and their values in order, as they are now."""


class Cells:
    """See the module. One in each ``RecordTable``."""

    __slots__ = ("_changes", "_frozen", "_frozen_bytes", "_store", "cache", "changed_bytes", "failure")

    def __init__(self, store: Stored) -> None:
        self._store = store
        self._changes: Changes = {}
        self._frozen: Changes = {}
        self._frozen_bytes = 0
        self.cache = CellCache()
        self.changed_bytes = 0
        """Estimated memory of the changes since the last cut."""
        self.failure: StorageError | None = None
        """The store could not be read: no matter of the function that asked, and whatever it does about it, the shard stops."""

    @property
    def pending_bytes(self) -> int:
        """Estimated memory of all changes that are in no applied checkpoint."""
        return self.changed_bytes + self._frozen_bytes

    def get(self, prefix: bytes, suffix: bytes) -> bytes | None:
        """The value of a cell; ``None`` if there is none."""
        group = self._changes.get(prefix)
        if group is not None and suffix in group:
            return group[suffix]
        group = self._frozen.get(prefix)
        if group is not None and suffix in group:
            return group[suffix]
        try:
            return self._store.get(prefix + suffix)
        except StorageError as error:
            self.failure = error
            raise

    def read(self, prefix: bytes, suffix: bytes) -> bytes | None:
        """As ``get``, of an entry of a map: it is kept in memory, since it may be asked for again."""
        cache, key = self.cache, prefix + suffix
        young = cache.young[hash(key) & STRIPE]
        value = young.get(key, NOT_CACHED)
        if value is not NOT_CACHED:
            return value  # type: ignore[no-any-return]
        value = cache.take_old(key)
        if value is NOT_CACHED:
            value = self.get(prefix, suffix)
        return cache.add(young, key, value)

    def put(self, prefix: bytes, suffix: bytes, value: bytes | None) -> None:
        """Write a cell (``None``: delete it) as part of the next checkpoint. There is no way back: commit only."""
        group = self._changes.get(prefix)
        if group is None:
            group = self._changes[prefix] = {}
        group[suffix] = value
        self.changed_bytes += CELL_BYTES + len(suffix) + (len(value) if value is not None else 0)
        if prefix[KIND] == MAP_KIND:
            self.cache.write(prefix, {suffix: value})

    def put_all(self, prefix: bytes, changes: dict[bytes, bytes | None]) -> None:
        """As ``put``, of some cells of a prefix. Nothing if there are none."""
        if not changes:
            return
        group = self._changes.get(prefix)
        if group is None:
            group = self._changes[prefix] = {}
        group.update(changes)
        size = self.changed_bytes
        for suffix, value in changes.items():
            size += CELL_BYTES + len(suffix)
            if value:
                size += len(value)
        self.changed_bytes = size
        if prefix[KIND] == MAP_KIND:
            self.cache.write(prefix, changes)

    def scan(self, prefix: bytes, start: bytes = b"", stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """The cells of a prefix in order of their suffixes, as they are now, from ``start`` to before ``stop``.

        Only the changed ones are held in memory; the rest streams from the store.
        """
        frozen, changes = self._frozen, self._changes  # at once: a blocking function's thread may ask while the loop cuts
        changed = in_range(frozen.get(prefix, {}), start, stop)
        changed.update(in_range(changes.get(prefix, {}), start, stop))
        return overlay(changed, self.scan_stored(prefix, start, stop))

    def scan_stored(self, prefix: bytes, start: bytes = b"", stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """As ``scan``, of what the store has, without the changes. The scan is begun here and not at the first step."""
        try:
            return self._stream(self._store.scan(prefix, start), prefix, start, stop)
        except StorageError as error:
            self.failure = error
            raise

    def _stream(
        self, stored: Iterator[tuple[bytes, bytes]], prefix: bytes, start: bytes, stop: bytes | None
    ) -> Iterator[tuple[bytes, bytes]]:
        """A store that is opened again ends its scans (after a full disk, say). Then it goes on behind where it was: the store
        changes only by what is applied, and that is among the changes which the scan holds.
        """
        skip = len(prefix)
        tried = False
        while True:
            try:
                for key, value in stored:
                    suffix = key[skip:]
                    if stop is not None and suffix >= stop:
                        return
                    tried = False
                    start = suffix + b"\0"
                    yield suffix, value
            except StorageError as error:
                if tried or isinstance(error, CorruptionError):
                    self.failure = error
                    raise
            else:
                return
            tried = True
            stored = self._store.scan(prefix, start)

    def changes_of(self, prefix: bytes) -> dict[bytes, bytes | None]:
        """A copy of what has changed in a prefix since the last applied checkpoint: 10 ms for a million cells."""
        frozen, changes = self._frozen.get(prefix), self._changes.get(prefix)
        if frozen is None:
            return {} if changes is None else dict(changes)
        return dict(frozen) if changes is None else {**frozen, **changes}

    def is_changed(self, prefix: bytes, suffix: bytes) -> bool:
        """Whether a cell was written or deleted since the last applied checkpoint."""
        return any(suffix in changes.get(prefix, ()) for changes in (self._changes, self._frozen))

    def scan_unchanged(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """As ``scan``, without the cells that have changed. Costs nothing for those, but whoever asks has to know them."""
        skip = len(prefix)
        for key, value in self._store.scan(prefix, start):
            suffix = key[skip:]
            if not self.is_changed(prefix, suffix):
                yield suffix, value

    # ---- checkpoints ----------------------------------------------------------------------------------------------------
    @property
    def changed(self) -> bool:
        """Whether anything has changed since the last cut."""
        return bool(self._changes)

    def freeze(self) -> None:
        """The cut."""
        self._frozen, self._changes = self._changes, {}
        self._frozen_bytes, self.changed_bytes = self.changed_bytes, 0

    def frozen_pieces(self, size: int) -> Iterator[tuple[list[bytes], list[bytes | None]]]:
        """Keys and values of the frozen changes, in pieces of about ``size``."""
        keys: list[bytes] = []
        values: list[bytes | None] = []
        for prefix, group in self._frozen.items():
            items = iter(group.items())
            while piece := list(islice(items, size - len(keys))):
                keys += [prefix + suffix for suffix, _ in piece]
                values += [value for _, value in piece]
                if len(keys) >= size:
                    yield keys, values
                    keys, values = [], []
        if keys:
            yield keys, values

    def unapplied(self) -> dict[bytes, bytes | None]:
        """All changes that are in no applied checkpoint, by their whole keys: for those who look at everything, such as tests."""
        return {
            prefix + suffix: value
            for changes in (self._frozen, self._changes)
            for prefix, group in changes.items()
            for suffix, value in group.items()
        }

    def drop_frozen(self) -> None:
        """The checkpoint is applied: the store has these changes now."""
        self._frozen = {}
        self._frozen_bytes = 0

    def merge_frozen(self) -> None:
        """The checkpoint is aborted: its changes belong to the next one."""
        merged = self._frozen
        for prefix, group in self._changes.items():
            older = merged.get(prefix)
            merged[prefix] = group if older is None else {**older, **group}  # new objects: a running scan keeps its own
        self._changes, self._frozen = merged, {}
        self.changed_bytes += self._frozen_bytes
        self._frozen_bytes = 0


def in_range(changes: dict[bytes, bytes | None], start: bytes, stop: bytes | None) -> dict[bytes, bytes | None]:
    """A copy of the changes from ``start`` to before ``stop``."""
    if not start and stop is None:
        return dict(changes)
    return {key: value for key, value in changes.items() if key >= start and (stop is None or key < stop)}


def overlay(changes: dict[bytes, bytes | None], below: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """Changes over what comes in order from below: the changed in the place of the others, without the deleted."""
    if not changes:
        return below
    mine = sorted(changes.items())
    unchanged = (pair for pair in below if pair[0] not in changes)
    both: Iterator[tuple[bytes, bytes | None]] = heapq.merge(mine, unchanged)  # no key is in both, so values never compare
    return ((key, value) for key, value in both if value is not None)
