"""Names: what is one, and what the refusal says."""

from __future__ import annotations

import pytest

from shardfun.errors import DefinitionError
from shardfun.model.address import TYPENAME_BYTES_MAX, Address, check_typename, parse_address


@pytest.mark.parametrize("typename", ["shop/cart", "a.b/c-d", "ü/ö", "a/" + "b" * (TYPENAME_BYTES_MAX - 2)])
def test_names_that_are_fine(typename: str) -> None:
    assert check_typename(typename) == typename


@pytest.mark.parametrize(
    "typename", ["", "cart", "/cart", "shop/", "a/b/c", "a/b:c", "a/b\0", "a/b\n", "a/" + "b" * (TYPENAME_BYTES_MAX - 1)]
)
def test_names_that_are_not(typename: str) -> None:
    with pytest.raises(DefinitionError, match="expected 'namespace/name'"):
        check_typename(typename)


def test_an_id_may_hold_colons_and_slashes() -> None:
    address = parse_address("shop/cart:a:b/c")
    assert address == Address("shop/cart", "a:b/c")
    assert parse_address(str(address)) == address


@pytest.mark.parametrize("text", ["shop/cart", "shop/cart:", ":x", "cart:x"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(DefinitionError, match="expected"):
        parse_address(text)
