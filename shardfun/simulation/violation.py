"""What a run can find wrong."""

from __future__ import annotations

from typing import NoReturn


class Violation(Exception):  # noqa: N818 - the word of the field
    """An invariant does not hold.

    Args:
        kind: ``correctness``, ``liveness`` or ``crash`` (the core raised what it never should).
        what: what was expected, and what was found.
    """

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind = kind


def wrong(what: str) -> NoReturn:
    """A violation of correctness.

    Raises:
        Violation: always.
    """
    raise Violation("correctness", what)
