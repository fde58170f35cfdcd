"""One function alone, or one router alone: give it a message, look at what it does. Nothing is delivered, nothing waits.

The function runs on a real core, as in production, with its state checks and type checks. What it sends is taken away and shown.
"""

from __future__ import annotations

import datetime as dt
import math
import random
from collections.abc import Mapping
from itertools import chain
from types import SimpleNamespace, TracebackType
from typing import Any, Self

from structlog.testing import capture_logs

from shardfun.core.careful import why_not_encodable
from shardfun.core.effects import StartCall
from shardfun.core.function_type import EgressBuffer, FunctionType
from shardfun.core.limits import Limits
from shardfun.core.operations import Operations
from shardfun.core.options import FailurePolicy
from shardfun.core.participant import ShardIdentity
from shardfun.core.queue import Row
from shardfun.core.shard import ShardCore, StartPoint
from shardfun.core.snapshot import EMPTY_QUEUES
from shardfun.core.timer_cells import StoredTimer
from shardfun.core.timers import Cancellation, TimerRequest
from shardfun.core.totals import FunctionTotals
from shardfun.errors import PayloadTypeError
from shardfun.model.address import Address
from shardfun.model.columns import Batch
from shardfun.model.payload import Encoded
from shardfun.sdk.app import App, Message
from shardfun.state.memory import MemoryStore
from shardfun.testing.calls import LocalCalls
from shardfun.testing.looking import set_state, state_of
from shardfun.testing.moments import START, duration_ms, to_datetime, to_ms
from shardfun.testing.program import Encoder, compile_program, names, open_egresses
from shardfun.testing.results import Delayed, Emitted, NotQuietError, Result, Sent, StartedOperation
from shardfun.testing.shard import JOB, QUARTER_MS

CALL_PUMPS_MAX = 100_000  # times that one invocation may go to sleep


class FunctionTest:
    """One instance of one function. Use it as a context manager, or ``close`` it, if the function is ``async``.

    Args:
        app: the application.
        typename: of the function; ``id`` of the instance.
        state: its fields at the beginning, as far as they are not at their defaults.
        now: the time, with a time zone.
        seed: of ``ctx.random``.
        encode: what encodes a record of an egress; by default as for files and stdout.

    Raises:
        UnknownTargetError: the application has no such function.
        PayloadTypeError: ``state`` does not fit the declared state.
    """

    def __init__(
        self,
        app: App,
        typename: str,
        id: str = "test",
        *,
        state: Mapping[str, Any] | None = None,
        now: dt.datetime = START,
        seed: int = 0,
        encode: Encoder | None = None,
    ) -> None:
        self.address = Address(typename, id)
        self._core, self._store = _lonely_core(app, seed, encode)
        self._now_ms = self._started_ms = to_ms(now)
        dispatcher = self._core.dispatcher
        self._target = dispatcher.resolve(typename)
        dispatcher.admit(id)
        self._target.policy = FailurePolicy()  # one attempt: a test wants to see what it raises
        dispatcher.route = self._route  # type: ignore[method-assign]
        dispatcher.give_up = self._give_up  # type: ignore[method-assign,assignment]
        asyncio = self._target.function.spec.options.asyncio
        self._calls = LocalCalls(1, random.Random(seed), asyncio=asyncio)  # noqa: S311 - a seed is the point
        self._result = Result()
        self._due: list[Sent] = []
        self._error: BaseException | None = None
        self._advance()
        if state is not None:
            set_state(self._core, typename, id, state)

    # ---- invocations ----------------------------------------------------------------------------------------------------
    def receive(self, value: Any, *, caller: Address | None = None, raises: bool = True) -> Result:
        """Let the function process a message; its effects.

        Args:
            value: of a type that the function accepts.
            caller: who sends it; ``None``: an ingress.
            raises: raise what the function raises. Else it is the result's ``error``.

        Raises:
            PayloadTypeError: the function does not accept such a value.
            NotQuietError: it awaits what does not come.
        """
        payloads = self._target.payloads
        if type(value) in payloads.shared:
            payloads.by_class[type(value)].validate(value)
        else:
            value = payloads.prepare(value)
        self._target.mailbox.append(Batch([self.address.id], [caller], None, [value]))
        return self._invoke(raises=raises)

    def end(self, *, raises: bool = True) -> Result:
        """Let the function process the end of a bounded run; its effects.

        Raises:
            ValueError: it has no ``on_end``.
        """
        if self._target.function.spec.on_end is None:
            msg = f"{self.address.typename} has no on_end: expected @app.on_end({self.address.typename!r}) in the application"
            raise ValueError(msg)
        self._core.dispatcher.send_end(self.address.typename, [self.address.id])
        return self._invoke(raises=raises)

    def _invoke(self, *, raises: bool) -> Result:
        self._advance()
        self._result, self._error = Result(), None
        with capture_logs() as logs:
            while self._core.run(1) is not None:
                for effect in self._core.take_effects():
                    if isinstance(effect, StartCall):
                        self._calls.start(0, effect, self._core.call_done)
                        self._finish_call()
        self._result.logs.extend(dict(entry) for entry in logs)
        if self._error is None:
            self._error = self._unstorable()
        if self._error is not None:
            if raises:
                raise self._error
            return Result(logs=self._result.logs, error=self._error)
        return self._result

    def _finish_call(self) -> None:
        """Until the call has ended: whenever its code sleeps, time moves on."""
        calls = self._calls
        results = calls.results[0]
        for _ in range(CALL_PUMPS_MAX):
            if results:
                results.popleft()()
                return
            if calls.run_blocking(0) or calls.run_async((self._now_ms - self._started_ms) / 1000):
                continue
            due_s = calls.next_deadline_s
            if due_s == math.inf:
                break
            self._now_ms = max(self._now_ms, self._started_ms + math.ceil(due_s * 1000))
            self._advance()
        msg = f"{self.address} awaits what does not come: what it awaits must end by itself or by time"
        raise NotQuietError(msg)

    def _unstorable(self) -> BaseException | None:
        record = self._target.records.young.get(self.address.id)
        reason = "" if record is None else why_not_encodable(self._target.function, record)
        return PayloadTypeError(f"{self.address}: {reason}") if reason else None

    # ---- what the core hands over ---------------------------------------------------------------------------------------
    def _route(self, totals: FunctionTotals | None = None) -> None:  # noqa: ARG002 - nothing is counted
        """In place of the dispatcher's routing: show what was recorded, deliver nothing."""
        effects = self._core.dispatcher.effects
        rows = list(effects)
        effects.clear()
        for row in rows:
            self._show(row)

    def _show(self, row: Row) -> None:
        target, id, _, value = row
        result = self._result
        if isinstance(target, FunctionType):
            result.sent.append(_sent(target, id, value))
        elif isinstance(target, EgressBuffer):
            result.emitted.append(Emitted(target.name, value.value))
        elif isinstance(target, Operations):
            metadata = value.lost.type.decode(value.lost.data).metadata
            result.operations.append(StartedOperation(value.function, value.arguments, metadata))
        elif isinstance(value, Cancellation):
            result.cancelled.append(value.token)
            target.rows[0].append(row)  # these really take effect, since tokens are state
        else:
            assert isinstance(value, TimerRequest)
            result.delayed.append(self._delayed(value))
            target.rows[0].append(row)

    def _delayed(self, request: TimerRequest) -> Delayed:
        dispatcher = self._core.dispatcher
        timer = StoredTimer(bytes(16), request.value)
        value = dispatcher.resolve(timer.typename).payloads.by_name[timer.payload_type].decode_item(timer.payload)
        delay = dt.timedelta(milliseconds=request.due_ms - dispatcher.now_ms)
        return Delayed(delay, Address(timer.typename, timer.id), _plain(value), timer.token)

    def _give_up(self, _target: Any, _address: Any, _sender: Any, _value: Any, error: BaseException, _attempts: int) -> None:
        """In place of parking a message: keep what was raised."""
        self._error = error

    # ---- state and time -------------------------------------------------------------------------------------------------
    @property
    def state(self) -> SimpleNamespace:
        """The state now: values as they are, maps as dicts, buffers as lists."""
        return state_of(self._core, self._store, *self.address)

    @property
    def now(self) -> dt.datetime:
        """The virtual time."""
        return to_datetime(self._now_ms)

    def advance(self, duration: dt.timedelta | float) -> list[Sent]:
        """Let time pass; the delayed messages that would be sent meanwhile, which are not delivered either.

        Args:
            duration: a timedelta, or seconds.
        """
        self._now_ms += duration_ms(duration)
        self._advance()
        sent, self._due = self._due, []
        return sent

    def _advance(self) -> None:
        """Tell the core the time. Messages that are due now are kept apart from those of an invocation."""
        result, self._result = self._result, Result()
        while self._core.advance((self._now_ms + QUARTER_MS) / 1000):
            pass
        self._due += self._result.sent
        self._result = result

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of the function by name: numbers, and for a histogram ``[sum, counts]``."""
        found = self._core.dispatcher.metrics.snapshot()
        return {name: value for typename, name, _, value in found if typename == self.address.typename}

    # ---- the end --------------------------------------------------------------------------------------------------------
    def close(self) -> None:
        """End what an ``async`` function has left. Safe to call twice."""
        self._calls.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def route(app: App, ingress: str, record: Any) -> list[Message]:
    """What the routers of an ingress make of a record.

    Raises:
        ValueError: the application has no router for such an ingress.
        UnknownTargetError, PayloadTypeError: a message goes to no function, or to one that does not accept it.
        Exception: what a router raises; in production the record would become a dead letter.
    """
    routers = app.routers(ingress)
    if not routers:
        known = names(app.routed_ingresses)
        msg = (
            f"ingress {ingress!r}: expected a router in the application (@app.router({ingress!r})); routers exist for: {known}"
        )
        raise ValueError(msg)
    core, _ = _lonely_core(app, 0, None)
    core.dispatcher.ingest_messages(chain.from_iterable(router(record) for router in routers))
    messages: list[Message] = []
    for target, id, _, value in core.dispatcher.effects:
        if type(value) is not Encoded:
            target.payloads.by_class[type(value)].validate(value)
        messages.append(Message(target.typename, id, _plain(value)))
    return messages


def _sent(target: FunctionType, id: str, value: Any) -> Sent:
    return Sent(Address(target.typename, id), _plain(value))


def _plain(value: Any) -> Any:
    return value.type.decode(value.data) if type(value) is Encoded else value


def _lonely_core(app: App, seed: int, encode: Encoder | None) -> tuple[ShardCore, MemoryStore]:
    """A core of one shard, and its store."""
    store = MemoryStore(job=JOB, shard=0, shards=1, keep_objects=True)
    core = ShardCore(
        ShardIdentity(JOB, 0, 1),
        StartPoint(1, 0, b"", EMPTY_QUEUES),
        compile_program(app, {}, encode),
        Limits(retries=0, validate_sends=True),
        store,
        chance=random.Random(seed),  # noqa: S311 - a seed is the point
    )
    if app.egresses is None:
        open_egresses(core, encode)
    return core, store
