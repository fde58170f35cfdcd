"""Stored values as JSON knows them, for answers about state: null, booleans, numbers, texts, lists, objects.

What JSON has no word for is told so that it cannot be taken for something else:

- bytes: ``{"base64": "..."}``;
- floats that are no number: the texts ``NaN``, ``Infinity``, ``-Infinity``;
- dates, times, UUIDs and decimals: text, as Python writes it (ISO 8601);
- tuples and sets: lists; keys of objects that are no text: as text, ``3`` or ``true``;
- what is too long or too deep to show: ``{"omitted": "..."}``, which says why.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

DEPTH_MAX: Final = 100
INTEGER_BITS_MAX: Final = 8192
"""Python refuses to write much longer ones in decimals."""
TOO_DEEP: Final = {"omitted": f"nested deeper than {DEPTH_MAX}"}


def json_like(value: Any) -> Any:
    """A plain value (scalars, lists, maps, as CBOR carries them) as above."""
    return _shown(value, DEPTH_MAX)


def omitted(size_bytes: int) -> dict[str, str]:
    """Stands for a value of which that many bytes would have to be shown."""
    return {"omitted": f"{size_bytes} bytes, too long to show"}


def _shown(value: Any, depth: int) -> Any:
    match value:
        case None | bool():
            return value
        case int():
            return value if value.bit_length() <= INTEGER_BITS_MAX else omitted(value.bit_length() // 8)
        case str():
            return value if value.isascii() else value.encode(errors="replace").decode()
        case float():
            return value if math.isfinite(value) else _no_number(value)
        case bytes() | bytearray() | memoryview():
            return {"base64": base64.b64encode(value).decode()}
        case Mapping() | list() | tuple() | AbstractSet() if depth == 0:
            return TOO_DEEP
        case Mapping():
            return {_name(key): _shown(item, depth - 1) for key, item in value.items()}
        case list() | tuple() | AbstractSet():
            return [_shown(item, depth - 1) for item in value]
        case _:
            return _text(value)


def _no_number(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _name(key: Any) -> str:
    """A key of an object."""
    match key:
        case str():
            return str(_shown(key, 1))
        case bool():
            return "true" if key else "false"
        case None:
            return "null"
        case bytes():
            return base64.b64encode(key).decode()
        case float():
            return str(_shown(key, 1))
        case tuple():
            return ", ".join(map(_name, key))
        case _:
            return _text(key)


def _text(value: Any) -> str:
    try:
        return value.isoformat() if hasattr(value, "isoformat") else str(value)
    except ValueError:  # of a fraction, or a key, with thousands of digits
        return f"a {type(value).__name__}, too long to show"
