"""What the runtime itself keeps for an address, in its record beside the author's fields.

A dictionary that is never changed, only replaced, because a pre-image may hold it. Its parts:

- ``b``: by the name of a buffer, the numbers of its first and of its next element (see ``buffers.Bounds``);
- ``x``: by the name of a value or of a buffer as a whole, when it expires;
- ``i``: when the instance expires unless a message comes; 0: it has, and is being deleted.

Times are unix milliseconds.
"""

from __future__ import annotations

from typing import Any

BOUNDS, DEADLINES, IDLE = "b", "x", "i"

Plain = dict[str, Any]


class Hidden:
    """A view of an address's hidden data."""

    __slots__ = ("plain",)

    def __init__(self, plain: Plain | None) -> None:
        self.plain = plain or {}

    def bounds(self, name: str) -> list[int] | None:
        """Of a buffer; ``None``: it is empty."""
        return self.plain.get(BOUNDS, {}).get(name)  # type: ignore[no-any-return]

    def deadline(self, name: str) -> int | None:
        """Of a value, or of a buffer as a whole."""
        return self.plain.get(DEADLINES, {}).get(name)  # type: ignore[no-any-return]


def with_parts(plain: Plain | None, part: str, changes: dict[str, Any]) -> Plain | None:
    """The hidden data with some entries of one part replaced (``None``: removed), as a new object if anything is different.

    Args:
        part: ``BOUNDS`` or ``DEADLINES``.
    """
    before = {} if plain is None else plain.get(part, {})
    after = {name: value for name, value in {**before, **changes}.items() if value is not None}
    if after == before:
        return plain
    found = {name: value for name, value in ({} if plain is None else plain).items() if name != part}
    if after:
        found[part] = after
    return found or None


def with_idle(plain: Plain | None, deadline_ms: int | None) -> Plain | None:
    """The hidden data with another deadline of the instance."""
    found = {name: value for name, value in ({} if plain is None else plain).items() if name != IDLE}
    if deadline_ms is not None:
        found[IDLE] = deadline_ms
    return found or None
