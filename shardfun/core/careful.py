"""Careful mode: how a shard finds out which of its messages kills its process.

Which message a process was in when it died is not known afterwards, and writing it down each time would cost the hot path. So it is
written down only after a death that nothing explains, until the shard is out of danger: the types run with ``run_careful``, which
leaves a *breadcrumb* for each message while it is processed, and parks a message that has been convicted (see ``core.poison``).

It also encodes each record after its invocation. A value that has no encoding inside a frozen struct is found by nobody else before
the checkpoint, where it is too late to tell whose it is.

Careful mode ends with the second complete checkpoint of the incarnation. The first one is cut at the very start: it shows nothing.
What is known to be poison is waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol

import cbor2

from shardfun.core.function import CompiledFunction
from shardfun.core.runner import invoke, senders_of
from shardfun.errors import FunctionRestartError
from shardfun.model.address import Address
from shardfun.model.columns import Batch
from shardfun.model.control import Poison
from shardfun.model.crumbs import KEY_BYTES, Crumb
from shardfun.model.payload import END, END_TYPE, Encoded

if TYPE_CHECKING:
    from shardfun.core.dispatch import Dispatcher
    from shardfun.core.function_type import FunctionType

CAREFUL_CHECKPOINTS = 2
CAREFUL_CHECKPOINTS_MAX = 100  # without meeting what has to be parked: it may never come again
SEEN_MAX = 500_000  # different messages since the start of careful mode; more are left without a key
TEXT_CHARACTERS = 500  # of a payload that has no encoding


class Crumbs(Protocol):
    """Where breadcrumbs are dropped: outlives the process."""

    def put(self, crumb: Crumb) -> int:
        """A message is begun; the slot to clear when it is done."""

    def clear(self, slot: int) -> None:
        """It is done."""


class Breadcrumb:
    """Names the messages of one shard in one incarnation, while they are processed.

    All invocations use the same one: of synchronous functions by ``run_careful``, of others at their start and end::

        mark = breadcrumb.begin(target, id, sender, sender_type, value)
        if mark is None:
            breadcrumb.park(...)  # instead of running it
        ...
        breadcrumb.end(mark)

    Args:
        poison: messages to park.
        suspects: keys of messages of which one may be poison; calls of these run with nothing beside them (``core.calls``).
    """

    def __init__(self, crumbs: Crumbs, poison: Sequence[Poison] = (), suspects: Sequence[bytes] = ()) -> None:
        self._crumbs: Crumbs | None = crumbs
        self._poison = {found.key: found for found in poison}
        self._seen: dict[bytes, int] = {}
        self._all_seen = True
        self._convicted: Poison | None = None
        self.suspects = frozenset(suspects)
        self.parked: list[bytes] = []
        """The keys of the poison that was parked in this incarnation."""

    def begin(self, target: FunctionType, id: str, sender: Any, sender_type: str | None, value: Any) -> int | None:
        """Processing a message begins, all its attempts; what to give to ``end``. ``None``: do not run but ``park`` it."""
        content = _content_key(target, id, sender, sender_type, value)
        occurrence = self._seen.get(content, 0) + 1
        if occurrence == 1 and len(self._seen) >= SEEN_MAX:
            self._all_seen = False
        if self._all_seen:
            self._seen[content] = occurrence
        key = content if occurrence == 1 else _digest(content + occurrence.to_bytes(8, "big"))
        self._convicted = self._poison.pop(key, None) if self._all_seen else None
        if self._convicted is not None:
            return None
        if self._crumbs is None:
            return 0
        return self._crumbs.put(Crumb(key if self._all_seen else bytes(KEY_BYTES), occurrence, f"{target.typename}:{id}"))

    def is_suspect(self, target: FunctionType, id: str, sender: Any, value: Any) -> bool:
        """Whether a message is suspected. Equal ones are, too: they cannot be told apart before they begin."""
        return _content_key(target, id, sender, None, value) in self.suspects

    @property
    def waits_for_poison(self) -> bool:
        """Whether there is something to park that has not come yet. Without careful mode it would kill again."""
        return bool(self._poison)

    def end(self, mark: int) -> None:
        """The message is done: its last attempt has returned or raised, and what follows from it is recorded."""
        if self._crumbs is not None:
            self._crumbs.clear(mark)

    def park(
        self, dispatcher: Dispatcher, target: FunctionType, id: str, sender: Any, sender_type: str | None, value: Any
    ) -> None:
        """Park the message that ``begin`` has just refused."""
        convicted, self._convicted = self._convicted, None
        assert convicted is not None
        self.parked.append(convicted.key)
        address = Address(target.typename, id)
        dispatcher.letters.park(
            address, _sender(sender, sender_type), target.payloads, value, convicted.reason, "", convicted.deaths
        )

    def retire(self) -> None:
        """Another incarnation has taken over, or careful mode is over: what ends late must not touch the table any more."""
        self._crumbs = None


def run_careful(target: FunctionType, batch: Batch, dispatcher: Dispatcher) -> None:
    """As ``run_plain``, in careful mode. Whatever leaves here by an exception ends the process, and the breadcrumb stays."""
    breadcrumb = dispatcher.breadcrumb
    assert breadcrumb is not None
    sender_type = batch.sender_type
    dispatcher.progress = ids = iter(batch.ids)
    for id, sender, value in zip(ids, senders_of(batch), batch.values, strict=False):
        record = target.records.young.get(id)
        if record is None:
            record = dispatcher.load(target, id, sender, sender_type, value)
        if record is None:
            continue  # before it is counted: it may come again
        mark = breadcrumb.begin(target, id, sender, sender_type, value)
        if mark is None:
            target.passed_over += 1
            target.refused += 1
            breadcrumb.park(dispatcher, target, id, sender, sender_type, value)
            continue
        try:
            _invoke(target, record, sender, sender_type, value, dispatcher)
        except FunctionRestartError:
            breadcrumb.end(mark)  # it ends the incarnation and not the process, and is no reason to suspect anybody
            raise
        breadcrumb.end(mark)


def _invoke(
    target: FunctionType, record: Any, sender: Any, sender_type: str | None, value: Any, dispatcher: Dispatcher
) -> None:
    function = target.function
    before = function.values_of(record)
    mark = len(dispatcher.effects)
    try:
        invoke(target, record, sender, sender_type, value, dispatcher)
    except BaseException as error:  # noqa: BLE001 - as in the other runners
        dispatcher.failed(target, record, sender, sender_type, value, error)
    reason = why_not_encodable(function, record)
    if reason:
        target.totals.failures += 1
        function.restore(record, before)
        del dispatcher.effects[mark:]
        address = Address(*record._address)  # noqa: SLF001
        dispatcher.letters.park(address, _sender(sender, sender_type), target.payloads, value, reason, "", 1)


def why_not_encodable(function: CompiledFunction, record: Any) -> str:
    """Why the record could not be stored; empty if it can. A field's class is right already, but what is inside may not be."""
    try:
        function.encode_values(function.values_of(record))
    except Exception as error:  # noqa: BLE001 - conversions may be user code
        named = f"{type(error).__name__}: {error!s:.500}"
        for field in function.spec.fields:
            try:
                field.encode(getattr(record, field.name))
            except Exception:  # noqa: BLE001 - as above
                return f"state field {field.name!r}: the value cannot be stored: {named}"
        return f"the state cannot be stored: {named}"
    return ""


def _digest(raw: bytes) -> bytes:
    return blake2b(raw, digest_size=KEY_BYTES).digest()


def _content_key(target: FunctionType, id: str, sender: Any, sender_type: str | None, value: Any) -> bytes:
    """The same for equal messages of one sender to one address, in whatever process: the encoding is what is stored of them."""
    if type(value) is Encoded:
        name, payload = value.type.name, value.data
    elif value is END:
        name, payload = END_TYPE.name, b""
    else:
        described = target.payloads.by_class[type(value)]
        name = described.name
        try:
            payload = described.encode(value)
        except Exception as error:  # noqa: BLE001 - it can still run; conversions may be user code
            payload = f"{type(error).__name__}: {error!s:.{TEXT_CHARACTERS}}".encode(errors="replace")
    address = _sender(sender, sender_type)
    return _digest(cbor2.dumps([target.typename, id, None if address is None else list(address), name, payload]))


def _sender(sender: Any, sender_type: str | None) -> Address | None:
    return Address(sender_type, sender) if sender_type is not None and sender is not None else sender
