"""Calls: user code that runs beside the loop. Which one begins, what its end means, and who waits meanwhile.

Asynchronous and blocking functions, and operations. The core asks for them (``StartCall``) and hears of their end (``done``); how
they run is the driver's business. While a call of an address runs, or while it waits for another attempt, the address is *blocked*:
its messages gather behind the one that is being processed, and in every cut they stand before the mailbox.

A little long: beginning, end, another attempt and the way back to the mailbox keep the same counts, and are read together.
"""

from __future__ import annotations

import heapq
import inspect
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shardfun.core.cells import CellsBeside
from shardfun.core.effects import StartCall, Style
from shardfun.core.runner import call, invoke
from shardfun.errors import PayloadTypeError, StorageError
from shardfun.model.address import Address
from shardfun.model.columns import Batch
from shardfun.model.crumbs import SLOTS
from shardfun.model.payload import Encoded

if TYPE_CHECKING:
    from shardfun.core.dispatch import Dispatcher, InvocationContext
    from shardfun.core.function_type import FunctionType

CRUMB_SLOTS = SLOTS

Waiting = tuple[Any, Any]
"""``(sender address or None, value)``."""


class Blocked:
    """An address that is busy. ``waiting[0]`` is the message being processed, or being tried again.

    Args:
        record: of a plain function, taken out of the table so that no message gets past; ``None`` for others.
    """

    __slots__ = ("attempts", "record", "waiting")

    def __init__(self, first: Waiting, record: Any) -> None:
        self.waiting: deque[Waiting] = deque((first,))
        self.record = record
        self.attempts = 0


@dataclass(slots=True, eq=False)
class Invocation:
    """An asynchronous or blocking invocation under way."""

    target: FunctionType
    id: str
    context: InvocationContext
    rows: list[Any]
    copy: Any
    mark: int | None
    """In careful mode, what to give to ``Breadcrumb.end``."""


class Calls:
    """All calls and blocked addresses of one shard in one incarnation.

    ``finish_operation``: told of the end of calls that are no invocations.
    """

    def __init__(self, dispatcher: Dispatcher, finish_operation: Callable[[int, Any, BaseException | None], None]) -> None:
        self.effects: list[StartCall] = []
        self.blocked = 0
        """Blocked addresses."""
        self._suspected: Counter[tuple[FunctionType, str]] = Counter()
        self._dispatcher = dispatcher
        self._order = dispatcher.order
        self._finish_operation = finish_operation
        self._invocations: dict[int, Invocation] = {}
        self._alone: int | None = None
        self._alone_waits = False
        self._next_alone = False
        self._running = 0
        self._waiting = 0  # counted, since a sum over a thousand busy addresses in each iteration costs half of the throughput
        self._number = 0
        self._retries: list[tuple[int, int, FunctionType, str]] = []

    def retire(self) -> None:
        """Break the reference cycles (see ``ShardCore.retire``). The figures may still be asked for."""
        del self._dispatcher, self._finish_operation
        self._invocations = {}
        self.effects = []

    # ---- careful mode ---------------------------------------------------------------------------------------------------
    def suspect_all(self) -> None:
        """Careful mode begins: any of the messages that wait for a call may be the one."""
        for target in self._order:
            if target.beside:
                self._suspected.update((target, id) for batch in target.mailbox.snapshot() for id in batch.ids)

    @property
    def suspects(self) -> int:
        """Messages that were there when careful mode began and have not been dealt with: it does not end before them.

        They are the first ones of their addresses, so it is enough to count.
        """
        return self._suspected.total()

    def end_careful_mode(self) -> None:
        """Nothing has to be alone any more."""
        self._suspected.clear()
        self._alone = None
        self._alone_waits = False
        self._unstall()

    # ---- figures --------------------------------------------------------------------------------------------------------
    @property
    def running(self) -> int:
        """Calls under way: invocations and operations."""
        return self._running

    @property
    def wake_at_ms(self) -> int | None:
        """When the next attempt is due: unix milliseconds."""
        return self._retries[0][0] if self._retries and not self.full else None

    @property
    def full(self) -> bool:
        """Whether no further call may begin in this shard.

        In careful mode there are only as many at once as there is room for breadcrumbs.
        """
        limit = self._dispatcher.limits.calls
        if self._dispatcher.breadcrumb is not None:
            limit = min(limit, CRUMB_SLOTS)
        return self._running >= limit or self._alone_waits or self._alone is not None

    # ---- invocations ----------------------------------------------------------------------------------------------------
    def take(self, target: FunctionType, batch: Batch) -> int:
        """Begin the messages of a batch, as far as addresses and limits are free; how many were begun.

        Messages for busy addresses wait there. When a limit is reached the rest goes back, and the type is stalled.
        """
        begun = 0
        ids, sender_type = batch.ids, batch.sender_type
        for position, id in enumerate(ids):
            sender = None if batch.senders is None else batch.senders[position]
            if sender_type is not None and sender is not None:
                sender = Address(sender_type, sender)
            message = (sender, batch.values[position])
            blocked = target.blocked.get(id)
            if blocked is not None:
                self.queue(target, blocked, message)
                continue
            if self.full or target.calls >= target.calls_max or self._has_to_be_alone(target, id, message):
                rest = None if batch.senders is None else batch.senders[position:]
                target.mailbox.put_back(Batch(ids[position:], rest, sender_type, batch.values[position:]))
                target.stalled = True
                break
            self._block(target, id, message, None)
            target.totals.messages += 1
            begun += 1
            self._begin_or_next(target, id)
        return begun

    def _begin(self, target: FunctionType, id: str) -> bool:
        """Begin the first waiting message of an address, which is blocked already; false if it is dealt with without a call."""
        alone, self._next_alone = self._next_alone, False
        dispatcher = self._dispatcher
        sender, value = target.blocked[id].waiting[0]
        record = dispatcher.find(target, id, sender, None, value)
        if record is None:  # its state cannot be read: the message is parked
            return False
        breadcrumb, mark = dispatcher.breadcrumb, None
        if breadcrumb is not None:
            mark = breadcrumb.begin(target, id, sender, None, value)
            if mark is None:
                breadcrumb.park(dispatcher, target, id, sender, None, value)
                return False
        assert target.copies is not None
        rows: list[Any] = []
        try:
            copy = target.copies.begin(record, CellsBeside(dispatcher.table.cells), dispatcher.now_ms)
            payload = value.type.decode(value.data) if type(value) is Encoded else value
        except PayloadTypeError as error:
            if breadcrumb is not None and mark is not None:
                breadcrumb.end(mark)
            return self._try_again(target, id, error)
        context = dispatcher.make_context()
        number = self._next_number()
        self._alone = number if alone else None
        context.open_call(rows, record._address, sender, copy, f"{dispatcher.shard}-call-{number}")  # noqa: SLF001
        self._invocations[number] = Invocation(target, id, context, rows, copy, mark)
        target.calls += 1
        target.totals.attempts += 1
        target.totals.retries += target.blocked[id].attempts > 0
        self._running += 1
        options = target.function.spec.options
        function = target.function
        # `on_end` is always a plain function, so its call is over when it returns; drivers take what is no coroutine as a result.
        run = lambda: call(function, context, payload)  # noqa: E731
        style: Style = "blocking" if options.style == "blocking" else "async"
        self.effects.append(StartCall(number, str(record._address), style, run, options.timeout_ms, options.asyncio))  # noqa: SLF001
        return True

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    # ---- operations -----------------------------------------------------------------------------------------------------
    def begin_operation(self, what: str, function: Callable[..., Any], arguments: tuple[Any, ...], *, asyncio: bool) -> int:
        """Begin a call without an address; its number."""
        number = self._next_number()
        self._running += 1
        style: Style = "async" if inspect.iscoroutinefunction(function) else "blocking"
        self.effects.append(StartCall(number, what, style, lambda: function(*arguments), None, asyncio))
        return number

    # ---- the end of a call ----------------------------------------------------------------------------------------------
    def done(self, number: int, value: Any, error: BaseException | None) -> None:
        """A call has ended.

        Raises:
            FunctionRestartError: the failure policy of its function says so.
            StorageError: the store cannot be read.
        """
        self._running -= 1
        if number == self._alone:
            self._alone = None
        invocation = self._invocations.pop(number, None)
        if invocation is None:
            self._finish_operation(number, value, error)
        else:
            self._end(invocation, error)
        self._unstall()

    def _end(self, invocation: Invocation, error: BaseException | None) -> None:
        target, id, dispatcher = invocation.target, invocation.id, self._dispatcher
        target.calls -= 1
        invocation.context.close()
        if invocation.mark is not None and dispatcher.breadcrumb is not None:
            dispatcher.breadcrumb.end(invocation.mark)
        dispatcher.invocations += 1
        if error is None:
            error = self._refusal(invocation)
        if error is None or not self._try_again(target, id, error):
            self._next(target, id)

    def _refusal(self, invocation: Invocation) -> Exception | None:
        """Commit; why that is not possible. By itself, so that no frame keeps an error whose traceback knows it."""
        try:
            self._commit(invocation)
        except StorageError:
            raise
        except Exception as refused:  # noqa: BLE001 - a value that does not fit, a token that is pending: the invocation fails
            return refused
        return None

    def _commit(self, invocation: Invocation) -> None:
        """State and effects in one step: first all that may fail."""
        dispatcher, target = self._dispatcher, invocation.target
        assert target.copies is not None
        dispatcher.timers.check(invocation.rows)
        record = target.records.young.get(invocation.id)
        if record is None:
            record = dispatcher.table.load(target.records, invocation.id)
        invocation.copy._record = record  # noqa: SLF001 - it may have been forgotten and loaded again since
        target.copies.commit(invocation.copy, dispatcher.table)
        dispatcher.effects += invocation.rows
        dispatcher.route(target.totals)

    def _next(self, target: FunctionType, id: str) -> None:
        """The first message of an address is dealt with: the next one's turn, without a way through the mailbox."""
        blocked = target.blocked[id]
        while True:
            blocked.waiting.popleft()
            self._waiting -= 1
            target.waiting -= 1
            blocked.attempts = 0
            if self._suspected.get((target, id)):
                self._suspected[target, id] -= 1
            if not blocked.waiting or not self._may_begin(target, id):
                target.stalled |= bool(blocked.waiting)
                self._put_back(target, id)
                return
            target.totals.messages += 1
            if self._begin(target, id):
                return

    def _put_back(self, target: FunctionType, id: str) -> None:
        """The address is free, and its messages are older than what is in the mailbox for it."""
        waiting = target.blocked.pop(id).waiting
        self.blocked -= 1
        self._waiting -= len(waiting)
        target.waiting -= len(waiting)
        if waiting:
            senders, values = zip(*waiting, strict=True)
            target.mailbox.put_back(Batch([id] * len(values), senders, None, values))

    def _block(self, target: FunctionType, id: str, first: Waiting, record: Any) -> None:
        target.blocked[id] = Blocked(first, record)
        self.blocked += 1
        self._waiting += 1
        target.waiting += 1

    def queue(self, target: FunctionType, blocked: Blocked, message: Waiting) -> None:
        """Another message for a busy address."""
        blocked.waiting.append(message)
        self._waiting += 1
        target.waiting += 1

    def _has_to_be_alone(self, target: FunctionType, id: str, message: Waiting) -> bool:
        """Whether this message must not begin yet: it is suspected (see ``core.poison``), and others are under way.

        Of several that are under way in each death nobody can tell which one it is, so a suspect runs with nothing beside it.
        """
        breadcrumb = self._dispatcher.breadcrumb
        if breadcrumb is None or not breadcrumb.suspects or not breadcrumb.is_suspect(target, id, message[0], message[1]):
            return False
        self._alone_waits = self._running > 0
        self._next_alone = not self._alone_waits
        return self._alone_waits

    def _unstall(self) -> None:
        """There may be room again: first for attempts that are due, then for what is in mailboxes."""
        if not self._running:
            self._alone_waits = False
        for target in self._order:
            while target.due and self._may_begin(target, target.due[0]):
                self._begin_or_next(target, target.due.popleft())
            if target.stalled and not self.full and target.calls < target.calls_max:
                target.stalled = False

    def _may_begin(self, target: FunctionType, id: str) -> bool:
        """Whether the first message of a blocked address may begin now."""
        full = self.full or target.calls >= target.calls_max
        return not full and not self._has_to_be_alone(target, id, target.blocked[id].waiting[0])

    def _begin_or_next(self, target: FunctionType, id: str) -> None:
        if not self._begin(target, id):
            self._next(target, id)

    # ---- failures -------------------------------------------------------------------------------------------------------
    def _try_again(self, target: FunctionType, id: str, error: BaseException) -> bool:
        """The first message of a blocked address has failed once more; false if that was the last attempt and it is parked.

        Raises:
            FunctionRestartError: the failure policy of its function says so.
        """
        dispatcher, blocked = self._dispatcher, target.blocked[id]
        blocked.attempts += 1
        target.totals.failures += 1
        if blocked.attempts < target.policy.attempts:
            self._retry_at(dispatcher.now_ms + target.policy.pause_ms(blocked.attempts), target, id)
            return True
        sender, value = blocked.waiting[0]
        dispatcher.give_up(target, Address(target.typename, id), sender, value, error, blocked.attempts)
        return False

    def _retry_at(self, due_ms: int, target: FunctionType, id: str) -> None:
        heapq.heappush(self._retries, (due_ms, self._next_number(), target, id))

    def block(self, target: FunctionType, record: Any, sender: Any, value: Any, error: BaseException) -> None:
        """A plain function has failed and its policy wants a pause: nothing else of that address runs until it is over.

        Args:
            record: as it was before; it leaves the table, and with that the fast path, until then.
        """
        id = record._address[1]  # noqa: SLF001
        target.records.remove(id)
        self._block(target, id, (sender, value), record)
        again = self._try_again(target, id, error)
        assert again, "a policy with a pause has more than one attempt"

    def retry(self, limit: int) -> int:
        """Make up to ``limit`` attempts that are due; how many.

        Raises:
            FunctionRestartError: the failure policy of a function says so.
        """
        made = 0
        while made < limit and not self.full and self._retries and self._retries[0][0] <= self._dispatcher.now_ms:
            _, _, target, id = heapq.heappop(self._retries)
            made += 1
            if target.blocked[id].record is not None:
                self._attempt(target, id)
            elif self._may_begin(target, id):
                self._begin_or_next(target, id)
            else:
                target.due.append(id)  # until a call ends: there is one, or there would be room
        return made

    def _attempt(self, target: FunctionType, id: str) -> None:
        """Another attempt of a plain function, as the runners do it."""
        dispatcher, blocked = self._dispatcher, target.blocked[id]
        sender, value = blocked.waiting[0]
        dispatcher.invocations += 1
        breadcrumb, mark = dispatcher.breadcrumb, None
        if breadcrumb is not None:
            mark = breadcrumb.begin(target, id, sender, None, value)
        if breadcrumb is not None and mark is None:
            breadcrumb.park(dispatcher, target, id, sender, None, value)
        else:
            target.totals.attempts += 1
            target.totals.retries += 1
            dispatcher.begin_attempt(target)
            try:
                invoke(target, blocked.record, sender, None, value, dispatcher)
            except BaseException as error:  # noqa: BLE001 - as in the runners
                if self._try_again(target, id, error):
                    return
            finally:
                dispatcher.end_attempt()
                if breadcrumb is not None and mark is not None:
                    breadcrumb.end(mark)
        dispatcher.route(target.totals)
        target.records.young[id] = blocked.record  # back in the table before anybody asks for it
        blocked.waiting.popleft()
        self._waiting -= 1
        target.waiting -= 1
        self._put_back(target, id)

    # ---- the cut --------------------------------------------------------------------------------------------------------
    @staticmethod
    def waiting_messages(target: FunctionType) -> Batch:
        """All messages that wait at the blocked addresses of a type, those under way included. There must be one."""
        rows = list(_rows(target))
        ids, senders, values = zip(*rows, strict=True)
        return Batch(ids, senders, None, values)

    @property
    def waiting(self) -> int:
        """Messages that wait at blocked addresses or in mailboxes of stalled types."""
        return self._waiting + sum(len(target.mailbox) for target in self._order if target.stalled)


def _rows(target: FunctionType) -> Iterator[tuple[str, Any, Any]]:
    for id, blocked in target.blocked.items():
        for sender, value in blocked.waiting:
            yield id, sender, value
