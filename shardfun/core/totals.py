"""What a shard's process counts of its functions: totals of the process's life, which never go down while it lives.

Other counters of the core (``records_in``, ``invocations``) belong to the surviving history, and move back with a recovery. Monitoring
takes a counter that goes down for one that has begun anew, and would then count all of it again. So these are handed from one
incarnation to the next: what was done again after a recovery counts again, since it was work, and a process that is new starts from
nothing.

Nothing here costs anything per message of a synchronous function: counted is by the batch, and what is rare where it happens.
"""

from __future__ import annotations

from collections import Counter

TYPES_MAX = 250
"""Function types that are counted by themselves; the namesakes of a namespace (``shop/*``) may be many more. Heartbeats carry them."""
OTHERS = "others"
"""Where the rest counts: no typename, since these have a slash."""


class FunctionTotals:
    """The totals of one function type in one process.

    ``messages``: taken up for processing, once each however often they are tried. ``out_local``, ``out_remote``, ``out_egress``:
    messages sent to addresses of this shard and of others, records emitted. ``attempts``: runs of its code; ``failures``: those
    that raised; ``retries``: those that were not the first of their message. ``dead_letters``: messages for it that were parked.
    """

    __slots__ = (
        "attempts",
        "dead_letters",
        "failures",
        "messages",
        "out_egress",
        "out_local",
        "out_remote",
        "retries",
    )

    def __init__(self) -> None:
        self.messages = self.out_local = self.out_remote = self.out_egress = 0
        self.attempts = self.failures = self.retries = self.dead_letters = 0


class Totals:
    """The totals of one shard process, over all its incarnations.

    ``records``: read, by ingress; ``rejected``: of these, the parked ones; ``published``: by egress.
    """

    def __init__(self) -> None:
        self.functions: dict[str, FunctionTotals] = {}
        self.records: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.published: Counter[str] = Counter()
        self._others = FunctionTotals()

    def of(self, typename: str) -> FunctionTotals:
        """Those of a function type. Behind the first ``TYPES_MAX`` types of the process all share one. From any thread."""
        found = self.functions.get(typename)
        if found is None:
            if len(self.functions) >= TYPES_MAX:
                self.functions.setdefault(OTHERS, self._others)
                return self._others
            found = self.functions.setdefault(typename, FunctionTotals())
        return found

    def known(self, typename: str) -> FunctionTotals:
        """Those of a function type that there is; the others' for a name that somebody made up, or that is gone."""
        return self.functions.get(typename) or self.functions.setdefault(OTHERS, self._others)

    def name_of(self, typename: str) -> str:
        """Under which name a function type is counted."""
        return typename if typename in self.functions else OTHERS
