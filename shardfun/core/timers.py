"""Timers: messages that are sent later. What a function asks for, what becomes of it, and when it fires.

The one destination of requests and cancellations, as rows beside those of messages. They take effect in the order recorded when
their invocation has returned (``collect``), and vanish with it when it fails. A timer lives on its sender's shard. Firing deletes it
and puts its message into a queue, in one step between two pieces of work: so it fires once, never early, and in order.

A *token* names a pending timer of one id, whatever its function type. Whether one is pending has to be known while functions run:
what the running batch has recorded counts too. See ``_staged``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, assert_never

import cbor2

from shardfun.core.cells import Cells
from shardfun.core.limits import Limits
from shardfun.core.queue import Row
from shardfun.core.timer_cells import StoredTimer, check_token, token_prefix
from shardfun.core.timer_index import TIMER_PREFIX, TimerIndex, due_of, timer_suffix
from shardfun.errors import InvocationError, PayloadTypeError, TokenPendingError, UnknownTargetError
from shardfun.model.address import Address
from shardfun.model.columns import ENCODE_ERRORS, UndecodableMessage, reason_gone
from shardfun.model.keyspace import slot_of
from shardfun.model.payload import Encoded

if TYPE_CHECKING:
    from shardfun.core.dispatch import Dispatcher
    from shardfun.core.function_type import FunctionType
    from shardfun.core.parked import Parked

FOREVER_MS = 1 << 63
BACKLOG_PARTS = 2  # no timer fires while a half of the backlog's limit waits for calls


class TimerRequest(NamedTuple):
    """Send a message later.

    Args:
        typename: of the target.
        value: of the cell.
        token: empty for none.
        replace: a pending timer of the token is cancelled first.
    """

    due_ms: int
    typename: str
    value: bytes
    token: str
    replace: bool


class Cancellation(NamedTuple):
    """Forget the pending timer of a token, if there is one."""

    token: str


class Timers:
    """The timers of one shard in one incarnation. A destination of effect rows.

    Args:
        effects: the list in which the running batch records its effects.

    ``made``: timers made in the surviving history; ``pending``: by typename of the target.
    """

    __slots__ = (
        "_cells",
        "_effects",
        "_fired_at",
        "_index",
        "_limits",
        "_notes",
        "_staged",
        "fresh",
        "made",
        "pending",
        "rows",
    )

    def __init__(self, cells: Cells, effects: list[Row], limits: Limits, shards: int) -> None:
        self.fresh: list[Row] = []
        self.rows = [self.fresh] * shards
        self.made = 0
        self.pending: Counter[str] = Counter()
        self._cells = cells
        self._effects = effects
        self._limits = limits
        self._index = TimerIndex(cells, limits.timers_near)
        self._staged: dict[tuple[str, str], bool] = {}
        self._notes: list[tuple[int, Row, tuple[str, str], bool | None]] = []
        self._fired_at = 0

    def retire(self) -> None:
        """Break the reference cycles (see ``ShardCore.retire``): a row knows its destination."""
        self.fresh.clear()
        self._notes.clear()

    @property
    def count(self) -> int:
        """Pending timers."""
        return self._index.count

    # ---- while functions run --------------------------------------------------------------------------------------------
    def request(
        self,
        rows: list[Row],
        sender: Address,
        due_ms: int,
        target: FunctionType,
        id: str,
        value: Any,
        token: str,
        *,
        replace: bool,
    ) -> Row:
        """The effect row of a delayed message, to be appended to ``rows``.

        Args:
            rows: in which the invocation records its effects.
            value: prepared for the target (see ``Payloads.prepare``).

        Raises:
            PayloadTypeError: the value or the token cannot be encoded.
            TokenPendingError: the token is in use and not to be replaced.
        """
        described = value.type if type(value) is Encoded else target.payloads.by_class[type(value)]
        try:
            item = described.encode_item(value)
            raw = cbor2.dumps([token, target.typename, id, sender[0], sender[1], described.name, item])
        except ENCODE_ERRORS as error:
            msg = f"{target.payloads.where}: the value cannot be encoded: {error}"
            raise PayloadTypeError(msg) from error
        row = (self, sender[1], sender, TimerRequest(due_ms, target.typename, raw, token, replace))
        if token:
            check_token(token)
            if not replace and self._is_pending(rows, sender[1], token):
                raise _pending(sender[1], token)
            self._note(rows, row, token, pending=True)
        return row

    def cancellation(self, rows: list[Row], sender: Address, token: str) -> Row:
        """The effect row of a cancellation, to be appended to ``rows``.

        Raises:
            InvocationError: the token is empty or no text.
        """
        check_token(token)
        row = (self, sender[1], sender, Cancellation(token))
        self._note(rows, row, token, pending=False)
        return row

    def check(self, rows: Sequence[Row]) -> None:
        """Check requests that were recorded apart, right before they become effects of the shard. Between two pieces of work.

        Raises:
            TokenPendingError: a token has come into use meanwhile.
        """
        if self.fresh:
            self.collect()
        pending: dict[tuple[str, str], bool] = {}
        for row in rows:
            request, key = row[3], (row[1], row[3].token) if row[0] is self else None
            if key is None or not key[1]:
                continue
            if type(request) is TimerRequest and not request.replace and pending.get(key, self._is_stored(*key)):
                raise _pending(*key)
            pending[key] = type(request) is TimerRequest

    def _is_pending(self, rows: list[Row], id: str, token: str) -> bool:
        """Whether a token is in use, after what ``rows`` holds so far."""
        if rows is self._effects:
            self._undo_stale()
            found = self._staged.get((id, token))
            if found is not None:
                return found
            if self.fresh:
                self.collect()  # of invocations that have returned
            return self._is_stored(id, token)
        for row in reversed(rows):  # of an invocation beside the loop, perhaps in a thread: it only looks
            if row[0] is self and row[1] == id and row[3].token == token:
                return type(row[3]) is TimerRequest
        return self._is_stored(id, token)

    def _is_stored(self, id: str, token: str) -> bool:
        return self._cells.get(token_prefix(id), token.encode()) is not None

    def _note(self, rows: list[Row], row: Row, token: str, *, pending: bool) -> None:
        """What the running batch has recorded for a token, with what is needed to undo it."""
        if rows is self._effects:
            self._undo_stale()
            key = (row[1], token)
            self._notes.append((len(rows), row, key, self._staged.get(key)))
            self._staged[key] = pending

    def _undo_stale(self) -> None:
        """Undo the notes whose rows are not in their places: their invocation has failed, or they have taken effect."""
        notes, effects = self._notes, self._effects
        while notes:
            place, row, key, before = notes[-1]
            if place < len(effects) and effects[place] is row:
                return
            notes.pop()
            if before is None:
                del self._staged[key]
            else:
                self._staged[key] = before

    # ---- between two pieces of work -------------------------------------------------------------------------------------
    def collect(self) -> None:
        """Requests and cancellations of invocations that have returned take effect."""
        for _, id, _, request in self.fresh:
            if request.token and (type(request) is Cancellation or request.replace):
                self._cancel(id, request.token)
            if type(request) is TimerRequest:
                self._add(id, request)
        self.fresh.clear()

    def _add(self, id: str, request: TimerRequest) -> None:
        self.made += 1
        suffix = timer_suffix(request.due_ms, self.made, slot_of(id))
        self._index.add(suffix, request.value)
        self.pending[request.typename] += 1
        if request.token:
            self._cells.put(token_prefix(id), request.token.encode(), suffix)

    def _cancel(self, id: str, token: str) -> None:
        suffix = self._cells.get(token_prefix(id), token.encode())
        if suffix is not None:  # else it has fired, or was never there
            self._remove(StoredTimer(suffix, self._index.value_of(suffix)))

    def _remove(self, timer: StoredTimer) -> None:
        self._index.remove(timer.suffix)
        if timer.token:
            self._cells.put(token_prefix(timer.sender.id), timer.token.encode(), None)
        self.pending[timer.typename] -= 1
        if not self.pending[timer.typename]:
            del self.pending[timer.typename]

    # ---- firing ---------------------------------------------------------------------------------------------------------
    @property
    def awaited(self) -> int:
        """Timers that have to fire before a bounded run is at its end."""
        return 0 if self._limits.timers_at_end == "keep" else self.count

    def until_ms(self, now_ms: int, *, at_end: bool, ended: bool) -> int | None:
        """What is due then or before fires now; ``None``: nothing does any more.

        Args:
            at_end: the shard's ingresses are used up; ``ended``: the bounded run is at its end.
        """
        match self._limits.timers_at_end:
            case "keep":
                return None if ended else now_ms
            case "wait":
                return now_ms
            case "fire":
                return FOREVER_MS if at_end else now_ms
            case _:
                assert_never(self._limits.timers_at_end)

    def wake_at_ms(self, dispatcher: Dispatcher, until_ms: int | None) -> int | None:
        """When ``fire`` has something to do: unix milliseconds; ``None``: not before something else happens."""
        if not self.count or until_ms is None or not self._room(dispatcher):
            return None
        first = self._index.first()
        return 0 if first is None or until_ms == FOREVER_MS else due_of(first)

    def fire(self, dispatcher: Dispatcher, until_ms: int | None) -> bool:
        """Send some of the messages that are due, the earliest first; whether anything was done.

        Args:
            until_ms: see there.
        """
        if not self.count or until_ms is None:
            return False
        index = self._index
        loaded = index.low
        if loaded:
            index.load(self._limits.timers_load)
        fired = room = 0
        after = timer_suffix(until_ms + 1, 0, 0)
        while (suffix := index.first()) is not None and suffix < after:
            room = room or min(self._limits.timers_fire, self._room(dispatcher))
            if fired >= room:
                break
            timer = StoredTimer(suffix, index.value_of(suffix))
            self._remove(timer)
            try:
                dispatcher.effects.append(_message_of(timer, dispatcher))
            except UnknownTargetError:
                _park(timer, dispatcher)
            except InvocationError as error:
                _park(timer, dispatcher, str(error))
            fired += 1
        if fired:
            self._fired_at = dispatcher.invocations
            dispatcher.route_fired()
        return loaded or fired > 0

    def _room(self, dispatcher: Dispatcher) -> int:
        """How many messages may be added to the queues. A shard whose queues are always full fires some nevertheless.

        Messages that wait for a call do not count, or one slow function would keep the timers of all others; only when there are so
        many that timers would end the node.
        """
        refill = self._limits.mailbox_refill
        waits = dispatcher.calls.waiting
        if waits > self._limits.backlog_limit // BACKLOG_PARTS:
            return 0
        stalled = sum(len(target.mailbox) for target in dispatcher.order if target.stalled)
        waiting = sum(len(queue) for target in dispatcher.order for queue in target.queues) - stalled
        if waiting >= refill and dispatcher.invocations - self._fired_at >= refill:
            return self._limits.timers_fire
        return max(0, refill - waiting)

    # ---- checkpoints ----------------------------------------------------------------------------------------------------
    def restore(self, made: int, pending: Mapping[str, int], lowest: bytes) -> None:
        """What a checkpoint holds beside the cells."""
        self.made = made
        self.pending = Counter(pending)
        self._index.restore(sum(pending.values()), lowest)

    @property
    def lowest(self) -> bytes:
        """The suffix of a timer cell before which there is none."""
        return self._index.lowest

    def park_gone(self, dispatcher: Dispatcher, parked: Parked) -> None:
        """Right after ``restore``: park the timers whose targets do not exist any more. Only then all timers are read."""
        gone = [typename for typename in self.pending if not _exists(typename, dispatcher)]
        if not gone:
            return
        for suffix, raw in self._cells.scan(TIMER_PREFIX):
            timer = StoredTimer(suffix, raw)
            if timer.typename in gone:
                self._remove(timer)
                parked.add(timer.typename, _park(timer, dispatcher))

    def cut(self) -> None:
        """The changes are frozen for a checkpoint."""
        self._index.cut()

    def applied(self) -> None:
        """The store has the changes of the last cut."""
        self._index.applied()


def _exists(typename: str, dispatcher: Dispatcher) -> bool:
    try:
        dispatcher.resolve(typename)
    except UnknownTargetError:
        return False
    except InvocationError:  # it does, but there are too many names: found out when it fires
        return True
    return True


def _message_of(timer: StoredTimer, dispatcher: Dispatcher) -> Row:
    """The message of a timer as an effect row.

    Raises:
        InvocationError: it cannot be delivered.
    """
    target = dispatcher.resolve(timer.typename)
    described = target.payloads.by_name.get(timer.payload_type)
    if described is None:
        raise PayloadTypeError(reason_gone(target.payloads, timer.payload_type))
    return (target, timer.id, timer.sender, described.decode_item(timer.payload))


def _park(timer: StoredTimer, dispatcher: Dispatcher, reason: str = "") -> str:
    """A timer that cannot be delivered becomes a dead letter; why."""
    reason = reason or f"the function {timer.typename} does not exist any more"
    letter = UndecodableMessage(timer.id, timer.sender, timer.payload_type, timer.payload, reason)
    dispatcher.letters.park_undecodable(timer.typename, letter)
    return reason


def _pending(id: str, token: str) -> TokenPendingError:
    return TokenPendingError(
        f"token {token!r:.100} of id {id!r:.100} belongs to a message that is still pending; cancel it, or use replace=True"
    )
