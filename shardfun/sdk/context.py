"""What a function sees of the world: its address, its caller, its state, and ways to record effects.

A function only *records* effects; they happen together when it returns, and not at all if it raises. One context object serves all
synchronous functions of a shard, one invocation after the other: an object per invocation costs half of the throughput. So do
not keep it: outside of an invocation it raises.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, Generic, NoReturn

from typing_extensions import TypeVar

from shardfun.core.options import milliseconds
from shardfun.errors import ContextClosedError, DefinitionError, InvocationError, PayloadTypeError
from shardfun.model.address import Address
from shardfun.sdk.state import State

if TYPE_CHECKING:
    from shardfun.core.dispatch import Dispatcher
    from shardfun.core.metrics import FunctionMetrics

S = TypeVar("S", bound=State, default=State)


class _Closed:
    """Stands for the effects list while no invocation runs."""

    __slots__ = ()

    def append(self, _effect: Any) -> NoReturn:
        msg = "the context was used outside of its invocation; use it only inside the function it was passed to"
        raise ContextClosedError(msg)


_CLOSED: Any = _Closed()


class Context(Generic[S]):
    """The first argument of every function.

    ``state``: the address's persisted state. Assign to its fields; assigning a value of another type than declared fails the
    invocation.
    """

    __slots__ = (
        "_address",
        "_dispatcher",
        "_effects",
        "_message",
        "_owners",
        "_sender",
        "_sender_type",
        "_types",
        "_validate",
        "state",
    )

    state: S

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._types = dispatcher.types
        self._owners = dispatcher.owners
        self._validate = dispatcher.limits.validate_sends
        self._address: Any = None
        self._sender: Any = None
        self._sender_type: str | None = None
        self._message: str | None = None
        self._effects: Any = _CLOSED

    def open(self) -> None:
        """Called by the runtime before a batch of invocations."""
        self._effects = self._dispatcher.effects

    def open_call(self, rows: list[Any], address: Any, sender: Any, state: S, message: str) -> None:
        """Called by the runtime before an invocation beside the loop, which has this context for itself."""
        self._message = message
        self._effects = rows
        self._address = address
        self._sender = sender
        self.state = state

    def close(self) -> None:
        """Called by the runtime after a batch of invocations."""
        self._effects = _CLOSED
        self._address = self._sender = None
        self.state = None  # type: ignore[assignment]  # any use outside of an invocation is a mistake

    @property
    def self(self) -> Address:
        """The address of this function instance."""
        if self._address is None:
            _CLOSED.append(None)
        return self._address  # type: ignore[no-any-return]

    @property
    def caller(self) -> Address | None:
        """Who sent the message; ``None`` for messages from an ingress and for ``on_end``."""
        if self._address is None:
            _CLOSED.append(None)
        sender = self._sender
        if type(sender) is str:
            assert self._sender_type is not None
            return Address(self._sender_type, sender)
        return sender  # type: ignore[no-any-return]

    def send(self, typename: str, id: str, value: Any) -> None:
        """Record a message to an address. ``reply`` answers the caller.

        Args:
            typename: ``namespace/name`` of a function of this application.
            id: 1 to 4096 bytes of text.
            value: of a type that the target function declares. Mutable values are encoded now: later changes have no effect.

        Raises:
            UnknownTargetError: there is no such function.
            PayloadTypeError: the target does not take such a value, or the id is not a text.
        """
        try:
            target = self._types[typename]
        except KeyError:
            target = self._dispatcher.resolve(typename)
        if type(value) not in target.shared:
            value = target.payloads.prepare(value)
        elif self._validate:
            target.payloads.by_class[type(value)].validate(value)
        if id not in self._owners:
            self._dispatcher.admit(id)
        self._effects.append((target, id, self._address, value))

    def delete_instance(self) -> None:
        """Forget this address's state: every value is at its default, every map, buffer and registry is empty.

        Timers and messages that are under way stay; they meet an address that is as new.
        """
        if self._address is None:
            _CLOSED.append(None)
        self.state._delete_instance()  # type: ignore[attr-defined]  # noqa: SLF001 - of the runtime's classes behind the author's

    def reply(self, value: Any) -> None:
        """Record a message to the caller.

        Raises:
            InvocationError: there is no caller.
            PayloadTypeError: the caller does not take such a value.
        """
        caller = self.caller
        if caller is None:
            msg = f"{self.self}: this message has no caller to reply to; it comes from an ingress or from the end of the run"
            raise InvocationError(msg)
        self.send(*caller, value)

    def send_after(
        self, delay: dt.timedelta | float, typename: str, id: str, value: Any, *, token: str = "", replace: bool = False
    ) -> None:
        """Record a message that is sent later, as ``ctx.send_after(timedelta(hours=6), *ctx.self, Idle(), token="idle")``.

        Args:
            delay: from ``now()``: a timedelta, or seconds; 0 or more. The message is sent then or later, never earlier.
            typename, id, value: as for ``send``. The value is encoded now.
            token: by which ``cancel`` knows it. Tokens belong to the id of this address, whatever the typename, and are free
                again when the message is sent.
            replace: cancel the pending message of the token instead of failing.

        Raises:
            TokenPendingError: a message with this token is pending.
            UnknownTargetError, PayloadTypeError: as for ``send``.
            InvocationError: delay or token are not as described.
        """
        dispatcher, sender = self._dispatcher, self.self
        try:
            due_ms = dispatcher.now_ms + milliseconds(delay, "send_after: delay")
        except DefinitionError as error:
            raise InvocationError(str(error)) from None
        target = dispatcher.resolve(typename)
        if type(value) not in target.shared:
            value = target.payloads.prepare(value)
        elif self._validate:
            target.payloads.by_class[type(value)].validate(value)
        if id not in self._owners:
            dispatcher.admit(id)
        rows = self._effects
        rows.append(dispatcher.timers.request(rows, sender, due_ms, target, id, value, token, replace=replace))

    def cancel(self, token: str) -> None:
        """Record that the pending message of a token shall not be sent. Nothing happens if there is none.

        Any function type may do this that has the same id as the sender of the message.

        Raises:
            InvocationError: the token is empty.
        """
        rows = self._effects
        rows.append(self._dispatcher.timers.cancellation(rows, self.self, token))

    def now(self) -> dt.datetime:
        """The time of the runtime's clock, in UTC. It stands still while a batch of messages runs."""
        if self._address is None:
            _CLOSED.append(None)
        return dt.datetime.fromtimestamp(self._dispatcher.now_ms / 1000, dt.UTC)

    @property
    def random(self) -> Random:
        """A source of chance. Use it instead of ``random``: a test can hand in another one."""
        if self._address is None:
            _CLOSED.append(None)
        return self._dispatcher.random

    def start_operation(
        self, function: Callable[..., Any], /, *arguments: Any, metadata: Any = None, asyncio: bool = False
    ) -> None:
        """Record that something slow shall be done beside this function; its result comes back as a message.

        The message is an ``OperationResult`` with the metadata given here, which this function must declare among the types it
        accepts. Its caller is the caller of this invocation. If a recovery comes in between, its status is ``UNKNOWN``: the
        operation may have had its effect or not.

        Args:
            function: an ``async def``, or a plain function, which then runs in a thread. It gets ``arguments`` and no context.
            metadata: what you need to know when the result is there; of the declared type.
            asyncio: the ``async def`` needs an asyncio event loop (``shardfun[asyncio]``).

        Raises:
            PayloadTypeError: this function declares no ``OperationResult``, or the metadata is not of its type.
        """
        if self._address is None:
            _CLOSED.append(None)
        from shardfun.core.operations import OperationRequest, encode_lost

        typename, id = self._address
        lost = encode_lost(self._types[typename].payloads, metadata)
        request = OperationRequest(function, arguments, asyncio, lost, self.caller)
        self._effects.append((self._dispatcher.operations, id, self._address, request))

    @property
    def metrics(self) -> FunctionMetrics:
        """Counters, gauges and histograms of this function type: ``ctx.metrics.counter("orders").increment()``.

        They are figures of a process, not state: a failed attempt has counted, and a recovery may begin them anew.
        """
        if self._address is None:
            _CLOSED.append(None)
        return self._dispatcher.metrics.of(self._address[0])

    @property
    def log(self) -> Any:
        """A structlog logger that says whose message it is: address, message, and (in a node) shard and checkpoint.

        ``message`` is the shard and the number of the invocation in it. After a recovery lines may come again.
        """
        import structlog

        if self._address is None:
            _CLOSED.append(None)
        message = self._message or self._dispatcher.name_message()
        return structlog.get_logger("shardfun.function").bind(address=str(self._address), message=message)

    def emit(self, egress: str, value: Any) -> None:
        """Record a result for an egress. It goes out, once, after the checkpoint that contains this invocation is complete.

        Args:
            egress: a name from the configuration.
            value: what the egress can encode (for files and stdout: anything that JSON can hold, structs included).

        Raises:
            UnknownTargetError: there is no such egress.
            PayloadTypeError: the value cannot be encoded.
        """
        found = self._dispatcher.egresses.get(egress)
        if found is None:
            from shardfun.core.dispatch import unknown_target

            raise unknown_target("egress", egress, self._dispatcher.egresses)
        try:
            record = found.encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            msg = f"egress {egress!r}: the value cannot be encoded: {error}"
            raise PayloadTypeError(msg) from error
        address = self._address
        self._effects.append((found, "" if address is None else address[1], address, record))
