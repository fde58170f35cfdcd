"""What one shard's part of a checkpoint has to be, written down at the instant of the cut, by other means than the core's.

The core freezes by reference and encodes later, in pieces, while functions go on changing the same records. This copies everything at
once, so what is stored in the end can be compared with what was there at the cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shardfun.core.records import RecordTable
from shardfun.core.shard import ShardCore
from shardfun.simulation.network import Network


@dataclass(frozen=True, slots=True)
class Truth:
    """See the module.

    Args:
        records: stored key to the encoded state of every record in memory.
        sent: by peer, data frames sent to it before the cut; ``received``: received from it.
        positions: of the ingresses; ``emitted``: egress records in all.
    """

    incarnation: int
    records: dict[bytes, bytes | None]
    sent: dict[int, int]
    received: dict[int, int]
    positions: dict[str, Any]
    emitted: dict[str, int]
    ended: bool
    dead_letters: int
    invocations: int


def truth_now(core: ShardCore, network: Network) -> Truth:
    """Write down everything, right after a cut."""
    shard, incarnation = core.identity.shard, core.incarnation
    peers = [link.peer for link in core.links]
    return Truth(
        incarnation=incarnation,
        records=records_in_memory(core.table),
        sent={peer: network.counts((shard, peer), incarnation)[0] for peer in peers},
        received={peer: network.counts((peer, shard), incarnation)[1] for peer in peers},
        positions=dict(core.positions),
        emitted={name: log.published.records + len(log.pending) for name, log in core.egress.items()},
        ended=core.ended,
        dead_letters=core.dispatcher.letters.count,
        invocations=core.dispatcher.invocations,
    )


def records_in_memory(table: RecordTable) -> dict[bytes, bytes | None]:
    """Key to encoded state (``None``: all default) of every record that is in memory, changed or not."""
    found: dict[bytes, bytes | None] = {}
    for generation in table.generations.values():
        function = generation.function
        encode, values_of = function.encode_values, function.values_of
        for records in (generation.young, generation.old, generation.dying):
            for record in records.values():
                found[record._key] = encode(values_of(record))  # noqa: SLF001 - a record's key has no public name: users see records
    return found
