"""Address: the name of one function instance."""

from __future__ import annotations

from typing import NamedTuple

from shardfun.errors import DefinitionError

ID_BYTES_MAX = 4096
TYPENAME_BYTES_MAX = 256


class Address(NamedTuple):
    """``typename`` is ``namespace/name`` with exactly one slash; ``id`` is any text of 1 to ``ID_BYTES_MAX`` bytes."""

    typename: str
    id: str

    def __str__(self) -> str:
        return f"{self.typename}:{self.id}"


def check_typename(typename: str) -> str:
    """Return ``typename`` if it is a valid function type name.

    Raises:
        DefinitionError: it is not of the form ``namespace/name``.
    """
    namespace, slash, name = typename.partition("/")
    wrong = not slash or not namespace or not name or "/" in name or not typename.isprintable() or ":" in typename
    if wrong or len(typename.encode()) > TYPENAME_BYTES_MAX:
        msg = f"function type {typename!r}: expected 'namespace/name' (one slash, printable, no colon), as in 'shop/cart'"
        raise DefinitionError(msg)
    return typename


def parse_address(text: str) -> Address:
    """``'shop/cart:42'`` to an address; everything after the first colon is the id.

    Raises:
        DefinitionError: no colon, an empty id, or a wrong typename.
    """
    typename, colon, id = text.partition(":")
    if not colon or not id:
        msg = f"address {text!r}: expected 'namespace/name:id', as in 'shop/cart:42'"
        raise DefinitionError(msg)
    return Address(check_typename(typename), id)
