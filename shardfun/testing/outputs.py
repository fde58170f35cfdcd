"""What a local node has emitted: in order over all shards, and what of it is published."""

from __future__ import annotations

from typing import Any, NamedTuple

from shardfun.core.shard import ShardCore
from shardfun.testing.program import Emission


class _Record(NamedTuple):
    shard: int
    number: int  # from 1, within the shard
    value: Any


class Outputs:
    """Follows the egress logs of all shards."""

    def __init__(self) -> None:
        self._records: dict[str, list[_Record]] = {}
        self._seen: dict[tuple[str, int], int] = {}
        self._published: dict[tuple[str, int], int] = {}

    def collect(self, core: ShardCore) -> int:
        """Take in what a shard has emitted since the last look; how many records."""
        shard, found = core.identity.shard, 0
        for name, log in core.egress.items():
            seen = self._seen.get((name, shard), 0)
            fresh = log.emitted - seen
            if fresh:
                records = self._records.setdefault(name, [])
                for number, record in enumerate(log.pending[-fresh:], seen + 1):
                    assert type(record) is Emission
                    records.append(_Record(shard, number, record.value))
                self._seen[name, shard] = log.emitted
                found += fresh
        return found

    def publish(self, core: ShardCore) -> bool:
        """The sinks take what may go out; whether there was anything."""
        found = False
        for name, log in core.egress.items():
            count = len(log.publishable(len(log.pending)))
            if count:
                core.published(name, count)
                found = True
            self._published[name, core.identity.shard] = log.published.records
        return found

    def restored(self, core: ShardCore) -> None:
        """A shard has fallen back to a checkpoint: forget what it had emitted after it."""
        shard = core.identity.shard
        for name, records in self._records.items():
            emitted = core.egress[name].emitted if name in core.egress else 0
            self._records[name] = [record for record in records if record.shard != shard or record.number <= emitted]
            self._seen[name, shard] = emitted

    def emitted(self, egress: str) -> list[Any]:
        """All records of an egress in the order in which they were emitted."""
        return [record.value for record in self._records.get(egress, ())]

    def published(self, egress: str) -> list[Any]:
        """Those of complete checkpoints that the sink has."""
        published = self._published
        return [
            record.value
            for record in self._records.get(egress, ())
            if record.number <= published.get((egress, record.shard), 0)
        ]

    @property
    def egresses(self) -> list[str]:
        """The egresses that have a record, in the order of their first."""
        return [name for name, records in self._records.items() if records]
