"""Dispatch: takes waiting messages, runs them, and routes what they sent. The one place where an outgoing message finds its way.

Every message goes through a queue, also one that could run at once: so order between one sender and one target needs no thought,
and a queue costs two operations per batch, not per message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import Any, Protocol

from shardfun.core.careful import Breadcrumb, run_careful
from shardfun.core.dead_letters import DeadLetters, describe_error, forget_earlier
from shardfun.core.function import CompiledFunction
from shardfun.core.limits import Limits
from shardfun.core.queue import Queue, Row
from shardfun.core.records import Generation, RecordTable
from shardfun.core.runner import Runner, invoke
from shardfun.core.working import Copies
from shardfun.errors import PayloadTypeError, UnknownTargetError
from shardfun.model.address import ID_BYTES_MAX, Address
from shardfun.model.columns import Batch, decode_block
from shardfun.model.keyspace import slot_of, slot_range

FIRST_CHUNK = 64


class FunctionType:
    """One function type in one incarnation of a shard.

    Args:
        queues: by shard number; the shard's own one is the mailbox, the others are the outboxes.
        records: the table's part for this type.

    ``copies``: makes the working copies of a full type, ``None`` for others.
    ``chunk``: messages to run at once at most; the driver moves it so that a chunk of slow functions stays short.
    """

    __slots__ = (
        "chunk",
        "copies",
        "function",
        "mailbox",
        "payloads",
        "queues",
        "records",
        "rows",
        "run",
        "shared",
        "typename",
        "usual",
    )

    def __init__(self, function: CompiledFunction, run: Runner, records: Generation, shard: int, shards: int) -> None:
        self.function = function
        self.typename = function.spec.typename
        self.payloads = function.payloads
        self.shared = self.payloads.shared
        self.run = self.usual = run
        self.records = records
        self.queues = [Queue() for _ in range(shards)]
        self.rows = [queue.rows for queue in self.queues]
        self.mailbox = self.queues[shard]
        self.copies = Copies(function) if function.full else None
        self.chunk = FIRST_CHUNK


class EgressBuffer:
    """Records of one egress that were emitted since the last look, as effect rows: routed like messages, always to here."""

    __slots__ = ("encode", "fresh", "name", "rows")

    def __init__(self, name: str, encode: Callable[[Any], bytes], shards: int) -> None:
        self.name = name
        self.encode = encode
        self.fresh: list[Row] = []
        self.rows = [self.fresh] * shards


class InvocationContext(Protocol):
    """What the runners set on the one context that all synchronous invocations share (see ``sdk.context``)."""

    state: Any
    _sender: Any
    _sender_type: str | None
    _address: Any

    def open(self) -> None:
        """Invocations follow: effects may be recorded."""

    def close(self) -> None:
        """No invocation runs: any use raises."""


Router = Callable[[Any], Iterable[Any]]


class Dispatcher:
    """Queues, routing and failures of one shard in one incarnation.

    Args:
        runners: by position like ``functions``: ``run_plain`` or the generated one.
        egresses: name to the encoder of one record.
        chance: the randomness that functions may use.
        breadcrumb: the shard is in careful mode until ``end_careful_mode``.
    """

    def __init__(
        self,
        shard: int,
        shards: int,
        table: RecordTable,
        functions: Sequence[CompiledFunction],
        runners: Sequence[Runner],
        egresses: dict[str, Callable[[Any], bytes]],
        context: Callable[[Dispatcher], InvocationContext],
        limits: Limits,
        chance: Random,
        breadcrumb: Breadcrumb | None = None,
    ) -> None:
        self.shard = shard
        self.shards = shards
        self.table = table
        self.limits = limits
        self.now_ms = 0
        """Unix milliseconds; the driver moves it between pieces of work."""
        self.random = chance
        self.breadcrumb = breadcrumb
        self.effects: list[Row] = []
        self.types: dict[str, FunctionType] = {}
        for function, run in zip(functions, runners, strict=True):
            typename = function.spec.typename
            self.types[typename] = FunctionType(function, run, table.generations[typename], shard, shards)
        self.order = list(self.types.values())
        if breadcrumb is not None:
            for target in self.order:
                self._be_careful(target)
        self.egresses = {name: EgressBuffer(name, encode, shards) for name, encode in egresses.items()}
        self.owners: dict[str, int] = {}
        self.invocations = 0
        self.letters = DeadLetters(table, shard, shards)
        self.running: FunctionType | None = None
        """What runs now, for the heartbeat."""
        self.progress: Iterator[str] = iter(())
        """The ids of the running batch, as far as they are still to come: by its length hint another thread can tell whether
        one invocation takes long or many follow each other, and no invocation pays for that."""
        self._owner_of_slot = [owner for owner in range(shards) for _ in range(*slot_range(owner, shards))]
        self._turn = 0
        self.context = context(self)

    def retire(self) -> None:
        """Let go of the context, which knows this dispatcher (see ``ShardCore.retire``)."""
        del self.context
        if self.breadcrumb is not None:
            self.breadcrumb.retire()

    @staticmethod
    def _be_careful(target: FunctionType) -> None:
        """Asynchronous and blocking types leave breadcrumbs by themselves."""
        if target.function.spec.options.style == "plain":
            target.run = run_careful

    def end_careful_mode(self) -> None:
        """Run as usual from now on. Only between two pieces of work."""
        if self.breadcrumb is not None:
            self.breadcrumb.retire()
            self.breadcrumb = None
            for target in self.order:
                target.run = target.usual

    # ---- owners ---------------------------------------------------------------------------------------------------------
    def admit(self, id: Any) -> int:
        """The owner of an id that is not in ``owners``, which remembers it.

        Raises:
            PayloadTypeError: it is not an id.
        """
        if type(id) is not str or not id or len(id.encode()) > ID_BYTES_MAX:
            msg = f"id: expected a text of 1 to {ID_BYTES_MAX} bytes, got {id!r:.100}"
            raise PayloadTypeError(msg)
        if len(self.owners) >= self.limits.owner_cache:
            self.owners.clear()
        owner = self.owners[id] = self._owner_of_slot[slot_of(id)]
        return owner

    # ---- running --------------------------------------------------------------------------------------------------------
    @property
    def waiting(self) -> int:
        """Messages in the own mailbox."""
        return sum(len(target.mailbox) for target in self.order)

    def outgoing(self, peer: int) -> int:
        """Messages that wait for a peer."""
        return sum(len(target.queues[peer]) for target in self.order)

    def run(self, limit: int) -> FunctionType | None:
        """Run up to ``limit`` waiting messages of the next type that has some; that type, or ``None``."""
        order = self.order
        for _ in range(len(order)):
            self._turn = (self._turn + 1) % len(order)
            target = order[self._turn]
            if len(target.mailbox):
                self._execute(target, target.mailbox.take(min(limit, target.chunk)))
                return target
        return None

    def _execute(self, target: FunctionType, batch: Batch) -> None:
        context = self.context
        self.running = target
        context.open()
        try:
            target.run(target, batch, self)
        finally:
            context.close()
            self.running = None
        self.invocations += len(batch.ids)
        if self.effects:
            self._route()

    def _route(self) -> None:
        owners = self.owners
        for row in self.effects:
            id = row[1]
            try:
                owner = owners[id]
            except KeyError:
                owner = self.admit(id)
            row[0].rows[owner].append(row)
        self.effects.clear()

    def load(self, target: FunctionType, id: str, sender: Any, sender_type: str | None, value: Any) -> Any | None:
        """The record of an address that is not in memory; ``None`` after parking the message if its state cannot be read."""
        try:
            return self.table.load(target.records, id)
        except PayloadTypeError as error:
            self.letters.park(Address(target.typename, id), sender_of(sender, sender_type), target.payloads, value, str(error))
            return None

    # ---- failures -------------------------------------------------------------------------------------------------------
    def failed(
        self, target: FunctionType, record: Any, sender: Any, sender_type: str | None, value: Any, error: BaseException
    ) -> None:
        """An attempt has raised: try again in place, before anything else of that address, then park the message."""
        first = error
        for _ in range(self.limits.retries):
            try:
                invoke(target, record, sender, sender_type, value, self)
            except BaseException as again:  # noqa: BLE001 - as in the runners
                forget_earlier(again, first)
                error = again
            else:
                return
        reason, trace = describe_error(error, self.limits.traceback_bytes)
        address, attempts = record._address, 1 + self.limits.retries  # noqa: SLF001
        self.letters.park(address, sender_of(sender, sender_type), target.payloads, value, reason, trace, attempts)

    # ---- messages from outside ------------------------------------------------------------------------------------------
    def accept_blocks(self, blocks: Iterable[list[Any]]) -> int:
        """Put the blocks of a frame or a restored queue into the mailboxes; how many messages. Unknown types are parked.

        Raises:
            ProtocolError: a block is malformed.
        """
        return sum(self.accept_block(self.shard, block) for block in blocks)

    def accept_block(self, shard: int, block: list[Any]) -> int:
        """One block into the queue for ``shard`` (the own number: the mailbox)."""
        target = self.types.get(block[0])
        if target is None:
            return self._park_block(block)
        batch, undecodable = decode_block(target.payloads, block)
        target.queues[shard].append(batch)
        for message in undecodable:
            self.letters.park_undecodable(target.typename, message)
        return len(batch.ids)

    def _park_block(self, block: list[Any]) -> int:
        """A function type that exists no longer: every message becomes a dead letter."""
        batch, undecodable = decode_block(_NO_PAYLOADS, block)
        assert not batch.ids
        for message in undecodable:
            reason = f"function type {block[0]!r} does not exist (any more)"
            self.letters.park_undecodable(block[0], message._replace(reason=reason))
        return 0

    def ingest_columns(self, typename: str, ids: Sequence[str], values: Sequence[Any]) -> None:
        """Ready columns from an ingress. The values must be of a class in the target's ``shared``.

        Raises:
            UnknownTargetError, PayloadTypeError: the target does not exist or does not take such values or ids.
        """
        target = self._target(typename)
        for cls in dict.fromkeys(map(type, values)):
            if cls not in target.shared:
                target.payloads.prepare(next(value for value in values if type(value) is cls))
                values = [target.payloads.prepare(value) for value in values]
                break
        if self.shards == 1:
            target.mailbox.append(Batch(ids, None, None, values))
            return
        columns: list[tuple[list[str], list[Any]]] = [([], []) for _ in range(self.shards)]
        appends = [(own_ids.append, own_values.append) for own_ids, own_values in columns]
        owners = self.owners
        for id, value in zip(ids, values, strict=True):
            try:
                add_id, add_value = appends[owners[id]]
            except KeyError:
                add_id, add_value = appends[self.admit(id)]
            add_id(id)
            add_value(value)
        for queue, (own_ids, own_values) in zip(target.queues, columns, strict=True):
            queue.append(Batch(own_ids, None, None, own_values))

    def ingest_messages(self, messages: Iterable[Any]) -> int:
        """Messages ``(typename, id, value)`` of one ingress record, all or none; how many.

        Raises:
            UnknownTargetError, PayloadTypeError, or what the router raises while it is iterated.
        """
        rows: list[Row] = []
        for typename, id, value in messages:
            target = self._target(typename)
            if type(value) not in target.shared:
                value = target.payloads.prepare(value)
            if id not in self.owners:
                self.admit(id)
            rows.append((target, id, None, value))
        self.effects += rows
        return len(rows)

    def route_ingested(self) -> None:
        """Route what ``ingest_messages`` gathered."""
        self._route()

    def _target(self, typename: str) -> FunctionType:
        try:
            return self.types[typename]
        except KeyError:
            raise unknown_target("function type", typename, self.types) from None


def unknown_target(what: str, name: str, known: Iterable[str]) -> UnknownTargetError:
    """The error for a name that does not exist, with the nearest one that does."""
    import difflib

    near = difflib.get_close_matches(str(name), list(known), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known)) or 'none'}"
    return UnknownTargetError(f"unknown {what} {name!r}{hint}")


def sender_of(sender: Any, sender_type: str | None) -> Address | None:
    """The sender of a message as an address, however its batch holds it (see ``Batch``)."""
    return Address(sender_type, sender) if sender_type is not None and sender is not None else sender


class _NoPayloads:
    """Stands for the payload types of a function that is gone: nothing can be decoded."""

    by_name: dict[str, Any] = {}  # noqa: RUF012 - never filled


_NO_PAYLOADS: Any = _NoPayloads()
