"""Columns: many messages for one function type without an object per message, and their block encoding.

A *batch* is what queues hold and runners take: ids, senders and values side by side. A *block* is a batch on the wire or in a
checkpoint, a CBOR array that any decoder can read::

    [target type, ids, sender types, sender ids, columns, column index]

    ids           text joined by U+0000, or a list if an id holds U+0000
    sender types  null (no message has a sender), one name, or [names (null: none), index bytes]
    sender ids    null or as ``ids`` ("" where there is no sender)
    columns       [[payload type name, column], ...], one per payload type; the column of a flat record is a map from
                  field name to column, all others are arrays, joined text or (of ``None``) a number
    column index  null for one column, else bytes: for each message, which column its value comes from

One value column per payload type with an index, decoded back into the order sent: grouping messages by payload type would
break the order between one sender and one target, and a run per change of sender type costs fifteen times as much.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import cbor2

from shardfun.errors import PayloadTypeError, ProtocolError
from shardfun.model.address import Address
from shardfun.model.cbor import shown
from shardfun.model.payload import Encoded, Payloads
from shardfun.model.scalars import decode_scalars, join_texts, plain_values
from shardfun.model.upgrade import newer, split_version

COLUMN_TYPES_MAX = 256  # an index of more types is a list instead of bytes


class Batch(NamedTuple):
    """Messages for one function type, in order.

    Args:
        ids: target ids.
        senders: one per message: an ``Address``, ``None``, or (if ``sender_type`` is given) just the sender's id; ``None``
            instead of a list when no message has a sender.
        sender_type: the type of senders that are given by id.
        values: payload objects, or ``Encoded``.
    """

    ids: Sequence[str]
    senders: Sequence[Any] | None
    sender_type: str | None
    values: Sequence[Any]


class UndecodableMessage(NamedTuple):
    """A message of a block whose payload cannot be decoded: parked as a dead letter, the others run."""

    id: str
    sender: Address | None
    type_name: str
    plain: Any
    reason: str


def batch_of_rows(rows: Sequence[tuple[Any, str, Address | None, Any]]) -> Batch:
    """Rows ``(target, id, sender, value)``, as effects are recorded, to columns."""
    _, ids, senders, values = zip(*rows, strict=True)
    return Batch(ids, senders, None, values)


def encode_block(typename: str, payloads: Payloads, batch: Batch) -> list[Any]:
    """A batch for ``typename`` as a block."""
    sender_types, sender_ids = _encode_senders(batch)
    columns, index = _encode_values(payloads, batch.values)
    return [typename, join_texts(batch.ids), sender_types, sender_ids, columns, index]


def _encode_senders(batch: Batch) -> tuple[Any, Any]:
    senders = batch.senders
    if senders is None or senders.count(None) == len(senders):
        return None, None
    if batch.sender_type is not None:
        return batch.sender_type, join_texts(senders)
    if None not in senders:
        types, ids = zip(*senders, strict=True)
        if types.count(types[0]) == len(types):
            return types[0], join_texts(ids)
    names: dict[str | None, int] = {}
    index: list[int] = []
    for sender in senders:
        name = None if sender is None else sender[0]
        index.append(names.setdefault(name, len(names)))
    return [list(names), bytes(index) if len(names) <= COLUMN_TYPES_MAX else index], join_texts(
        ["" if sender is None else sender[1] for sender in senders]
    )


def _encode_values(payloads: Payloads, values: Sequence[Any]) -> tuple[list[Any], Any]:
    classes = set(map(type, values))
    if len(classes) == 1 and Encoded not in classes:
        found = payloads.by_class[classes.pop()]
        return [[found.name, found.encode_column(values)]], None
    types = [value.type if type(value) is Encoded else payloads.by_class[type(value)] for value in values]
    order = {found: position for position, found in enumerate(dict.fromkeys(types))}
    if len(order) == 1:
        return [[types[0].name, types[0].encode_column(values)]], None
    grouped: list[list[Any]] = [[] for _ in order]
    index: list[int] = []
    for found, value in zip(types, values, strict=True):
        position = order[found]
        index.append(position)
        grouped[position].append(value)
    encoded = [[found.name, found.encode_column(group)] for found, group in zip(order, grouped, strict=True)]
    return encoded, bytes(index) if len(order) <= COLUMN_TYPES_MAX else index


ENCODE_ERRORS = (TypeError, ValueError, OverflowError, RecursionError, cbor2.CBOREncodeError, PayloadTypeError)
"""What encoding a block raises for a value that its constructor let pass: a lone surrogate, a field of a wrong type."""


def dump_blocks(typename: str, payloads: Payloads, batch: Batch) -> list[bytes]:
    """A batch as encoded blocks, mostly one. Never fails: a message that has no encoding is kept as what can be said of it.

    Such a message is undecodable when the block is read, and so becomes a dead letter.
    """
    try:
        return [cbor2.dumps(encode_block(typename, payloads, batch))]
    except ENCODE_ERRORS as error:
        if len(batch.ids) > 1:
            return [raw for single in singles(batch) for raw in dump_blocks(typename, payloads, single)]
        text = f"{batch.values[0]!r:.200}".encode(errors="backslashreplace").decode()
        sender_types, sender_ids = _encode_senders(batch)
        columns = [[f"a payload without encoding ({type(error).__name__})", [text]]]
        return [cbor2.dumps([typename, join_texts(batch.ids), sender_types, sender_ids, columns, None])]


def singles(batch: Batch) -> Iterator[Batch]:
    """The messages of a batch, each as a batch of its own."""
    for position, id in enumerate(batch.ids):
        senders = None if batch.senders is None else [batch.senders[position]]
        yield Batch([id], senders, batch.sender_type, [batch.values[position]])


def block_size(block: list[Any]) -> int:
    """The number of messages in a block."""
    ids = block[1]
    return ids.count("\0") + 1 if type(ids) is str else len(ids)


def check_block(block: Any) -> None:
    """Check the outer shape of a block that came from a socket or a file.

    Raises:
        ProtocolError: it is not a block.
    """
    if type(block) is not list or len(block) != 6 or type(block[0]) is not str or type(block[1]) not in (str, list):
        msg = f"expected a block of six items that begins with a function type, got {shown(block)}"
        raise ProtocolError(msg)


def decode_block(payloads: Payloads, block: list[Any], *, stored: bool = False) -> tuple[Batch, list[UndecodableMessage]]:
    """A block to a batch of the messages that can be decoded, and the others.

    Args:
        stored: an earlier version of the application may have made it, so every value is checked against its declared type.

    Raises:
        ProtocolError: the columns are not of equal length, or not of the form described above.
    """
    _, ids_item, sender_types, sender_ids, columns, index = block
    try:
        ids = _texts(ids_item)
        senders, sender_type = _decode_senders(sender_types, sender_ids)
        if index is None and len(columns) == 1:
            ((name, data),) = columns
            found = payloads.by_name[name]
            values = found.decode_stored(data) if stored else found.decode_column(data)
            if len(values) == len(ids) and (senders is None or len(senders) == len(ids)):
                return Batch(ids, senders, sender_type, values), []
    except Exception:  # noqa: BLE001, S110 - damage, a type that is gone, or a constructor: found out below, message by message
        pass
    return _decode_each(payloads, block, stored=stored)


def _decode_senders(sender_types: Any, sender_ids: Any) -> tuple[Sequence[Any] | None, str | None]:
    if sender_types is None:
        return None, None
    ids = _texts(sender_ids)
    if type(sender_types) is str:
        return ids, sender_types
    names, index = sender_types
    _texts([name for name in names if name is not None])
    return [None if names[i] is None else Address(names[i], id) for i, id in zip(index, ids, strict=True)], None


def _texts(item: Any) -> Sequence[str]:
    texts = decode_scalars(item)
    if type(item) is not str and any(type(text) is not str for text in texts):
        msg = f"expected texts, got {shown(item)}"
        raise TypeError(msg)
    return texts


def _decode_each(payloads: Payloads, block: list[Any], *, stored: bool) -> tuple[Batch, list[UndecodableMessage]]:
    """The slow way: mixed payload types, or a column with a value that does not fit."""
    _, ids_item, sender_types, sender_ids, columns, index = block
    try:
        ids = _texts(ids_item)
        senders, sender_type = _decode_senders(sender_types, sender_ids)
        names = [name for name, _ in columns]
        sources = [iter(_decode_column(payloads, name, data, len(ids), stored=stored)) for name, data in columns]
        picks: list[int] = [0] * len(ids) if index is None else list(index)
        decoded = [next(sources[pick]) for pick in picks]
        leftover = sum(1 for source in sources for _ in source)
    except (TypeError, ValueError, AttributeError, IndexError, KeyError, StopIteration) as error:
        msg = f"block for {block[0]!r}: columns do not fit together: {error!r}"
        raise ProtocolError(msg) from error
    if len(decoded) != len(ids) or leftover or (senders is not None and len(senders) != len(ids)):
        msg = f"block for {block[0]!r}: expected {len(ids)} values and senders, got {len(decoded) + leftover} values"
        raise ProtocolError(msg)
    bad: list[UndecodableMessage] = []
    good: list[int] = []
    for position, (ok, value) in enumerate(decoded):
        if ok:
            good.append(position)
            continue
        sender = senders[position] if senders is not None else None
        if sender_type is not None and sender is not None:
            sender = Address(sender_type, sender)
        bad.append(UndecodableMessage(ids[position], sender, names[picks[position]], value[0], value[1]))
    return (
        Batch(
            [ids[i] for i in good],
            None if senders is None else [senders[i] for i in good],
            sender_type,
            [decoded[i][1] for i in good],
        ),
        bad,
    )


def _decode_column(payloads: Payloads, name: str, data: Any, at_most: int, *, stored: bool) -> list[tuple[bool, Any]]:
    """``(True, value)`` or ``(False, (plain, reason))`` for each value of a column.

    Raises:
        KeyError, TypeError, ValueError: it is no column, or has more values than ``at_most``.
    """
    found = payloads.by_name.get(name)
    if found is not None:
        with suppress(Exception):  # damage, or a constructor: found out below
            return [(True, value) for value in (found.decode_stored(data) if stored else found.decode_column(data))]
    plains = plain_values(data)
    if len(plains) > at_most:  # a number can stand for very many
        msg = f"expected at most {at_most} values, got {len(plains)}"
        raise ValueError(msg)
    if found is None:
        reason = reason_gone(payloads, name)
        return [(False, (plain, reason)) for plain in plains]
    out: list[tuple[bool, Any]] = []
    for plain in plains:
        try:
            out.append((True, found.decode_item(plain)))
        except PayloadTypeError as error:
            out.append((False, (plain, str(error))))
    return out


def reason_gone(payloads: Payloads, name: str) -> str:
    """Why a payload type is not known."""
    base, version = split_version(name)
    known = [split_version(other) for other in payloads.by_name]
    present = max((other for other_base, other in known if other_base == base), default=0)
    return newer(base, version, present) if 0 < present < version else f"the type {base} does not exist any more"
