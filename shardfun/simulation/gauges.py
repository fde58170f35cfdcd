"""Whether no buffer of a shard is beyond its limit, and every gauge says what is there: each is counted again, one by one."""

from __future__ import annotations

from collections import Counter

from shardfun.core.cell_cache import cell_size
from shardfun.core.queue import Queue
from shardfun.core.shard import ShardCore
from shardfun.simulation.violation import wrong
from shardfun.state.memory import MemoryStore

DIRTY_SLACK_BYTES = 80_000
"""One piece of work may go so far beyond the hard limit of changed state; 28,000 have been seen."""


def check_limits(core: ShardCore) -> None:
    """Between two pieces of work.

    Raises:
        Violation: there is too much of something.
    """
    limits, calls, shard = core.limits, core.dispatcher.calls, core.identity.shard
    for link in core.links:
        if len(link.inbox) > limits.window_frames:
            wrong(f"shard {shard}: {len(link.inbox)} frames in the inbox of {link.peer}")
    for what, found, limit in (
        ("calls", calls.running, limits.calls),
        ("messages", core.backlog, limits.backlog_limit),
        ("changed bytes", core.table.dirty_bytes, limits.dirty_hard_bytes + DIRTY_SLACK_BYTES),
        *((f"calls of {target.typename}", target.calls, target.calls_max) for target in core.dispatcher.order if target.beside),
    ):
        if not 0 <= found <= limit:
            wrong(f"shard {shard}: {found} {what}, expected 0 to {limit}")
    frozen = core.table.frozen
    if frozen is not None and frozen.encoded and frozen.pre_images:
        wrong(f"shard {shard}: pre-images are kept after encoding")


def check_gauges(core: ShardCore) -> None:
    """The same, and each gauge is compared with what it stands for: that takes longer.

    Raises:
        Violation: there is too much of something, or a gauge is wrong.
    """
    check_limits(core)
    dispatcher, cells = core.dispatcher, core.table.cells
    calls, order = dispatcher.calls, dispatcher.order
    under_way = Counter(invocation.target.typename for invocation in calls._invocations.values())  # noqa: SLF001
    operations = len(dispatcher.operations._running)  # noqa: SLF001
    for what, gauge, found in (
        ("calls", calls.running, under_way.total() + operations),
        *((f"calls of {target.typename}", target.calls, under_way[target.typename]) for target in order),
        (
            "messages for this shard",
            dispatcher.waiting + calls.waiting,
            sum(_length(target.mailbox) + sum(len(each.waiting) for each in target.blocked.values()) for target in order),
        ),
        *(
            (
                f"messages for {link.peer}",
                dispatcher.outgoing(link.peer),
                sum(_length(each.queues[link.peer]) for each in order),
            )
            for link in core.links
        ),
        *(
            (f"messages in the inbox of {link.peer}", link.inbox_messages, sum(data.messages for _, data in link.inbox))
            for link in core.links
        ),
        *(
            (f"bytes of egress {name} that wait for its sink", log.pending_bytes, sum(map(len, log.pending)))
            for name, log in core.egress.items()
        ),
    ):
        if gauge != found:
            wrong(f"shard {core.identity.shard}: {gauge} {what} by its gauge, found {found}")
    changes = cells._layers[0].values()  # noqa: SLF001
    least = sum(len(suffix) + len(value or b"") for group in changes for suffix, value in group.items())
    if cells.changed_bytes < least:
        wrong(f"shard {core.identity.shard}: {cells.changed_bytes} bytes of changed cells by their gauge, found {least}")
    _check_cache(core)


def _check_cache(core: ShardCore) -> None:
    """What the cache of cells has is what is changed or stored. A store of files is not asked: it might be damaged."""
    cells = core.table.cells
    store, unapplied = cells._store, cells.unapplied()  # noqa: SLF001
    kept = cells.cache.cells()
    size = sum(cell_size(key, value) for key, value in kept.items())
    if cells.cache.total_bytes != size:
        wrong(f"shard {core.identity.shard}: {cells.cache.total_bytes} bytes in the cache of cells by its gauge, found {size}")
    for key, value in kept.items():
        if key in unapplied:
            found = unapplied[key]
        elif isinstance(store, MemoryStore):
            found = store.get(key)
        else:
            continue
        if value != found:
            wrong(f"shard {core.identity.shard}: {value!r:.100} in the cache of cells, found {found!r:.100}")


def _length(queue: Queue) -> int:
    return sum(len(batch.ids) for batch in queue._batches) - queue._head + len(queue.rows)  # noqa: SLF001
