"""Cells: all stored keys that are no records. Map entries, buffer elements, timers, tokens, operations, dead letters.

A cell is a key and bytes. It is written when the invocation that changed it commits, and encoded then, so a cut needs no
pre-images here: the changes since the last cut are a dictionary that is swapped. Keys are split into a *prefix* (one map of one
address, say) and a *suffix* within it, so that one map's changes are found without looking at everybody's.

Reads see the changes since the cut, those that are frozen for a checkpoint, and the store, in this order. Cells of maps are kept in
memory beyond that (``CellCache``). Invocations beside the loop, in threads perhaps, have a ``CellsBeside``, which only looks.
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


class CellReader(Protocol):
    """What an invocation reads of the cells."""

    def get(self, prefix: bytes, suffix: bytes) -> bytes | None:
        """The value of a cell; ``None`` if there is none."""

    def read(self, prefix: bytes, suffix: bytes) -> bytes | None:
        """As ``get``, of an entry of a map."""

    def scan(self, prefix: bytes, start: bytes = b"", stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """The cells of a prefix in order of their suffixes, as they are now, from ``start`` to before ``stop``."""


class Cells:
    """See the module. One in each ``RecordTable``.

    Args:
        cache_bytes: see ``CellCache``.
    """

    __slots__ = ("_frozen_bytes", "_layers", "_store", "cache", "changed_bytes", "failure")

    def __init__(self, store: Stored, cache_bytes: int) -> None:
        self._store = store
        self._layers: tuple[Changes, Changes] = {}, {}
        """The changes since the cut, and the frozen ones. One object: a thread takes both at once."""
        self._frozen_bytes = 0
        self.cache = CellCache(cache_bytes)
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
        changes, frozen = self._layers
        group = changes.get(prefix)
        if group is not None and suffix in group:
            return group[suffix]
        group = frozen.get(prefix)
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
        stripe = hash(key) & STRIPE
        young = cache.young[stripe]
        value = young.get(key, NOT_CACHED)
        if value is NOT_CACHED:
            value = cache.old[stripe].pop(key, NOT_CACHED)
            if value is NOT_CACHED:
                value = self.get(prefix, suffix)
                cache.add(stripe, key, value)
            else:
                young[key] = value
        return value  # type: ignore[no-any-return]

    def put(self, prefix: bytes, suffix: bytes, value: bytes | None) -> None:
        """Write a cell (``None``: delete it) as part of the next checkpoint. There is no way back: commit only."""
        changed = self._layers[0]
        group = changed.get(prefix)
        if group is None:
            group = changed[prefix] = {}
        group[suffix] = value
        self.changed_bytes += CELL_BYTES + len(suffix) + (len(value) if value is not None else 0)
        if prefix[KIND] == MAP_KIND:
            self.cache.write(prefix, {suffix: value})

    def put_all(self, prefix: bytes, changes: dict[bytes, bytes | None]) -> None:
        """As ``put``, of some cells of a prefix. Nothing if there are none."""
        if not changes:
            return
        changed = self._layers[0]
        group = changed.get(prefix)
        if group is None:
            group = changed[prefix] = {}
        group.update(changes)
        if prefix[KIND] == MAP_KIND:
            size = self.cache.write(prefix, changes)
        else:
            size = sum(map(len, changes)) + sum(map(len, filter(None, changes.values())))
        self.changed_bytes += len(changes) * CELL_BYTES + size

    def scan(self, prefix: bytes, start: bytes = b"", stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """The cells of a prefix in order of their suffixes, as they are now, from ``start`` to before ``stop``.

        Only the changed ones are held in memory; the rest streams from the store.
        """
        changes, frozen = self._layers
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
        changes, frozen = (layer.get(prefix) for layer in self._layers)
        if frozen is None:
            return {} if changes is None else dict(changes)
        return dict(frozen) if changes is None else {**frozen, **changes}

    def is_changed(self, prefix: bytes, suffix: bytes) -> bool:
        """Whether a cell was written or deleted since the last applied checkpoint."""
        return any(suffix in layer.get(prefix, ()) for layer in self._layers)

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
        return bool(self._layers[0])

    def freeze(self) -> None:
        """The cut."""
        self._layers = {}, self._layers[0]
        self._frozen_bytes, self.changed_bytes = self.changed_bytes, 0

    def frozen_pieces(self, size: int) -> Iterator[tuple[list[bytes], list[bytes | None]]]:
        """Keys and values of the frozen changes, in pieces of about ``size``."""
        keys: list[bytes] = []
        values: list[bytes | None] = []
        for prefix, group in self._layers[1].items():
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
            for layer in reversed(self._layers)
            for prefix, group in layer.items()
            for suffix, value in group.items()
        }

    def drop_frozen(self) -> None:
        """The checkpoint is applied: the store has these changes now."""
        self._layers = self._layers[0], {}
        self._frozen_bytes = 0

    def merge_frozen(self) -> None:
        """The checkpoint is aborted: its changes belong to the next one."""
        changes, merged = self._layers
        for prefix, group in changes.items():
            older = merged.get(prefix)
            merged[prefix] = group if older is None else {**older, **group}  # new objects: a running scan keeps its own
        self._layers = merged, {}
        self.changed_bytes += self._frozen_bytes
        self._frozen_bytes = 0


class CellsBeside:
    """The cells as invocations beside the loop see them, which may be in threads: nothing is changed, and nothing is kept.

    While one looks, the loop may move what it looks for from one place to the next, in this order: into the cache (with each write),
    the changes, the frozen changes, the store. So they look in that order, and take both kinds of changes at once: an abort moves
    back from one to the other.
    """

    __slots__ = ("_cells", "get", "scan")

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self.get = cells.get
        self.scan = cells.scan

    def read(self, prefix: bytes, suffix: bytes) -> bytes | None:
        """As of ``Cells``."""
        value = self._cells.cache.look(prefix + suffix)
        return self.get(prefix, suffix) if value is NOT_CACHED else value


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
