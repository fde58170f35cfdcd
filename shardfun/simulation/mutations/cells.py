"""Timers, cells and calls: deliberate mistakes."""

from __future__ import annotations

from typing import Any

from shardfun.core.cell_cache import CellCache
from shardfun.core.cells import Cells
from shardfun.core.operations import OPERATIONS, Operations
from shardfun.core.records import RecordTable
from shardfun.core.shard import ShardCore
from shardfun.core.snapshot import Cut
from shardfun.core.timer_cells import TOKEN_KIND
from shardfun.core.timer_index import TIMER_PREFIX, TimerIndex
from shardfun.core.timers import Timers
from shardfun.core.working import Copies
from shardfun.simulation.mutations.patching import Mutation, Patch


def _timer_stays(original: Any) -> Any:
    """A timer that has fired or was cancelled is forgotten in memory, and stays stored."""

    def remove(self: TimerIndex, suffix: bytes) -> None:
        value = self.value_of(suffix)
        original(self, suffix)
        self._cells.put(TIMER_PREFIX, suffix, value)

    return remove


def _timer_goes_too_early(original: Any) -> Any:
    """A timer that is removed after a cut is removed from the checkpoint of that cut, too."""

    def remove(self: TimerIndex, suffix: bytes) -> None:
        original(self, suffix)
        frozen = self._cells._layers[1]  # noqa: SLF001
        if TIMER_PREFIX in frozen:
            frozen[TIMER_PREFIX] = {**frozen[TIMER_PREFIX], suffix: None}

    return remove


def _forget_tokens(original: Any) -> Any:
    """After a recovery nobody knows which timer a token belongs to."""

    def restore(self: Timers, *arguments: Any) -> None:
        original(self, *arguments)
        cells = self._cells
        for key, _ in list(cells.scan(b"")):
            if key[2:3] == TOKEN_KIND:
                length = 5 + int.from_bytes(key[3:5], "big")
                cells.put(key[:length], key[length:], None)

    return restore


def _abort_forgets_cells(_original: Any) -> Any:
    def merge_frozen(self: Cells) -> None:
        self.drop_frozen()

    return merge_frozen


def _cache_misses_writes(_original: Any) -> Any:
    """The cache goes on with what it had when an entry of a map is written."""

    def write(_cache: CellCache, _prefix: bytes, changes: dict[bytes, bytes | None]) -> int:
        return sum(len(suffix) + len(value or b"") for suffix, value in changes.items())

    return write


def _commit_without_touch(original: Any) -> Any:
    """A working copy is written back as if its record had been touched since the cut: no pre-image is taken."""

    def commit(self: Copies, copy: Any, table: RecordTable) -> None:
        copy._record._epoch = table.epoch  # noqa: SLF001
        original(self, copy, table)

    return commit


def _busy_behind_mailbox(original: Any) -> Any:
    """In a checkpoint the messages of busy addresses stand behind those in the mailbox, which are younger."""

    def take_cut(self: ShardCore, checkpoint: int) -> Cut:
        cut: Cut = original(self, checkpoint)
        types = self.dispatcher.types
        cut.mailbox = [
            (typename, payloads, (*batches[1:], batches[0]) if types[typename].blocked else batches)
            for typename, payloads, batches in cut.mailbox
        ]
        return cut

    return take_cut


def _unknown_again(original: Any) -> Any:
    """That the end of an operation is unknown is told after each recovery."""

    def restore(self: Operations) -> None:
        cells = self._dispatcher.table.cells
        stored = list(cells.scan(OPERATIONS))
        original(self)
        for suffix, raw in stored:
            cells.put(OPERATIONS, suffix, raw)

    return restore


def _end_is_forgotten(original: Any) -> Any:
    """The end of some operations is told as unknown, although nobody has died."""

    def finish(self: Operations, number: int, value: Any, error: BaseException | None) -> None:
        created, address, request = self._running[number]
        original(self, number, value, error)
        if created % 4 == 0:
            rows = self._dispatcher.types[address.typename].mailbox.rows
            lost = request.lost.type.decode(request.lost.data)
            rows[-1] = (*rows[-1][:-1], lost if request.lost.type.immutable else request.lost)

    return finish


MUTATIONS: dict[str, Mutation] = {
    "timer-stays": Mutation("a timer that has fired is not deleted", (Patch(TimerIndex, "remove", _timer_stays),)),
    "timer-goes-too-early": Mutation(
        "a timer is deleted on the wrong side of the cut", (Patch(TimerIndex, "remove", _timer_goes_too_early),)
    ),
    "forget-tokens": Mutation("tokens of timers are not restored", (Patch(Timers, "restore", _forget_tokens),)),
    "abort-forgets-cells": Mutation(
        "an abort loses changed map entries, timers and other cells", (Patch(Cells, "merge_frozen", _abort_forgets_cells),)
    ),
    "cache-misses-writes": Mutation(
        "the cache of cells does not hear of what is written", (Patch(CellCache, "write", _cache_misses_writes),)
    ),
    "commit-without-touch": Mutation(
        "a working copy is written back without touching its record", (Patch(Copies, "commit", _commit_without_touch),)
    ),
    "busy-behind-mailbox": Mutation(
        "messages of busy addresses are stored behind younger ones", (Patch(ShardCore, "take_cut", _busy_behind_mailbox),)
    ),
    "end-is-forgotten": Mutation(
        "operations end as unknown without a recovery",
        (Patch(Operations, "finish", _end_is_forgotten),),
        r"correctness: \d+ operations have ended as unknown",
    ),
    "unknown-again": Mutation(
        "the unknown end of an operation is told after each recovery", (Patch(Operations, "restore", _unknown_again),)
    ),
}
