"""What a shard says of its functions and doors: totals of its process, and how much waits or is under way now. Only reads."""

from __future__ import annotations

from shardfun.core.shard import ShardCore
from shardfun.model.status import EgressStatus, FunctionStatus, IngressStatus


def function_figures(core: ShardCore) -> list[FunctionStatus]:
    """Each function type that is counted by itself, in the order met, then the others together. From any thread.

    ``backlog`` is what waits in mailboxes, at busy addresses and in outboxes; whose the messages in frames of the inboxes are
    is not known before they are decoded.
    """
    dispatcher, totals = core.dispatcher, core.totals
    waiting, blocked, calls, operations = (dict.fromkeys(totals.functions, 0) for _ in range(4))
    for target in list(dispatcher.order):
        name = totals.name_of(target.typename)
        if name in waiting:  # else it was met a moment ago
            waiting[name] += target.waiting + sum(map(len, target.queues))
            blocked[name] += len(target.blocked)
            calls[name] += target.calls
    for typename, count in list(dispatcher.operations.started.items()):
        name = totals.name_of(typename)
        operations[name] = operations.get(name, 0) + count
    return [
        FunctionStatus(
            function=name,
            messages_in=found.messages,
            out_local=found.out_local,
            out_remote=found.out_remote,
            out_egress=found.out_egress,
            invocations=found.attempts,
            failures=found.failures,
            retries=found.retries,
            dead_letters=found.dead_letters,
            backlog=waiting[name],
            blocked=blocked[name],
            calls=calls[name],
            operations=operations[name],
        )
        for name, found in list(totals.functions.items())
        if name in waiting
    ]


def ingress_figures(core: ShardCore) -> list[IngressStatus]:
    """Each ingress, also before its first record. From any thread."""
    totals = core.totals
    return [IngressStatus(name, totals.records[name], totals.rejected[name]) for name in core.program.routes]


def egress_figures(core: ShardCore) -> list[EgressStatus]:
    """Each egress. From any thread."""
    published = core.totals.published
    return [EgressStatus(name, published[name], len(log.pending), log.pending_bytes) for name, log in list(core.egress.items())]
