"""CBOR of files back into typed values, with one error for everything that can be wrong with it."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from shardfun.model.cbor import load_cbor

_Kind = TypeVar("_Kind")


class UndecodableError(Exception):
    """The bytes are not what they should be. Callers add the name of the file and raise ``CorruptionError``."""


def load_plain(raw: bytes) -> Any:
    """One CBOR item.

    Raises:
        UndecodableError: it is not one.
    """
    try:
        return load_cbor(raw)
    except ValueError as error:
        raise UndecodableError(f"{error}") from error


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
