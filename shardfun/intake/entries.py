"""What stands in an intake log, as values, and what comes back for a request."""

from __future__ import annotations

import hashlib
from typing import Any, Final, Literal, NamedTuple

import cbor2
import msgspec

from shardfun.errors import PayloadTypeError, ProtocolError
from shardfun.model.cbor import load_cbor
from shardfun.model.keyspace import slot_of

LOCAL: Final = "local"
HTTP: Final = "http"
OWNERS: Final = (LOCAL, HTTP)

INTERNAL: Final = "~"
"""Names of ingresses and egresses that begin so are the runtime's own; no configured one can."""


class MessageEntry(NamedTuple):
    """A message to a function.

    Args:
        target: typename; ``id`` with it is the address.
        type: name of the payload's type; ``payload``: its CBOR, both as ``Targets.encode`` gives them.
    """

    target: str
    id: str
    type: str
    payload: bytes


class RecordEntry(NamedTuple):
    """A record for the routers of an ingress of kind ``http``: a plain value as JSON has them."""

    ingress: str
    record: Any


class RequestEntry(NamedTuple):
    """A message whose reply is wanted.

    Args:
        key: what the request is known by; the same key asks for the same reply. An id: 1 to 4096 bytes.
        anonymous: nobody will ask again with this key; what is known of it is forgotten when there is a reply.
        digest: of what is asked; the same key with another digest is a conflict.
        target, id, type, payload: as of a ``MessageEntry``.
        owner: whose process waits for the reply.
    """

    key: str
    anonymous: bool
    digest: bytes
    target: str
    id: str
    type: str
    payload: bytes
    owner: str


Entry = MessageEntry | RecordEntry | RequestEntry


class Reply(msgspec.Struct, frozen=True):
    """What came of a request.

    Args:
        status: ``conflict``: the key belongs to another request, ``type`` and ``payload`` are empty.
        type: name of the reply's type; ``payload``: its CBOR.
    """

    key: str
    status: Literal["reply", "conflict"]
    type: str
    payload: bytes


def request_digest(target: str, id: str, type: str, payload: bytes) -> bytes:
    """The ``digest`` of a ``RequestEntry``: the same for the same message to the same address, whoever asks."""
    content = cbor2.dumps([target, id, type, payload])
    return hashlib.sha256(content).digest()


def ingress_name(owner: str) -> str:
    """The name of the internal ingress that reads an owner's log."""
    return f"{INTERNAL}{owner}"


def is_internal(name: str) -> bool:
    """Whether an ingress or egress is the runtime's own, which users need not see."""
    return name.startswith(INTERNAL)


def slot_of_entry(entry: Entry) -> int:
    """The slot whose shard takes the entry in. Records of one ingress go to one shard, which keeps their order."""
    match entry:
        case MessageEntry():
            return slot_of(entry.id)
        case RecordEntry():
            return slot_of(entry.ingress)
        case RequestEntry():
            return slot_of(entry.key)


_KINDS: Final[dict[int, type[Any]]] = {0: MessageEntry, 1: RecordEntry, 2: RequestEntry}
_NUMBERS: Final = {kind: number for number, kind in _KINDS.items()}


def encode_entry(entry: Entry) -> bytes:
    """An entry as CBOR.

    Raises:
        PayloadTypeError: a record holds something that CBOR cannot carry, or this is no entry.
    """
    try:
        raw = cbor2.dumps([_NUMBERS[type(entry)], *entry])
        if isinstance(entry, RecordEntry):
            load_cbor(raw)  # what is nested too deeply can be written, and not read
    except (cbor2.CBOREncodeError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise PayloadTypeError(f"a {type(entry).__name__} cannot be encoded: {error}") from error
    return raw


def decode_entry(raw: bytes) -> Entry:
    """The entry back.

    Raises:
        ProtocolError: it is none.
    """
    try:
        kind, *fields = load_cbor(raw)
        entry: Entry = msgspec.convert(fields, _KINDS[kind])
    except (ValueError, TypeError, LookupError) as error:
        msg = f"intake log: expected an entry of this version of shardfun: {error}"
        raise ProtocolError(msg) from error
    return entry
