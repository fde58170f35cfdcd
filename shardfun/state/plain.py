"""CBOR of files back into typed values, with one error for everything that can be wrong with it."""

from __future__ import annotations

from typing import Any, TypeVar

import cbor2
import msgspec

_Kind = TypeVar("_Kind")


class UndecodableError(Exception):
    """The bytes are not what they should be. Callers add the name of the file and raise ``CorruptionError``."""


def load_plain(raw: bytes) -> Any:
    """One CBOR item.

    Raises:
        UndecodableError: it is not one.
    """
    try:
        return cbor2.loads(raw)
    except Exception as error:  # semantic tags construct objects, which fail in ways that have no common class
        raise UndecodableError(f"not CBOR: {error!r:.200}") from error


def load_typed(raw: bytes, kind: type[_Kind]) -> _Kind:
    """One CBOR item of a given type. A type that msgspec does not support is a bug and stays a ``TypeError``.

    Raises:
        UndecodableError: it is not one.
    """
    plain = load_plain(raw)
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise UndecodableError(f"{error}") from error
