"""Ingress kind ``generator``: made-up events at a rate, for demonstrations, benchmarks and chaos.

It exists so that a node can be put under a known load without a source: event ``i`` of a partition depends on the seed, the
partition and ``i`` alone, so after a recovery exactly the same events follow. Every partition draws from *all* ids (on purpose:
with n shards (n-1)/n of the events cross the mesh, as they do in the worst case of a real source).
"""

from __future__ import annotations

from math import gcd
from typing import Annotated, Any, ClassVar
from zlib import crc32

import msgspec

from shardfun.errors import IngressError
from shardfun.ingress.pace import Pace
from shardfun.ports import IngressBatch, Partition

MAX_IDS = 1 << 32
"""Distinct ids at most."""

KEPT_IDS = 100_000
"""Up to so many ids are made once and kept (about 60 bytes each); of more, each is made when its event is."""

GOLDEN = 0.618_033_988_749_895
"""Neighbouring events are this part of all ids apart, so that any stretch of events spreads evenly over the ids."""


class GeneratorOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of a generator.

    Args:
        count: events of all partitions together; ``None``: endless.
        rate: events per second of all partitions together; ``None``: as fast as they are taken.
        seed: another seed, another order of ids.
        ids: number of distinct ids; each id comes equally often.
        prefix: an id is the prefix and a number.
        value: the value of every event.
    """

    count: Annotated[int, msgspec.Meta(ge=0)] | None = None
    rate: Annotated[float, msgspec.Meta(gt=0)] | None = None
    seed: int = 0
    ids: Annotated[int, msgspec.Meta(ge=1, le=MAX_IDS)] = 10_000
    prefix: str = "k"
    value: bool | int | float | str | None = 1


class GeneratorIngress:
    """The events of one partition, as ready columns."""

    options: ClassVar[type[GeneratorOptions]] = GeneratorOptions

    def __init__(self, name: str, options: GeneratorOptions, partition: Partition) -> None:
        self._name = name
        self._options = options
        self._partition = partition
        self._end = _share(options.count, partition)
        # Everything but the rate decides what event i is; the rate only decides when.
        self._identity = {
            "count": options.count,
            "seed": options.seed,
            "ids": options.ids,
            "prefix": options.prefix,
            "value": options.value,
            "partition": partition.index,
            "partitions": partition.count,
        }
        self._cycle: list[str] = []
        self._walk = _walk_over_ids(options, partition)
        self._index = 0
        self._pace = Pace(None)
        self._wake_at: float | None = None

    def open(self, position: Any | None) -> None:
        """Go to the event after ``position``.

        Raises:
            IngressError: the position belongs to a generator with other settings, which made other events.
        """
        if position is not None:
            self._check_identity(position)
        self._index = 0 if position is None else position["index"]
        if self._options.ids <= KEPT_IDS:
            self._cycle = self._made_ids(0, self._options.ids)
        rate = self._options.rate
        self._pace = Pace(None if rate is None else rate / self._partition.count)
        self._wake_at = None

    def read(self, limit: int, now: float) -> IngressBatch | None:
        """The next events: at most ``limit``, and no more than are due at ``now`` (monotonic seconds)."""
        self._wake_at = None
        if self.finished:
            return None
        events = min(limit, self._pace.allowance(now))
        if events <= 0:
            self._wake_at = self._pace.next_due(now)
            return None
        if self._end is not None:
            events = min(events, self._end - self._index)
        ids = self._ids(events)
        place = f"events {self._index + 1}-{self._index + events} of partition {self._partition.index}"
        self._index += events
        self._pace.spend(events)
        position = {"index": self._index, "options": self._identity}
        return IngressBatch(position, ids=ids, values=[self._options.value] * events, scanned=events, place=place)

    @property
    def wake_at(self) -> float | None:
        """When the next event is due, after ``read`` gave ``None``."""
        return self._wake_at

    @property
    def finished(self) -> bool:
        """Whether all events of this partition were read; an endless generator never is."""
        return self._end is not None and self._index >= self._end

    def close(self) -> None:
        """Drop the list of ids."""
        self._cycle = []

    def _ids(self, events: int) -> list[str]:
        """The ids of the next events. Slices of one list that was made once cost a few nanoseconds an event."""
        if not self._cycle:
            return self._made_ids(self._index, events)
        start = self._index % len(self._cycle)
        ids = self._cycle[start : start + events]
        while len(ids) < events:
            ids += self._cycle[: events - len(ids)]
        return ids

    def _made_ids(self, first: int, events: int) -> list[str]:
        """The ids of ``events`` events from event ``first``; event ``i`` has ``(offset + i * stride) % ids``."""
        ids, prefix, (offset, stride) = self._options.ids, self._options.prefix, self._walk
        start = offset + first * stride
        return [f"{prefix}{number % ids}" for number in range(start, start + events * stride, stride)]

    def _check_identity(self, position: Any) -> None:
        stored = position["options"]
        changed = [
            f"{key} was {stored.get(key)!r} and is {value!r}"
            for key, value in self._identity.items()
            if stored.get(key) != value
        ]
        if changed:
            msg = (
                f"ingress {self._name!r}: the generator's settings changed since its position was stored "
                f"({'; '.join(changed)}); set them back, or start afresh with --fresh"
            )
            raise IngressError(msg)


def _share(count: int | None, partition: Partition) -> int | None:
    """How many of all events one partition makes."""
    if count is None:
        return None
    return count // partition.count + (partition.index < count % partition.count)


def _walk_over_ids(options: GeneratorOptions, partition: Partition) -> tuple[int, int]:
    """Offset and stride with which one partition goes round the ids.

    A stride coprime to the number of ids touches every id once in each round.
    """
    ids = options.ids
    offset = crc32(f"{options.seed}:{partition.index}".encode()) % ids
    stride = max(1, (int(ids * GOLDEN) + crc32(f"{options.seed}".encode()) % max(1, ids // 16)) % ids)
    while gcd(stride, ids) != 1:
        stride += 1
    return offset, stride
