"""Address: the name of one function instance."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from shardfun.errors import DefinitionError

ID_BYTES_MAX = 4096
TYPENAME_BYTES_MAX = 256
EVERY_NAME = "/*"
RESERVED_NAMESPACE = "shardfun"
"""Of the runtime's own functions; no application can declare one in it."""


class Address(NamedTuple):
    """``typename`` is ``namespace/name`` with exactly one slash; ``id`` is any text of 1 to ``ID_BYTES_MAX`` bytes."""

    typename: str
    id: str

    def __str__(self) -> str:
        return f"{self.typename}:{self.id}"


def check_typename(typename: str) -> str:
    """Return ``typename`` if it is the name of one function type.

    Raises:
        DefinitionError: it is not of the form ``namespace/name``.
    """
    namespace, slash, name = typename.partition("/")
    wrong = (
        not slash
        or not namespace
        or not name
        or "/" in name
        or not typename.isprintable()
        or ":" in typename
        or "*" in typename
    )
    if wrong or len(typename.encode()) > TYPENAME_BYTES_MAX:
        msg = f"function type {typename!r:.300}: expected 'namespace/name' (one slash, printable, no colon or asterisk), as in 'shop/cart'"
        raise DefinitionError(msg)
    return typename


def check_function_name(typename: str) -> str:
    """Return ``typename`` if a function can be declared under it: the name of a type, or ``namespace/*``.

    Raises:
        DefinitionError: it is neither.
    """
    namespace = namespace_of(typename)
    if namespace is not None:
        check_typename(f"{namespace}/any")
        return typename
    return check_typename(typename)


def namespace_of(typename: str) -> str | None:
    """The namespace of ``namespace/*``; ``None`` for the name of one function type."""
    return typename[: -len(EVERY_NAME)] if typename.endswith(EVERY_NAME) else None


def is_declared(typename: str, declared: Collection[str]) -> bool:
    """Whether a name of a function type is one of the declared ones, which may be whole namespaces."""
    return typename in declared or typename.partition("/")[0] + EVERY_NAME in declared


def parse_address(text: str) -> Address:
    """``'shop/cart:42'`` to an address; everything after the first colon is the id.

    Raises:
        DefinitionError: no colon, an empty id, or a wrong typename.
    """
    typename, colon, id = text.partition(":")
    if not colon or not id:
        msg = f"address {text!r:.300}: expected 'namespace/name:id', as in 'shop/cart:42'"
        raise DefinitionError(msg)
    return Address(check_typename(typename), id)
