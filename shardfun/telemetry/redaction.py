"""Which values never appear in a log line or an error message.

Decided by the name of the key, in one place, so that logs and messages agree. A secret inside free text is not recognised:
whoever writes the text leaves it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

REDACTED: Final = "<redacted>"

DEPTH_MAX: Final = 6
"""Nested values deeper than this are replaced by a short text: a log line is no place for a tree."""

_SECRET_WORDS: Final = (
    "token",
    "password",
    "passwd",
    "passphrase",
    "secret",
    "credential",
    "authorization",
    "cookie",
    "apikey",
    "privatekey",
)


def is_secret_key(key: str) -> bool:
    """Whether a value under this key is kept out of sight. Rather one key too many: ``tokens`` is one, too."""
    plain = key.lower().replace("_", "").replace("-", "")
    return any(word in plain for word in _SECRET_WORDS)


def redacted(fields: Mapping[Any, Any], depth: int = 0) -> dict[str, Any]:
    """A copy with texts as keys and without the values of secret keys, at any depth."""
    return {str(key): REDACTED if is_secret_key(str(key)) else _inside(value, depth + 1) for key, value in fields.items()}


def _inside(value: Any, depth: int) -> Any:
    if isinstance(value, Mapping):
        return redacted(value, depth) if depth < DEPTH_MAX else f"<{type(value).__name__} of {len(value)}>"
    if isinstance(value, list | tuple):
        return (
            [_inside(item, depth + 1) for item in value] if depth < DEPTH_MAX else f"<{type(value).__name__} of {len(value)}>"
        )
    return value
