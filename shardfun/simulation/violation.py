"""What a run can find wrong."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Final, NoReturn

HELPERS: Final = frozenset({"wrong", "same", "each_once"})
"""Functions that compare for those that know what they compare."""


class Violation(Exception):  # noqa: N818 - the word of the field
    """An invariant does not hold.

    Args:
        kind: ``correctness``, ``liveness`` or ``crash`` (the core raised what it never should).
        what: what was expected, and what was found.
        rule: which one is broken, if many are told from one place.
    """

    def __init__(self, kind: str, what: str, rule: str = "") -> None:
        super().__init__(what)
        self.kind = kind
        self.rule = rule


def wrong(what: str) -> NoReturn:
    """A violation of correctness.

    Raises:
        Violation: always.
    """
    raise Violation("correctness", what)


def place_of(error: Exception) -> str:
    """Where it was found: the line of the check, or of what has raised. Two runs that fail there fail in the same way."""
    raised = error.__cause__ if isinstance(error, Violation) and error.__cause__ is not None else error
    frames = [frame for frame in traceback.extract_tb(raised.__traceback__) if frame.name not in HELPERS]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    which = error.rule if isinstance(error, Violation) else type(error).__name__
    return f"{where} {which}".strip()
