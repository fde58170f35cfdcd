"""What is stored of a timer, and under which key the token is that cancels it."""

from __future__ import annotations

from typing import Any

from shardfun.core.timer_index import due_of
from shardfun.errors import CorruptionError, InvocationError
from shardfun.model.address import Address
from shardfun.model.cbor import load_cbor
from shardfun.model.keyspace import slot_of

TOKEN_KIND = b"c"
TOKEN_BYTES_MAX = 4096


class StoredTimer:
    """A timer as its cell holds it.

    Args:
        suffix: of the cell's key.
        raw: its value: ``[token, target type, target id, sender type, sender id, payload type, payload]``.

    Raises:
        CorruptionError: it is none.
    """

    __slots__ = ("id", "payload", "payload_type", "sender", "suffix", "token", "typename")

    def __init__(self, suffix: bytes, raw: bytes) -> None:
        self.suffix = suffix
        try:
            self.token, self.typename, self.id, sender_type, sender_id, self.payload_type, self.payload = load_cbor(raw)
            self.sender = Address(sender_type, sender_id)
        except (ValueError, TypeError) as error:
            msg = f"timer {suffix.hex()}: expected seven values, got {raw[:100]!r}"
            raise CorruptionError(msg) from error

    @property
    def plain_payload(self) -> Any:
        """The payload as CBOR carries it: one of a mutable type is stored encoded for itself.

        Raises:
            CorruptionError: it is damaged.
        """
        if type(self.payload) is not bytes or self.payload_type == "bytes":
            return self.payload
        try:
            return load_cbor(self.payload)
        except ValueError as error:
            msg = f"the payload of a timer is damaged: {error}"
            raise CorruptionError(msg) from error

    @property
    def due_ms(self) -> int:
        """When it is due: unix milliseconds."""
        return due_of(self.suffix)


def token_prefix(id: str) -> bytes:
    """The prefix of the token cells of an id. With its length, so that no id is the beginning of another."""
    raw = id.encode()
    return slot_of(id).to_bytes(2, "big") + TOKEN_KIND + len(raw).to_bytes(2, "big") + raw


def check_token(token: Any) -> None:
    """Raise InvocationError if it is no text of 1 to ``TOKEN_BYTES_MAX`` bytes."""
    try:
        if type(token) is str and 0 < len(token.encode()) <= TOKEN_BYTES_MAX:
            return
    except UnicodeEncodeError:
        pass
    msg = f"token: expected a text of 1 to {TOKEN_BYTES_MAX} bytes, got {token!r:.100}"
    raise InvocationError(msg)
