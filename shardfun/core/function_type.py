"""What the core keeps of one function type in one incarnation, and of one egress: where their rows wait, and how they run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shardfun.core.function import CompiledFunction
from shardfun.core.limits import Limits
from shardfun.core.options import FailurePolicy
from shardfun.core.queue import Queue, Row
from shardfun.core.records import Generation
from shardfun.core.runner import run_plain
from shardfun.core.totals import FunctionTotals
from shardfun.core.working import Copies, quick_copies

if TYPE_CHECKING:
    from shardfun.core.calls import Blocked
    from shardfun.core.runner import Runner

FIRST_CHUNK = 64


class FunctionType:
    """One function type in one incarnation of a shard.

    Args:
        queues: by shard number; the shard's own one is the mailbox, the others are the outboxes.
        records: the table's part for this type.

    ``copies``: makes the working copies of a full type, ``None`` for others.
    ``chunk``: messages to run at once at most; the driver moves it so that a chunk of slow functions stays short.
    ``blocked``: busy addresses; ``beside``: runs as calls, of which ``calls`` are under way and at most ``calls_max`` may be;
    ``stalled``: that is so, and the mailbox waits; ``due``: busy addresses whose next attempt waits for that.
    ``waiting``: messages at the busy addresses. ``passed_over``: messages of the running batch that do not run now; of these,
    ``refused`` are parked, and the others wait.
    """

    __slots__ = (
        "beside",
        "blocked",
        "calls",
        "calls_max",
        "chunk",
        "copies",
        "due",
        "function",
        "mailbox",
        "passed_over",
        "payloads",
        "policy",
        "queues",
        "records",
        "refused",
        "rows",
        "run",
        "shared",
        "stalled",
        "totals",
        "typename",
        "usual",
        "waiting",
    )

    def __init__(
        self,
        function: CompiledFunction,
        run: Runner,
        records: Generation,
        shard: int,
        shards: int,
        limits: Limits,
        totals: FunctionTotals,
    ) -> None:
        self.totals = totals
        self.passed_over = self.refused = self.waiting = 0
        self.function = function
        self.typename = function.spec.typename
        self.payloads = function.payloads
        self.shared = self.payloads.shared
        self.run = self.usual = run
        self.records = records
        self.queues = [Queue() for _ in range(shards)]
        self.rows = [queue.rows for queue in self.queues]
        self.mailbox = self.queues[shard]
        self.copies = None
        if function.full:
            self.copies = Copies(function) if run is run_plain else quick_copies(function)
        self.chunk = FIRST_CHUNK
        options = function.spec.options
        self.policy = options.failure or FailurePolicy(attempts=1 + limits.retries)
        self.beside = options.style != "plain"
        self.blocked: dict[str, Blocked] = {}
        self.calls = 0
        default = limits.blocking_calls_per_type if options.style == "blocking" else limits.calls_per_type
        self.calls_max = options.concurrency or default
        self.stalled = False
        self.due: deque[str] = deque()


class EgressBuffer:
    """Records of one egress that were emitted since the last look, as effect rows: routed like messages, always to here."""

    __slots__ = ("encode", "fresh", "name", "rows")

    def __init__(self, name: str, encode: Callable[[Any], bytes], shards: int) -> None:
        self.name = name
        self.encode = encode
        self.fresh: list[Row] = []
        self.rows = [self.fresh] * shards
