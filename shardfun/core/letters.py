"""What becomes of dead letters that somebody asks for: sent again, or deleted. Each is one step, so a cut has all of it or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cbor2

from shardfun.core.dispatch import Dispatcher
from shardfun.core.function import DEAD_LETTER_KIND
from shardfun.core.function_type import FunctionType
from shardfun.errors import InvocationError, PayloadTypeError
from shardfun.model.address import Address
from shardfun.model.letters import INGRESS_RECORD
from shardfun.model.payload import END, END_TYPE, PayloadType

DONE = ""
MISSING = "missing"
KEY_PREFIX_BYTES = 3  # slot and kind


def replay(dispatcher: Dispatcher, keys: Sequence[bytes]) -> list[str]:
    """Send the messages of dead letters again, as from their senders, and delete the letters.

    Args:
        keys: as stored.

    Returns:
        For each ``DONE``, ``MISSING``, or why it cannot be sent; then it stays.
    """
    return _each(dispatcher, keys, lambda letter: _send(dispatcher, letter))


def drop(dispatcher: Dispatcher, keys: Sequence[bytes]) -> list[str]:
    """Delete dead letters; as ``replay``."""
    return _each(dispatcher, keys, lambda _: None)


def _each(dispatcher: Dispatcher, keys: Sequence[bytes], act: Callable[[dict[str, Any]], None]) -> list[str]:
    outcomes = []
    for key in keys:
        prefix, name = key[:KEY_PREFIX_BYTES], key[KEY_PREFIX_BYTES:]
        raw = dispatcher.table.cells.get(prefix, name) if prefix[2:] == DEAD_LETTER_KIND else None
        if raw is None:
            outcomes.append(MISSING)
            continue
        try:
            act(cbor2.loads(raw))
        except Exception as error:  # noqa: BLE001 - conversions and upgrades may be user code
            outcomes.append(
                f"{error!s:.500}" if isinstance(error, InvocationError) else f"{type(error).__name__}: {error!s:.500}"
            )
            continue
        dispatcher.table.cells.put(prefix, name, None)
        dispatcher.letters.count -= 1
        outcomes.append(DONE)
    dispatcher.route()
    return outcomes


def _send(dispatcher: Dispatcher, letter: dict[str, Any]) -> None:
    """Record the effect.

    Raises:
        InvocationError: the message has no place in the application as it is now.
    """
    if letter["payload_type"] == INGRESS_RECORD:
        raise InvocationError("it is an ingress record that never became a message; correct it at its source, then drop this")
    if letter.get("lossy"):
        raise InvocationError("its payload has no encoding: what was kept is a description")
    address = Address(*letter["target"])
    target = dispatcher.resolve(address.typename)
    value = _value(target, letter["payload_type"], letter["payload"])
    dispatcher.admit(address.id)
    sender = letter["sender"]
    dispatcher.effects.append((target, address.id, None if sender is None else Address(*sender), value))


def _value(target: FunctionType, type_name: str, payload: Any) -> Any:
    """The payload again. It was kept as the value's encoding, or as it stood in a column, if it could not be decoded then."""
    typename = target.typename
    found = target.payloads.by_name.get(type_name)
    if found is None:
        raise InvocationError(f"{typename} does not take {type_name} (any more)")
    if found is END_TYPE:
        if target.function.spec.on_end is None:
            raise InvocationError(f"{typename} has no on_end (any more)")
        return END
    if isinstance(found, PayloadType) and found.immutable:
        try:
            return found.from_plain(payload)
        except PayloadTypeError:
            return found.decode_item(payload)
    return found.decode_item(payload)
