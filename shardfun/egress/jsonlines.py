"""A published value as one line of JSON: the same bytes on every sink that writes lines."""

from __future__ import annotations

from typing import Any

import msgspec


def encode_line(value: Any) -> bytes:
    """The value as compact JSON and a newline. A float that is not a number becomes ``null``: JSON has no other word for it.

    Raises:
        TypeError: something in the value has no form in JSON.
    """
    try:
        return msgspec.json.encode(value) + b"\n"
    except (ValueError, RecursionError, OverflowError) as error:
        msg = f"expected a value that JSON can carry, got {type(value).__qualname__}: {error}"
        raise TypeError(msg) from error
