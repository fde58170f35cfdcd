"""Small whole numbers and their CBOR, made once: counts are mostly small, and each call of cbor2 takes 0.4 us.

Made when an application is, for commands do without.
"""

from __future__ import annotations

import functools

import cbor2

ENCODED_INTS = 65_536
DECODED_INTS = 1024
"""Fewer: an entry of a dictionary takes twice the memory."""


@functools.cache
def encoded_ints() -> list[bytes]:
    """Each number below ``ENCODED_INTS`` as CBOR, by itself."""
    short = [cbor2.dumps(number) for number in range(256)]
    return short + [b"\x19" + number.to_bytes(2, "big") for number in range(256, ENCODED_INTS)]


@functools.cache
def decoded_ints() -> dict[bytes, int]:
    """Each number below ``DECODED_INTS``, by its CBOR."""
    return {encoded: number for number, encoded in enumerate(encoded_ints()[:DECODED_INTS])}
