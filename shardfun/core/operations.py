"""Operations: calls that a function starts and whose result comes back to it as a message.

That an operation was started is a cell until its result is in the mailbox; both change in one step. So after a recovery each cell
that is there stands for an operation whose result is lost, whether it had ended or not: its address gets ``UNKNOWN``, once, before
any other message. The metadata is stored as the payload of that very message.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cbor2

from shardfun.core.dead_letters import describe_error
from shardfun.core.queue import Row
from shardfun.errors import InvocationError, PayloadTypeError, UnknownTargetError
from shardfun.model.address import Address
from shardfun.model.columns import UndecodableMessage
from shardfun.model.operations import OperationResult, OperationStatus
from shardfun.model.payload import Encoded, Payloads, PayloadType

if TYPE_CHECKING:
    from shardfun.core.dispatch import Dispatcher
    from shardfun.core.function_type import FunctionType

OPERATIONS = b"\x80o"
"""The prefix of their cells; the suffix is the number, 8 bytes. Per shard, not by slot: a restore reads them all."""


@dataclass(frozen=True, slots=True)
class OperationRequest:
    """What ``start_operation`` records.

    Args:
        lost: the message that the address gets if the result is lost, encoded.
        caller: of the starting invocation; it is the sender of the result.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    asyncio: bool
    lost: Encoded
    caller: Address | None


def operation_type(payloads: Payloads) -> PayloadType:
    """The declared ``OperationResult[M, R]`` of a function.

    Raises:
        PayloadTypeError: it declares none.
    """
    found = payloads.by_class.get(OperationResult)
    if found is None:
        msg = f"{payloads.where} starts an operation: expected 'OperationResult[...]' among the types it accepts"
        raise PayloadTypeError(msg)
    return found


def encode_lost(payloads: Payloads, metadata: Any) -> Encoded:
    """The message for a lost result.

    Raises:
        PayloadTypeError: the metadata is not of the declared type.
    """
    found = operation_type(payloads)
    lost: OperationResult[Any, Any] = OperationResult(metadata, OperationStatus.UNKNOWN)
    found.validate(lost)
    return Encoded(found, found.encode(lost))


class Operations:
    """The operations of one shard in one incarnation. ``rows``: where routing puts requests, whoever owns the id.

    ``created`` counts over the surviving history; ``started`` are under way or wait for room, by typename.
    """

    def __init__(self, dispatcher: Dispatcher, shards: int) -> None:
        self.fresh: list[Row] = []
        self.rows = [self.fresh] * shards
        self.created = 0
        self.pending = 0
        self.started: Counter[str] = Counter()
        self._dispatcher = dispatcher
        self._ready: deque[tuple[int, Address, OperationRequest]] = deque()
        self._running: dict[int, tuple[int, Address, OperationRequest]] = {}

    def retire(self) -> None:
        """Break the reference cycles (see ``ShardCore.retire``)."""
        del self._dispatcher
        self.fresh.clear()
        self._ready.clear()
        self._running.clear()

    def collect(self) -> None:
        """Take in what was recorded since the last look."""
        cells = self._dispatcher.table.cells
        for _, _, address, request in self.fresh:
            self.created += 1
            self.pending += 1
            self.started[address.typename] += 1
            caller = None if request.caller is None else list(request.caller)
            stored = [list(address), caller, request.lost.type.name, request.lost.data]
            cells.put(OPERATIONS, self.created.to_bytes(8, "big"), cbor2.dumps(stored))
            self._ready.append((self.created, address, request))
        self.fresh.clear()
        self.begin()

    def begin(self) -> None:
        """Begin what waits for room."""
        calls = self._dispatcher.calls
        while self._ready and not calls.full:
            entry = self._ready.popleft()
            _, address, request = entry
            number = calls.begin_operation(
                f"an operation of {address}", request.function, request.arguments, asyncio=request.asyncio
            )
            self._running[number] = entry

    def finish(self, number: int, value: Any, error: BaseException | None) -> None:
        """The call ``number`` has ended: its result goes into the mailbox and its cell goes, in one step."""
        created, address, request = self._running.pop(number)
        self.started[address.typename] -= 1
        target = self._dispatcher.types[address.typename]
        lost = request.lost.type.decode(request.lost.data)  # afresh: the function may have kept a hand on its metadata
        message: Any = None
        if error is None:
            try:
                message = _prepared(request.lost.type, OperationResult(lost.metadata, OperationStatus.SUCCESS, value))
            except Exception as misfit:  # noqa: BLE001 - conversions may be user code, and the value anything
                failure = f"the operation has succeeded, but its result does not fit: {describe_error(misfit, 0)[0]}"
        else:
            failure = describe_error(error, 0)[0]
        if message is None:
            result: OperationResult[Any, Any] = OperationResult(lost.metadata, OperationStatus.FAILURE, error=failure)
            message = _prepared(request.lost.type, result)
        self._forget(created)
        target.mailbox.rows.append((target, address.id, request.caller, message))
        self.begin()

    def _forget(self, created: int) -> None:
        self._dispatcher.table.cells.put(OPERATIONS, created.to_bytes(8, "big"), None)
        self.pending -= 1

    def restore(self) -> None:
        """After a recovery: what was pending has an unknown end. Called before any message is in a mailbox."""
        dispatcher = self._dispatcher
        for suffix, raw in list(dispatcher.table.cells.scan(OPERATIONS)):
            address, caller, type_name, data = cbor2.loads(raw)
            sender = None if caller is None else Address(*caller)
            self.pending += 1
            self._forget(int.from_bytes(suffix, "big"))
            try:
                target = _resolve(dispatcher, address[0])
                value = _decode_lost(target, type_name, data)
            except InvocationError as error:
                reason = f"the result of an operation of {address[0]} cannot be delivered: {error}"
                message = UndecodableMessage(address[1], sender, type_name, cbor2.loads(data), reason)
                dispatcher.letters.park_undecodable(address[0], message)
            else:
                target.mailbox.rows.append((target, address[1], sender, value))


def _prepared(described: PayloadType, result: OperationResult[Any, Any]) -> Any:
    """A result as a message that can be stored, whatever the operation has returned.

    Raises:
        Exception: its value is not of the declared type, or has no encoding.
    """
    described.validate(result)
    data = described.encode(result)
    return result if described.immutable else Encoded(described, data)


def _resolve(dispatcher: Dispatcher, typename: str) -> FunctionType:
    """The function type, also one of a namespace that nobody has sent to yet in this incarnation."""
    try:
        return dispatcher.resolve(typename)
    except UnknownTargetError:
        msg = "the function does not exist (any more)"
        raise PayloadTypeError(msg) from None


def _decode_lost(target: FunctionType, type_name: str, data: bytes) -> Any:
    """The message for a lost result, as the function declares it now."""
    found = target.payloads.by_name.get(type_name)
    if found is None:
        msg = f"payload type {type_name!r} is not declared (any more)"
        raise PayloadTypeError(msg)
    return found.decode_item(data)
