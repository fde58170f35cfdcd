"""What a deliberate mistake is: replacements of methods and functions, for as long as a run lasts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Patch(NamedTuple):
    """Replace ``owner.name`` by what ``make`` makes of it; ``owner`` is a class or a module."""

    owner: Any
    name: str
    make: Callable[[Any], Any]


class Mutation(NamedTuple):
    """``mistake``: one line for people."""

    mistake: str
    patches: tuple[Patch, ...]
