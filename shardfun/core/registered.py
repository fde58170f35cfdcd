"""``RegisteredValue``: a single value that was registered by name, and the form in which a registration is stored.

A registration is a CBOR map of kind and type; of a value that is not at its default, the value is in it, too.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import cbor2

from shardfun.core.cell_keys import deadline_of, living, stamped, value_in
from shardfun.core.function import FieldSpec
from shardfun.core.maps import CLOSED, Closed
from shardfun.core.options import Expiry

T = TypeVar("T")
_MISSING: Any = object()

KIND, TYPE, VALUE = "kind", "type", "value"


class RegisteredValue(Generic[T]):
    """One value that was registered by name (``Registry.value``)."""

    __slots__ = (
        "_before",
        "_deadline",
        "_expiry",
        "_item",
        "_now_ms",
        "_read",
        "_registration",
        "_stored",
        "_value",
        "_written",
    )

    def __init__(self, item: FieldSpec, registration: bytes, raw: bytes | None, expiry: Expiry | None, now_ms: int) -> None:
        self._item = item
        self._registration = registration
        self._stored = raw
        self._expiry = expiry
        self._now_ms = now_ms
        self._deadline = None if raw is None else deadline_of(raw)
        living_raw = living(raw, now_ms)
        plain = {} if living_raw is None else cbor2.loads(living_raw)
        self._value: Any = item.from_plain(plain[VALUE]) if VALUE in plain else _MISSING
        self._before = None if self._value is _MISSING else item.encode(self._value)
        self._read = self._written = False

    def get(self) -> T:
        """The value; the default if it was never set. A mutable value may be changed in place, as those of declared fields."""
        self._require_open()
        self._read = True
        if self._value is _MISSING:
            self._value = self._item.from_plain(cbor2.loads(self._item.encode(self._item.default)))
        return self._value  # type: ignore[no-any-return]

    def set(self, value: T) -> None:
        """Set the value.

        Raises:
            PayloadTypeError: it is not of the registered type.
        """
        self._require_open()
        self._item.encode_checked(value)
        self._value = value
        self._written = True

    def delete(self) -> None:
        """Set the value back to its default."""
        self._require_open()
        self._value = _MISSING
        self._written = True

    def _require_open(self) -> None:
        if self._item is CLOSED:
            Closed().fail()

    def cell(self) -> bytes | None:
        """What has to be stored; ``None``: what is stored already.

        Raises:
            PayloadTypeError: the value is not of its type any more, or cannot be encoded.
        """
        item, expiry = self._item, self._expiry
        absent = item.encode(item.default)
        encoded = absent if self._value is _MISSING else item.encode(self._value)
        before = absent if self._before is None else self._before
        if encoded not in {before, absent}:
            item.encode_checked(self._value)
        deadline = None
        if expiry is not None and encoded != absent:
            renew = self._written or encoded != before or self._deadline is None
            renew |= self._read and expiry.is_renewed_by_read(self._deadline, self._now_ms)
            deadline = self._now_ms + expiry.ttl_ms if renew else self._deadline
        cell = self._registration
        if encoded != absent:
            cell = registration_with(cell, encoded)
        if deadline is not None:
            cell = stamped(cell, deadline)
        return None if cell == self._stored else cell

    def close(self) -> None:
        """The invocation is over: any use raises."""
        self._item = CLOSED


def registration_with(registration: bytes, encoded: bytes) -> bytes:
    """A stored registration of two entries, with the encoded value as the third."""
    return bytes((registration[0] + 1,)) + registration[1:] + cbor2.dumps(VALUE) + encoded


def registration_without(raw: bytes) -> bytes:
    """A stored registration without its value and deadline: the value is at its default."""
    plain = cbor2.loads(value_in(raw))
    return cbor2.dumps({KIND: plain[KIND], TYPE: plain[TYPE]})
