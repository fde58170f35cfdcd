"""A simulated sink: one partition of an egress, which remembers everything it was ever given and compares.

It outlives all processes. Two kinds: one that knows how much it holds (a file, a table with a progress row), and one that does not,
so that after a crash records are repeated: then each must be the same, byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence

from shardfun.errors import EgressError
from shardfun.model.doors import PublishedPosition
from shardfun.simulation.violation import wrong


class Sink:
    """See the module.

    Args:
        name: for messages.
        counts: whether it knows how much it holds.
        complete: all records of complete checkpoints so far, by number; kept by the checker.
    """

    def __init__(self, name: str, complete: list[bytes], *, counts: bool) -> None:
        self.records: list[bytes] = []
        self.repeated = 0
        self.down_until = 0.0
        """Until then it takes nothing; virtual seconds."""
        self._name = name
        self._complete = complete
        self._counts = counts
        self._next = 0

    def open(self, published: PublishedPosition, pending: Sequence[bytes], now: float = 0.0, *, fails: bool = False) -> int:
        """Connect; how many of the ``pending`` records are there already.

        Args:
            now: virtual seconds.
            fails: it refuses.

        Raises:
            EgressError: it refuses; or it is down, and has to say how much it holds.
        """
        if fails or (self._counts and now < self.down_until):
            raise EgressError(f"{self._name}: cannot be opened")
        if len(self.records) < published.records:
            wrong(f"{self._name}: {published.records} records count as published, the sink has {len(self.records)}")
        there = min(len(pending), len(self.records) - published.records) if self._counts else 0
        self._next = published.records + there
        return there

    def publish(self, records: Sequence[bytes], fails_after: int | None = None) -> None:
        """Append records, or compare them with what is there.

        Args:
            fails_after: it has written so many when it fails.

        Raises:
            EgressError: it has failed. As far as anybody knows nothing was written, and the same records come again.
        """
        before = self._next
        self._append(records if fails_after is None else records[:fails_after])
        if fails_after is not None:
            self._next = before
            raise EgressError(f"{self._name}: failed after {fails_after} of {len(records)} records")

    def _append(self, records: Sequence[bytes]) -> None:
        for record in records:
            number = self._next
            if number >= len(self._complete) or self._complete[number] != record:
                wrong(f"{self._name}: record {number} {record!r:.100} is published, but in no complete checkpoint")
            if number > len(self.records):
                wrong(f"{self._name}: record {number} is published, but only {len(self.records)} were before")
            if number == len(self.records):
                self.records.append(record)
            elif self.records[number] != record:
                wrong(f"{self._name}: record {number} was {self.records[number]!r:.100} and is now {record!r:.100}")
            else:
                self.repeated += 1
            self._next += 1
