"""CBOR that came from another process or from a file, where bytes may be anything: one exception, and a bounded price.

The library keeps declared lengths and depths in bounds. What is added here: references between parts of an item (tags 25, 28 and 29),
which our encoder never writes, are refused. With them a hundred bytes can stand for a tree of a billion parts, or for a list that holds
itself, and whatever walks over the value (a check of types, ``repr`` for a message) never comes to an end.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NoReturn

import cbor2

INTEGER_BITS_SHOWN: Final = 256
BYTES_SHOWN: Final = 40
TEXT_SHOWN: Final = 200


def _refuse(*_: Any) -> NoReturn:
    raise ValueError("a reference to another part of the item")


_NO_REFERENCES: Final[Mapping[int, Any]] = MappingProxyType({25: _refuse, 29: _refuse})


def load_cbor(raw: bytes) -> Any:
    """One CBOR item.

    Raises:
        ValueError: it is none, or has references.
    """
    try:
        # All tags above 23 begin with one of these bytes. To look for them is cheaper than to hand over the decoders.
        if b"\xd8" in raw or b"\xd9" in raw or b"\xda" in raw or b"\xdb" in raw:
            return cbor2.loads(raw, semantic_decoders=_NO_REFERENCES)
        return cbor2.loads(raw)
    except Exception as error:  # what tags stand for is constructed, which fails in ways that have no common class
        reason = str(error) if error.__cause__ is None else f"{error}: {error.__cause__!s:.100}"
        raise ValueError(f"not CBOR: {reason:.200}") from error


class _Shortened(reprlib.Repr):
    """Integers too long to be written and whatever is large are not turned into text as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxstring = 3, 4, TEXT_SHOWN
        self.maxlist = self.maxtuple = self.maxset = 6

    def repr1(self, x: Any, level: int) -> str:
        match x:
            case bool() | float() | None:
                return repr(x)
            case int() if x.bit_length() > INTEGER_BITS_SHOWN:
                return f"<integer of {x.bit_length()} bits>"
            case int():
                return repr(x)
            case bytes():
                return repr(x) if len(x) <= BYTES_SHOWN else f"{x[:BYTES_SHOWN]!r}... ({len(x)} bytes)"
            case str() | list() | tuple() | dict() | set() | frozenset():
                return super().repr1(x, level)
        return f"<{type(x).__name__}>"


def shown(value: Any, characters: int = 80) -> str:
    """The beginning of a plain value's ``repr``, for a message. Never fails, and costs little whatever the value is."""
    return _Shortened().repr(value)[:characters]
