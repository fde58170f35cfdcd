"""What one shard's part of a checkpoint has to be, written down at the instant of the cut, by other means than the core's.

The core freezes by reference and encodes later, in pieces, while functions go on changing the same records. This copies everything at
once, so what is stored in the end can be compared with what was there at the cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shardfun.core.function import STATE_KIND, CompiledFunction
from shardfun.core.shard import ShardCore
from shardfun.simulation.network import Network


@dataclass(frozen=True, slots=True)
class Truth:
    """See the module.

    Args:
        records: stored key to the encoded state of every record in memory.
        cells: all of them, stored or changed: whole key to value.
        sent: by peer, data frames sent to it before the cut; ``received``: received from it.
        positions: of the ingresses; ``emitted``: egress records in all.
    """

    incarnation: int
    records: dict[bytes, bytes | None]
    cells: dict[bytes, bytes]
    sent: dict[int, int]
    received: dict[int, int]
    positions: dict[str, Any]
    emitted: dict[str, int]
    ended: bool
    dead_letters: int
    invocations: int


def truth_now(core: ShardCore, network: Network, stored: dict[bytes, bytes]) -> Truth:
    """Write down everything, right after a cut.

    Args:
        stored: what the shard's store holds as of the last applied checkpoint.
    """
    shard, incarnation = core.identity.shard, core.incarnation
    peers = [link.peer for link in core.links]
    return Truth(
        incarnation=incarnation,
        records=records_in_memory(core),
        cells=cells_now(core, stored),
        sent={peer: network.counts((shard, peer), incarnation)[0] for peer in peers},
        received={peer: network.counts((peer, shard), incarnation)[1] for peer in peers},
        positions=dict(core.positions),
        emitted={name: log.published.records + len(log.pending) for name, log in core.egress.items()},
        ended=core.ended,
        dead_letters=core.dispatcher.letters.count,
        invocations=core.dispatcher.invocations,
    )


def records_in_memory(core: ShardCore) -> dict[bytes, bytes | None]:
    """Key to encoded state (``None``: all default) of every record that is in memory, changed or not."""
    found: dict[bytes, bytes | None] = {}
    for generation in core.table.generations.values():
        for record in generation.all().values():
            found[record._key] = _encoded(generation.function, record)  # noqa: SLF001 - users see records: no public names
    for target in core.dispatcher.order:
        for blocked in target.blocked.values():
            if blocked.record is not None:
                found[blocked.record._key] = _encoded(target.function, blocked.record)  # noqa: SLF001
    return found


def _encoded(function: CompiledFunction, record: Any) -> bytes | None:
    encoded: bytes | None = function.encode_values(function.values_of(record))
    return encoded


def cells_now(core: ShardCore, stored: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """All cells as functions see them: what is stored, and the changes since then."""
    cells: dict[bytes, bytes | None] = {key: value for key, value in stored.items() if key[2:3] != STATE_KIND}
    cells |= core.table.cells.unapplied()
    return {key: value for key, value in cells.items() if value is not None}
