"""Continuation tokens: where the next page begins, as text that nobody has to understand.

The bytes of a place (the key of a map entry, the number of an element, a slot and an id) behind a letter that says what they are,
as base64 for URLs. A place is what comes after everything on the pages before, so a page needs no memory of the others.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from shardfun.errors import ConfigurationError
from shardfun.model.address import ID_BYTES_MAX
from shardfun.model.keyspace import SLOTS

IDS: Final = b"i"
PLACE_BYTES_MAX: Final = 3 * ID_BYTES_MAX
_SLOT_BYTES: Final = 2


def token_of(kind: bytes, place: bytes) -> str:
    """The token of a place.

    Args:
        kind: one byte: of a part, that of its stored keys; ``IDS``.
    """
    return base64.urlsafe_b64encode(kind + place).decode().rstrip("=")


def place_of(token: str | None, kind: bytes) -> bytes:
    """The inverse of ``token_of``; ``None`` is the beginning.

    Raises:
        ConfigurationError: it is no token, or one of something else.
    """
    if token is None:
        return b""
    try:
        raw = base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError):
        raw = b""
    if raw[:1] != kind or len(raw) > PLACE_BYTES_MAX:
        msg = f"continuation {token!r:.100}: expected 'next' of an answer to the same question"
        raise ConfigurationError(msg)
    return raw[1:]


def ids_token(slot: int, after: bytes) -> str:
    """Where ids go on: behind the id ``after`` (as UTF-8) of a slot; ``b""``: at the slot's first one."""
    return token_of(IDS, slot.to_bytes(_SLOT_BYTES, "big") + after)


def ids_place(token: str | None) -> tuple[int, bytes]:
    """Slot and id of a token for ids.

    Raises:
        ConfigurationError: it is none.
    """
    raw = place_of(token, IDS)
    slot = int.from_bytes(raw[:_SLOT_BYTES], "big")
    if token is not None and (len(raw) < _SLOT_BYTES or slot >= SLOTS):
        msg = f"continuation {token!r:.100}: expected 'next' of an answer to the same question"
        raise ConfigurationError(msg)
    return slot, raw[_SLOT_BYTES:]
