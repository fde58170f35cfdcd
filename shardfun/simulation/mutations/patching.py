"""What a deliberate mistake is: replacements of methods and functions, for as long as a run lasts."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from shardfun.simulation.world import Outcome

FOUND_AS: Final = r"correctness: |liveness: |crash: (?!(TypeError|AttributeError|NameError|UnboundLocalError|ImportError|IndexError|KeyError)\b)"
"""A check of the world, or of the core. What Python raises at code that does not fit would be a mistake in the mutation itself."""


class Patch(NamedTuple):
    """Replace ``owner.name`` by what ``make`` makes of it; ``owner`` is a class or a module."""

    owner: Any
    name: str
    make: Callable[[Any], Any]


class Mutation(NamedTuple):
    """A deliberate mistake.

    Args:
        mistake: one line for people.
        found_as: a pattern: how what is found begins, as ``kind: what``.
    """

    mistake: str
    patches: tuple[Patch, ...]
    found_as: str = FOUND_AS

    def is_found_by(self, outcome: Outcome) -> bool:
        """Whether a run has found the mistake, and not another one."""
        return re.match(self.found_as, f"{outcome.kind}: {outcome.what}") is not None
