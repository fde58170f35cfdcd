"""State in memory: the records of all addresses in use, what has changed since the last cut, and what may be forgotten.

The store holds exactly the last applied checkpoint; this table holds what came after. A cut is O(1): the list of changed
records is swapped and a new epoch begins. Nothing is copied. A record that changed before the cut and is touched after it saves
its old values first (a *pre-image*), so the encoder, which works later and in pieces, still sees the state of the cut.

Forgetting is done by generations, so that a hit costs nothing: records in use are in ``young``. When more is kept than the budget,
that becomes ``old``; what is touched again moves back, and the others go one by one, as room is needed, until none is left and
``young`` becomes old again. See ``docs/decisions/031``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shardfun.core.cells import Cells, Stored
from shardfun.core.function import RECORD_BYTES, CompiledFunction
from shardfun.core.limits import Limits
from shardfun.model.address import namespace_of

SWEEP_RECORDS = 500
NEW_SHARE = 8
"""Of what is kept so much must be new since the turn for the next one: else all was changed, and could not be forgotten."""
LIMIT_SHARE = 4
"""By so much of the budget entries of maps may go beyond it until the next sweep. A function can read a whole map."""

Piece = tuple[list[bytes], list[bytes | None]]
"""Keys and values."""


class Epoch:
    """The time between two cuts. Compared by identity: a record carries the epoch it was last touched and changed in."""

    __slots__ = ()


class Generation:
    """The records of one function type, by id."""

    __slots__ = ("function", "old", "young")

    def __init__(self, function: CompiledFunction) -> None:
        self.function = function
        self.young: dict[str, Any] = {}
        self.old: dict[str, Any] = {}

    def find(self, id: str) -> Any:
        """The record of an id if it is in memory; it stays where it is. ``None``: it is not."""
        record = self.young.get(id)
        return self.old.get(id) if record is None else record

    def remove(self, id: str) -> None:
        """Without a record of that id from now on, if there is one."""
        self.young.pop(id, None)
        self.old.pop(id, None)

    def all(self) -> dict[str, Any]:
        """All records in memory by id, the old ones first."""
        return {**self.old, **self.young}


class Frozen:
    """What had changed when a checkpoint was cut, until that checkpoint is applied or aborted."""

    __slots__ = ("encoded", "epoch", "pre_images", "records")

    def __init__(self, epoch: Epoch, records: list[Any]) -> None:
        self.epoch = epoch
        self.records = records
        self.pre_images: dict[bytes, tuple[Any, ...]] = {}
        self.encoded = False


class RecordTable:
    """All records of a shard in one incarnation.

    Args:
        store: what is stored as of the last applied checkpoint.
        functions: all function types, in a fixed order.
    """

    __slots__ = (
        "_bytes_per_change",
        "_generations",
        "_kept",
        "_limits",
        "_read",
        "cached_bytes",
        "cells",
        "dirty",
        "epoch",
        "frozen",
        "generations",
    )

    def __init__(self, functions: list[CompiledFunction], store: Stored, limits: Limits) -> None:
        self.epoch = Epoch()
        self.dirty: list[Any] = []
        self.cells = Cells(store, limits.cache_bytes)
        self.frozen: Frozen | None = None
        self.cached_bytes = 0
        self.generations: dict[str, Generation] = {}
        self._generations: list[Generation] = []
        for function in functions:
            if namespace_of(function.spec.typename) is None:
                self.generation_of(function)
        self._read = store.get
        self._limits = limits
        self._kept = 0
        """Records that the sweeps since the last turn met and could not forget. They are in ``young``."""
        self._bytes_per_change = RECORD_BYTES

    def generation_of(self, function: CompiledFunction) -> Generation:
        """The part of the table that belongs to a function type, made when it is first asked for."""
        typename = function.spec.typename
        generation = self.generations.get(typename)
        if generation is None:
            made = Generation(function)
            generation = self.generations.setdefault(typename, made)  # in one step: see ``Dispatcher.resolve``
            if generation is made:
                self._generations.append(made)
        return generation

    # ---- the hot path calls these two on a miss and on the first touch in an epoch --------------------------------------
    def load(self, generation: Generation, id: str) -> Any:
        """The record of an address that is not in ``young``: from the old generation, the store, or new.

        Raises:
            PayloadTypeError: the stored state does not fit its declaration.
        """
        record = generation.old.pop(id, None)
        if record is None:
            function = generation.function
            record = function.blank(id)
            stored = self._read(record._key)  # noqa: SLF001
            function.fill(record, stored)
            if stored is not None:
                record._size += 2 * len(stored)  # noqa: SLF001
            self.cached_bytes += record._size  # noqa: SLF001
        generation.young[id] = record
        return record

    def touch(self, record: Any) -> None:
        """Called before an invocation sees a record for the first time in this epoch."""
        frozen = self.frozen
        if frozen is not None and not frozen.encoded and record._dirty is frozen.epoch:  # noqa: SLF001
            key = record._key  # noqa: SLF001
            if key not in frozen.pre_images:
                frozen.pre_images[key] = self._function_of(record).values_of(record)
        record._epoch = self.epoch  # noqa: SLF001

    def mark_dirty(self, record: Any) -> None:
        """The record has changed in this epoch (the generated runners do the same in line)."""
        if record._dirty is not self.epoch:  # noqa: SLF001
            record._dirty = self.epoch  # noqa: SLF001
            self.dirty.append(record)

    # ---- checkpoints ----------------------------------------------------------------------------------------------------
    @property
    def changed(self) -> bool:
        """Whether anything has changed since the last cut."""
        return bool(self.dirty) or self.cells.changed

    @property
    def dirty_bytes(self) -> int:
        """Estimated bytes of changes that are in no applied checkpoint."""
        frozen = len(self.frozen.records) if self.frozen is not None else 0
        return (len(self.dirty) + frozen) * self._bytes_per_change + self.cells.pending_bytes

    def freeze(self) -> Frozen:
        """The cut: O(1). There must be no frozen changes left."""
        assert self.frozen is None, "a cut while the changes of another checkpoint are frozen"
        self.frozen = Frozen(self.epoch, self.dirty)
        self.dirty = []
        self.cells.freeze()
        self.epoch = Epoch()
        return self.frozen

    def encode_frozen(self, size: int) -> Iterator[Piece]:
        """Everything that had changed at the cut, as it was then, in pieces of about ``size`` keys."""
        assert self.frozen is not None
        records = self.frozen.records
        for start in range(0, len(records), size):
            yield self._encode_piece(records[start : start + size], self.frozen.pre_images)
        yield from self.cells.frozen_pieces(size)

    def _encode_piece(self, records: list[Any], pre_images: dict[bytes, tuple[Any, ...]]) -> Piece:
        keys: list[bytes] = []
        values: list[bytes | None] = []
        total = 0
        for record in records:
            function = self._function_of(record)
            key = record._key  # noqa: SLF001
            saved = pre_images.get(key)
            encoded = function.encode_values(function.values_of(record) if saved is None else saved)
            keys.append(key)
            values.append(encoded)
            size = 0 if encoded is None else len(encoded)
            total += size
            self.cached_bytes += RECORD_BYTES + 2 * size - record._size  # noqa: SLF001
            record._size = RECORD_BYTES + 2 * size  # noqa: SLF001
        self._bytes_per_change = (self._bytes_per_change * 7 + RECORD_BYTES + 2 * total // len(records)) // 8
        return keys, values

    def encoding_done(self) -> None:
        """All frozen records are encoded: no pre-image is needed any more."""
        assert self.frozen is not None
        self.frozen.encoded = True
        self.frozen.pre_images = {}

    def drop_frozen(self) -> None:
        """The checkpoint is applied: the store has these changes now."""
        self.frozen = None
        self.cells.drop_frozen()

    def merge_frozen(self) -> None:
        """The checkpoint is aborted: its changes belong to the next one.

        Every frozen record is tagged again unless it has changed since, also one that is encoded already and one that was only
        read since. Otherwise the next cut takes no pre-image of it and a checkpoint stores a later value.
        """
        assert self.frozen is not None
        frozen, self.frozen = self.frozen, None
        for record in frozen.records:
            self.mark_dirty(record)
        self.cells.merge_frozen()

    # ---- forgetting -----------------------------------------------------------------------------------------------------
    def sweep(self) -> bool:
        """Forget up to ``SWEEP_RECORDS`` records or entries of maps, if there is more than the budget; whether to go on at once."""
        cache, budget = self.cells.cache, self._limits.cache_bytes
        for_cells = budget - self.cached_bytes
        cache.limit = for_cells + budget // LIMIT_SHARE
        if cache.total_bytes <= for_cells:
            return False
        if cache.forget(SWEEP_RECORDS, for_cells):
            return True
        for generation in self._generations:
            if generation.old:
                self._forget(generation, self.cached_bytes + cache.total_bytes - budget)
                return True
        in_use = cache.young_cells + sum(len(generation.young) for generation in self._generations)
        if (in_use - self._kept) * NEW_SHARE <= in_use:
            return False
        for generation in self._generations:
            generation.old, generation.young = generation.young, {}
        cache.turn()
        self._kept = 0
        return True

    def _forget(self, generation: Generation, excess: int) -> None:
        """Some old records of one function type, of about ``excess`` bytes. What has changed and is not applied is kept."""
        frozen_epoch = self.frozen.epoch if self.frozen is not None else self.epoch
        old = generation.old
        before = self.cached_bytes
        for _ in range(min(SWEEP_RECORDS, len(old))):
            id, record = old.popitem()
            dirty = record._dirty  # noqa: SLF001
            if dirty is not None and (dirty is self.epoch or dirty is frozen_epoch):
                generation.young[id] = record
                self._kept += 1
            else:
                self.cached_bytes -= record._size  # noqa: SLF001
                if before - self.cached_bytes >= excess:
                    break
        if not old:
            generation.old = {}  # without the memory of what was in it

    def adopt(self, previous: RecordTable) -> None:
        """After a recovery, keep what a survivor had in memory and what is as in the store: everything that is not dirty."""
        lost = previous.dirty + (previous.frozen.records if previous.frozen is not None else [])
        for record in lost:
            address = record._address  # noqa: SLF001
            previous.generations[address.typename].remove(address.id)
        for before in list(previous.generations.values()):  # a thread that was given up may meet a name even now
            generation = self.generation_of(before.function)
            generation.old = before.all()
            self.cached_bytes += sum(record._size for record in generation.old.values())  # noqa: SLF001

    def _function_of(self, record: Any) -> CompiledFunction:
        return self.generations[record._address[0]].function  # noqa: SLF001
