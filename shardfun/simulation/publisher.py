"""A simulated publisher of one egress of one shard: takes what may go out, hands it to the sink, then hears that it is there.

Three steps, so that a process can die between any two of them, with a part of the records in the sink. In each incarnation the sink
is opened first, behind what is still under way: two steps more.
"""

from __future__ import annotations

from shardfun.core.shard import ShardCore
from shardfun.errors import EgressError
from shardfun.simulation.surroundings import Surroundings

RECORDS_MAX = 5


class Publisher:
    """See the module."""

    def __init__(self, around: Surroundings, egress: str, shard: int) -> None:
        self._around = around
        self._egress = egress
        self._who = f"shard {shard}"
        self._sink = around.sinks[egress, shard]
        self._records: list[bytes] = []
        self._handed_over = False
        self.opening = False
        """In this incarnation the sink has not been opened yet."""
        self._there: int | None = None

    def attach(self, core: ShardCore) -> None:
        """A new incarnation: the sink has to be opened at what the checkpoint knows."""
        log = core.egress[self._egress]
        self._open_at = log.published, log.publishable(len(log.pending))
        self.opening, self._there = True, None
        if self._handed_over:
            self._records, self._handed_over = [], False

    def open_step(self, core: ShardCore) -> bool:
        """The next step of opening; whether there was one.

        Raises:
            EgressError: the sink cannot be opened, for which a node stops.
        """
        if not self.opening:
            return False
        if self._records:  # of the incarnation before: whether that goes well is of no interest any more
            self._hand_over()
            self._records = []
        elif self._there is None:
            self._there = self._sink.open(*self._open_at, self._around.trace.now, fails=self._around.faults.sink_stays_shut)
        else:
            self.opening = False
            if self._there:
                core.found_published(self._egress, self._there)
            self._around.note(self._who, "sink opened", f"{self._egress}, {self._there} records are there")
        return True

    def step(self, core: ShardCore) -> bool:
        """The next of the three steps; whether there was one."""
        if not self._records:
            if self._sink.down_until > self._around.trace.now:
                return False
            self._records = core.egress[self._egress].publishable(self._around.chance.randint(1, RECORDS_MAX))
            if self._records:
                self._around.note(self._who, "publishing", f"{len(self._records)} of {self._egress}")
            return bool(self._records)
        if not self._handed_over:
            if not self._hand_over():
                self._records = []  # asked again later, perhaps with more
                return True
            self._handed_over = True
            self._around.note(self._who, "published", f"{len(self._records)} of {self._egress}")
            return True
        count, self._records, self._handed_over = len(self._records), [], False
        core.published(self._egress, count)
        self._around.note(self._who, "publish noted", f"{count} of {self._egress}")
        return True

    def _hand_over(self) -> bool:
        """Whether the sink has taken the records."""
        around = self._around
        if self._sink.down_until > around.trace.now:
            around.note(self._who, "sink is down", self._egress)
            return False
        if around.faults.sink_refuses:
            return False
        try:
            self._sink.publish(self._records, around.faults.sink_error(len(self._records)))
        except EgressError as error:
            around.note(self._who, "sink fails", str(error))
            return False
        return True

    def drained(self, core: ShardCore) -> bool:
        """Whether everything that may go out is out."""
        return not self._records and not core.egress[self._egress].publishable(1)

    def kill(self) -> None:
        """The process dies: the sink may have got the first few records."""
        if self._records and not self._handed_over:
            self._sink.publish(self._records[: self._around.chance.randint(0, len(self._records))])
        self._records, self._handed_over = [], False
