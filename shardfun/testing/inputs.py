"""The inputs of a local node: logs with positions, as ingresses are, so that a recovery reads again what it has to.

What is sent or ingested waits in the log of one shard until that shard reads it. ``send`` goes to the shard that owns the address;
the records of an ingress go to one shard, unless a key says which.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from zlib import crc32

from shardfun.model.doors import IngressBatch
from shardfun.model.keyspace import owner_of
from shardfun.model.payload import Encoded
from shardfun.sdk.app import Message

SENDS = "local-node/send"
"""The ingress that ``send`` writes to. Its records are messages."""

INPUTS_MAX = 5_000_000  # all are kept until the node is closed


def route_sends(record: Message) -> Iterable[Message]:
    """The router of ``SENDS``. A mutable value is decoded afresh each time, since a recovery reads the record again."""
    value = record.value
    return [record._replace(value=value.type.decode(value.data)) if type(value) is Encoded else record]


class Inputs:
    """The logs of all shards.

    Args:
        ingresses: their names, ``SENDS`` included.
    """

    def __init__(self, ingresses: Iterable[str], shards: int) -> None:
        self.ended = False
        """Nothing more will come."""
        self._shards = shards
        self._logs: dict[str, list[list[Any]]] = {name: [[] for _ in range(shards)] for name in ingresses}
        self._count = 0

    def add(self, ingress: str, record: Any, key: str | None) -> None:
        """Append a record.

        Args:
            key: records of one key are read in order by the shard that owns it as an id; without one, all by the same shard.

        Raises:
            ValueError: the input has ended, or is too large.
        """
        if self.ended:
            msg = "the input has ended with end(): nothing more can be sent or ingested"
            raise ValueError(msg)
        if self._count >= INPUTS_MAX:
            msg = f"a local node takes at most {INPUTS_MAX} inputs"
            raise ValueError(msg)
        self._count += 1
        shard = crc32(ingress.encode()) % self._shards if key is None else owner_of(key, self._shards)
        self._logs[ingress][shard].append(record)

    def unread(self, ingress: str, shard: int, position: Any) -> int:
        """Records of an ingress that a shard at ``position`` has still to read."""
        return len(self._logs[ingress][shard]) - int(position or 0)

    def batch(self, ingress: str, shard: int, position: Any, count: int) -> IngressBatch:
        """The next ``count`` records behind ``position``."""
        start = int(position or 0)
        records = self._logs[ingress][shard][start : start + count]
        return IngressBatch(start + len(records), records, place=f"record {start + 1} and after")
