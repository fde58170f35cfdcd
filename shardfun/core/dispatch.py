"""Dispatch: takes waiting messages, runs them, and routes what they sent. The one place where an outgoing message finds its way.

Every message goes through a queue, also one that could run at once: so order between one sender and one target needs no thought,
and a queue costs two operations per batch, not per message.

A little long: running, routing and failing are one path of a message through the same tables.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import Any, NoReturn, Protocol

from shardfun.core.calls import Calls
from shardfun.core.careful import Breadcrumb, run_careful
from shardfun.core.dead_letters import DeadLetters, describe_error, forget_earlier
from shardfun.core.function import CompiledFunction
from shardfun.core.function_type import EgressBuffer, FunctionType
from shardfun.core.limits import Limits
from shardfun.core.metrics import Metrics
from shardfun.core.namespaces import Namespaces
from shardfun.core.operations import Operations
from shardfun.core.parked import Parked
from shardfun.core.queue import Row
from shardfun.core.records import RecordTable
from shardfun.core.runner import Runner, invoke
from shardfun.core.timers import Timers
from shardfun.core.totals import FunctionTotals, Totals
from shardfun.errors import FunctionRestartError, InvocationError, PayloadTypeError, UnknownTargetError
from shardfun.model.address import ID_BYTES_MAX, Address
from shardfun.model.columns import Batch, UndecodableMessage, decode_block
from shardfun.model.keyspace import slot_of, slot_range
from shardfun.model.payload import END, END_TYPE, Payloads

FEW_ROWS = 8  # effects that are counted one by one, and as many more as there are function types


class InvocationContext(Protocol):
    """What the runners set on the one context that all synchronous invocations share (see ``sdk.context``)."""

    state: Any
    _sender: Any
    _sender_type: str | None
    _address: Any

    def open(self) -> None:
        """Invocations follow: effects may be recorded."""

    def open_call(self, rows: list[Row], address: Any, sender: Any, state: Any, message: str) -> None:
        """One invocation beside the loop follows, whose effects go into ``rows``."""

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
        previous: the same shard in an earlier incarnation of this process, whose figures go on.
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
        previous: Dispatcher | None = None,
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
        self.timers = Timers(table.cells, self.effects, limits, shards)
        self.types: dict[str, FunctionType] = {}
        self.order: list[FunctionType] = []
        self.totals: Totals = Totals() if previous is None else previous.totals
        self.metrics: Metrics = Metrics() if previous is None else previous.metrics
        self._arrivals: list[list[Row]] = []
        self.namespaces = Namespaces(limits.wildcard_types_max)
        for function, run in zip(functions, runners, strict=True):
            if not self.namespaces.declare(function, run):
                self._add_type(function, run)
        self.egresses = {name: EgressBuffer(name, encode, shards) for name, encode in egresses.items()}
        self.owners: dict[str, int] = {}
        self.invocations = 0
        self.letters = DeadLetters(table, shard, shards, self.totals)
        self.running: FunctionType | None = None
        """What runs now, for the heartbeat."""
        self.progress: Iterator[str] = iter(())
        """The ids of the running batch, as far as they are still to come: by its length hint another thread can tell whether
        one invocation takes long or many follow each other, and no invocation pays for that."""
        self._owner_of_slot = [owner for owner in range(shards) for _ in range(*slot_range(owner, shards))]
        self._turn = 0
        self._end_of_batch = 0
        self._make_context = context
        self.context = self.make_context()
        self.operations = Operations(self, shards)
        self._emitted = [buffer.fresh for buffer in self.egresses.values()]
        self.calls = Calls(self, self.operations.finish)

    def retire(self) -> None:
        """Let go of what knows this dispatcher (see ``ShardCore.retire``)."""
        self.calls.retire()
        self.operations.retire()
        self.timers.retire()
        for target in self.order:
            for queue in target.queues:
                queue.rows.clear()  # a row knows its target
        for buffer in self.egresses.values():
            buffer.fresh.clear()
        self.effects.clear()
        del self.context
        if self.breadcrumb is not None:
            self.breadcrumb.retire()

    # ---- function types -------------------------------------------------------------------------------------------------
    def resolve(self, typename: str) -> FunctionType:
        """The function type of a name; if it is not in ``types`` yet, of a namespace that is declared as a whole.

        Raises:
            UnknownTargetError: there is no such function.
            InvocationError: it would be one name too many (``limits.wildcard_types_max``).
        """
        target = self.types.get(typename)
        return target or self._add_type(*self.namespaces.resolve(typename, self.types))

    def _add_type(self, function: CompiledFunction, run: Runner) -> FunctionType:
        typename = function.spec.typename
        records, totals = self.table.generation_of(function), self.totals.of(typename)
        target = FunctionType(function, run, records, self.shard, self.shards, self.limits, totals)
        if self.breadcrumb is not None and function.spec.options.style == "plain":
            target.run = run_careful  # asynchronous and blocking types leave breadcrumbs by themselves
        known = self.types.setdefault(typename, target)  # the thread of a blocking function may have met the name, too
        if known is target:
            self.order.append(target)
            self._arrivals.append(target.mailbox.rows)
        return known

    def end_careful_mode(self) -> None:
        """Run as usual from now on. Only between two pieces of work."""
        if self.breadcrumb is not None:
            self.breadcrumb.retire()
            self.breadcrumb = None
            for target in self.order:
                target.run = target.usual
            self.calls.end_careful_mode()

    def name_message(self) -> str:
        """A name for the message that runs now, for logs: the shard, and its number among the shard's invocations."""
        return f"{self.shard}-{self._end_of_batch - operator.length_hint(self.progress)}"

    def make_context(self) -> InvocationContext:
        """A context of its own, for an invocation beside the loop."""
        return self._make_context(self)

    # ---- owners ---------------------------------------------------------------------------------------------------------
    def admit(self, id: Any) -> int:
        """The owner of an id that is not in ``owners``, which remembers it.

        Raises:
            PayloadTypeError: it is not an id.
        """
        try:
            fits = type(id) is str and 0 < len(id.encode()) <= ID_BYTES_MAX
        except UnicodeEncodeError:
            fits = False
        if not fits:
            msg = f"id: expected a text of 1 to {ID_BYTES_MAX} bytes, got {id!r:.100}"
            raise PayloadTypeError(msg)
        if len(self.owners) >= self.limits.owner_cache:
            self.owners.clear()
        owner = self.owners[id] = self._owner_of_slot[slot_of(id)]
        return owner

    # ---- running --------------------------------------------------------------------------------------------------------
    @property
    def waiting(self) -> int:
        """Messages in the own mailbox that may run now."""
        return sum(len(target.mailbox) for target in self.order if not target.stalled)

    def outgoing(self, peer: int) -> int:
        """Messages that wait for a peer."""
        return sum(len(target.queues[peer]) for target in self.order)

    def run(self, limit: int) -> FunctionType | None:
        """Run up to ``limit`` waiting messages of the next type that has some; that type, or ``None``."""
        order = self.order
        for _ in range(len(order)):
            self._turn = (self._turn + 1) % len(order)
            target = order[self._turn]
            if len(target.mailbox) and not target.stalled:
                batch = target.mailbox.take(min(limit, target.chunk))
                if target.beside:
                    self.calls.take(target, batch)
                else:
                    self._execute(target, batch)
                return target
        return None

    def _execute(self, target: FunctionType, batch: Batch) -> None:
        context, totals, messages = self.context, target.totals, len(batch.ids)
        self.running = target
        self._end_of_batch = self.invocations + messages
        context.open()
        try:
            target.run(target, batch, self)
        finally:
            context.close()
            self.running = None
        self.invocations += messages
        if target.passed_over:
            messages -= target.passed_over
            totals.messages += target.refused
            target.passed_over = target.refused = 0
        totals.messages += messages
        totals.attempts += messages
        if self.effects:
            self.route(totals)

    def begin_attempt(self, target: FunctionType) -> None:
        """One invocation apart from a batch follows."""
        self.running = target
        self.progress = iter(())
        self._end_of_batch = self.invocations
        self.context.open()

    def end_attempt(self) -> None:
        """It is over."""
        self.context.close()
        self.running = None

    def route(self, totals: FunctionTotals | None = None) -> None:
        """Send every recorded effect on its way.

        Args:
            totals: of the function type that has recorded them, to count them: a few one by one, many by how much longer lists
                become; ``None``: it was no function.
        """
        if totals is not None and len(self.effects) < FEW_ROWS + len(self._arrivals):
            self._count(totals)
            totals = None
        before = None if totals is None else self._lengths()
        owners = self.owners
        for row in self.effects:
            id = row[1]
            try:
                owner = owners[id]
            except KeyError:
                owner = self.admit(id)
            row[0].rows[owner].append(row)
        if totals is not None and before is not None:
            local, emitted, other = map(operator.sub, self._lengths(), before)
            totals.out_local += local
            totals.out_egress += emitted
            totals.out_remote += len(self.effects) - local - emitted - other
        self.effects.clear()

    def _lengths(self) -> tuple[int, int, int]:
        """Of what waits here, of what was emitted, and of what is no message at once."""
        return sum(map(len, self._arrivals)), sum(map(len, self._emitted)), len(self.timers.fresh) + len(self.operations.fresh)

    def _count(self, totals: FunctionTotals) -> None:
        for row in self.effects:
            if type(row[0]) is EgressBuffer:
                totals.out_egress += 1
            elif type(row[0]) is FunctionType:
                local = self._is_own(row[1])
                totals.out_local += local
                totals.out_remote += not local

    def _is_own(self, id: str) -> bool:
        owner = self.owners.get(id)
        return (self.admit(id) if owner is None else owner) == self.shard

    def route_fired(self) -> None:
        """Send the messages of timers, which count as sent now, by their senders."""
        for _, id, sender, _ in self.effects:
            totals = self.totals.known(sender.typename)
            local = self._is_own(id)
            totals.out_local += local
            totals.out_remote += not local
        self.route()

    def load(self, target: FunctionType, id: str, sender: Any, sender_type: str | None, value: Any) -> Any | None:
        """The record of an address that is not in ``young``; ``None`` if the message must not run now.

        It waits if the address is busy, and is parked if the state cannot be read.
        """
        if target.blocked and (blocked := target.blocked.get(id)) is not None:
            self.calls.queue(target, blocked, (sender_of(sender, sender_type), value))
            target.passed_over += 1
            return None
        return self.find(target, id, sender, sender_type, value)

    def find(self, target: FunctionType, id: str, sender: Any, sender_type: str | None, value: Any) -> Any | None:
        """The record of an address; ``None`` after parking the message if its state cannot be read."""
        record = target.records.young.get(id)
        if record is not None:
            return record
        try:
            return self.table.load(target.records, id)
        except PayloadTypeError as error:
            target.passed_over += 1
            target.refused += 1
            self.letters.park(Address(target.typename, id), sender_of(sender, sender_type), target.payloads, value, str(error))
            return None

    # ---- failures -------------------------------------------------------------------------------------------------------
    def failed(
        self, target: FunctionType, record: Any, sender: Any, sender_type: str | None, value: Any, error: BaseException
    ) -> None:
        """An attempt has raised: try again as the policy says, before anything else of that address, then give up.

        Raises:
            FunctionRestartError: the policy says so.
        """
        policy = target.policy
        if policy.backoff_ms and policy.attempts > 1:
            self.calls.block(target, record, sender_of(sender, sender_type), value, error)
            return
        first, totals = error, target.totals
        totals.failures += 1
        try:
            for _ in range(policy.attempts - 1):
                totals.attempts += 1
                totals.retries += 1
                try:
                    invoke(target, record, sender, sender_type, value, self)
                except BaseException as again:  # noqa: BLE001 - as in the runners
                    forget_earlier(again, first)
                    error = again
                    totals.failures += 1
                else:
                    return
            self.give_up(target, record._address, sender_of(sender, sender_type), value, error, policy.attempts)  # noqa: SLF001
        finally:
            del error, first  # their tracebacks know this frame

    def give_up(
        self, target: FunctionType, address: Address, sender: Address | None, value: Any, error: BaseException, attempts: int
    ) -> None:
        """The last attempt has failed: park the message.

        Raises:
            FunctionRestartError: the policy is to fall back to the last checkpoint instead.
        """
        reason, trace = describe_error(error, self.limits.traceback_bytes)
        if target.policy.then == "restart":
            msg = f"{address} has failed (attempts: {attempts}), and its policy is to restart: {reason}"
            raise FunctionRestartError(msg) from error
        self.letters.park(address, sender, target.payloads, value, reason, trace, attempts)

    # ---- messages from outside ------------------------------------------------------------------------------------------
    def accept_blocks(self, blocks: Iterable[list[Any]], parked: Parked | None = None) -> int:
        """Put the blocks of a frame or a restored queue into the mailboxes; how many messages. Unknown types are parked.

        Raises:
            ProtocolError: a block is malformed.
        """
        return sum(self.accept_block(self.shard, block, parked) for block in blocks)

    def accept_block(self, shard: int, block: list[Any], parked: Parked | None = None) -> int:
        """One block into the queue for ``shard`` (the own number: the mailbox).

        Args:
            parked: the block is of a checkpoint, perhaps of an earlier version of the application: every value is checked
                against its declared type, and what cannot be restored is counted here.
        """
        typename, reason = block[0], ""
        payloads: Payloads = _NO_PAYLOADS
        try:
            target = self.resolve(typename)
            payloads = target.payloads
        except UnknownTargetError:
            reason = f"the function {typename} does not exist any more"
        except InvocationError as error:
            reason = str(error)
        batch, undecodable = decode_block(payloads, block, stored=parked is not None)
        if batch.ids:
            target.queues[shard].append(batch)
        for message in undecodable:
            message = message._replace(reason=reason or message.reason)
            self.letters.park_undecodable(typename, message)
            if parked is not None:
                parked.add(typename, message.reason)
        return len(batch.ids)

    def send_end(self, typename: str, ids: list[str]) -> None:
        """Tell addresses that have stored state that a bounded run is at its end, if their function wants to know."""
        try:
            target = self.resolve(typename)
        except UnknownTargetError:
            return
        except InvocationError as error:
            for id in ids:
                self.letters.park_undecodable(typename, UndecodableMessage(id, None, END_TYPE.name, None, str(error)))
            return
        if target.function.spec.on_end is not None:
            target.mailbox.append(Batch(ids, None, None, [END] * len(ids)))

    def ingest_columns(self, typename: str, ids: Sequence[str], values: Sequence[Any]) -> None:
        """Ready columns from an ingress. The values must be of a class in the target's ``shared``.

        Raises:
            UnknownTargetError, PayloadTypeError: the target does not exist or does not take such values or ids.
        """
        target = self.resolve(typename)
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

    def ingest_records(
        self, messages_of: Router, records: Iterable[Any], refuse: Callable[[int, Any, BaseException], None]
    ) -> None:
        """Take in the messages of ingress records, of each record all or none.

        Args:
            messages_of: gives the messages ``(typename, id, value)`` of a record.
            refuse: called with a record that sends nothing, its number in ``records``, and why: what ``messages_of`` raised,
                ``UnknownTargetError`` or ``PayloadTypeError``.
        """
        effects, types, owners = self.effects, self.types, self.owners
        for number, record in enumerate(records):
            mark = len(effects)
            try:
                for typename, id, value in messages_of(record):
                    target = types.get(typename) or self.resolve(typename)
                    if type(value) not in target.shared:
                        value = target.payloads.prepare(value)
                    if id not in owners:
                        self.admit(id)
                    effects.append((target, id, None, value))
            except BaseException as error:  # noqa: BLE001 - a router is user code
                del effects[mark:]
                refuse(number, record, error)

    def ingest_messages(self, messages: Iterable[Any]) -> None:
        """Take in the messages ``(typename, id, value)`` of one record, all or none.

        Raises:
            UnknownTargetError, PayloadTypeError, or what ``messages`` raises while it is iterated.
        """
        self.ingest_records(lambda _: messages, (None,), _raise)


def _raise(_number: int, _record: Any, error: BaseException) -> NoReturn:
    raise error


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
