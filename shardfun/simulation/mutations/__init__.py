"""Deliberate mistakes, to show that the checks would find them; a module for each subject.

Each replaces a few methods for as long as a run lasts. The core knows nothing of it. A mistake that no seed finds means that the
simulator is blind there, not that the mistake is harmless.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from shardfun.errors import ConfigurationError
from shardfun.simulation.mutations import cells, commits, incarnations, ordering, outside, snapshots, storage
from shardfun.simulation.mutations.patching import Mutation, Patch

__all__ = ["MUTATIONS", "Mutation", "Patch", "mutated"]

MUTATIONS: dict[str, Mutation] = {
    **snapshots.MUTATIONS,
    **ordering.MUTATIONS,
    **incarnations.MUTATIONS,
    **commits.MUTATIONS,
    **cells.MUTATIONS,
    **outside.MUTATIONS,
    **storage.MUTATIONS,
}


@contextmanager
def mutated(name: str | None) -> Iterator[None]:
    """Run with a mistake; ``None``: with none.

    Raises:
        ConfigurationError: there is no such mutation.
    """
    if name is None:
        yield
        return
    if name not in MUTATIONS:
        raise ConfigurationError(f"mutation {name!r}: expected one of {', '.join(MUTATIONS)}")
    patches = MUTATIONS[name].patches
    originals = [getattr(patch.owner, patch.name) for patch in patches]
    try:
        for patch, original in zip(patches, originals, strict=True):
            setattr(patch.owner, patch.name, patch.make(original))
        yield
    finally:
        for patch, original in zip(patches, originals, strict=True):
            setattr(patch.owner, patch.name, original)
