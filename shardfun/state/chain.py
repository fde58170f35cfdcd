"""The redo chain: which deltas lead from what a store holds to the newest complete checkpoint.

Walked backwards from the newest one through parents, never forwards and never by id: an aborted delta has the same parent as
the committed one. Pure: both stores use it, and what a delta is stored in stays with them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

from shardfun.errors import CorruptionError, LocalProtocolError
from shardfun.model.delta import DeltaHeader, DeltaSummary, checkpoint_name


class Mark(NamedTuple):
    """A point in a shard's history: a complete checkpoint, and the digest of the shard's delta of it."""

    checkpoint: int
    digest: bytes


BEGINNING = Mark(0, b"")


class Identity(NamedTuple):
    """Whose deltas these are."""

    job: str
    shard: int
    shards: int

    def matches(self, header: DeltaHeader) -> bool:
        """Whether a delta belongs to this shard of this job."""
        return self == (header.job, header.shard, header.shards)


class Link(Protocol):
    """What the walk needs of a delta."""

    @property
    def header(self) -> DeltaHeader: ...  # noqa: D102
    @property
    def summary(self) -> DeltaSummary: ...  # noqa: D102


AnyLink = TypeVar("AnyLink", bound=Link)


def redo_chain(base: Mark, target: Mark, fetch: Callable[[int], AnyLink], identity: Identity) -> list[AnyLink]:
    """The deltas after ``base`` up to and including ``target``, oldest first; each chained to the one before by its digest.

    Args:
        fetch: reads and verifies the delta of a checkpoint; raises ``CorruptionError`` if it cannot.

    Raises:
        CorruptionError: there is a gap, a delta of another history or shard, or ``base`` is not in ``target``'s past.
    """
    found: list[AnyLink] = []
    cursor = target
    while cursor != base:
        if cursor.checkpoint <= base.checkpoint:
            raise CorruptionError(
                f"the deltas of {checkpoint_name(target.checkpoint)} lead back to {_describe(cursor)}, and not to {_describe(base)}"
            )
        link = fetch(cursor.checkpoint)
        if not identity.matches(link.header) or link.header.checkpoint != cursor.checkpoint:
            raise CorruptionError(
                f"expected the delta of {checkpoint_name(cursor.checkpoint)} of {identity}, got {link.header}"
            )
        if link.summary.digest != cursor.digest:
            expected, got = cursor.digest.hex(), link.summary.digest.hex()
            raise CorruptionError(f"delta of {checkpoint_name(cursor.checkpoint)}: expected digest {expected}, got {got}")
        found.append(link)
        cursor = Mark(link.header.parent, link.header.parent_digest)
    found.reverse()
    return found


def check_next(header: DeltaHeader, applied: Mark, identity: Identity) -> None:
    """Check that a new delta builds on what is applied.

    Raises:
        LocalProtocolError: it belongs to another shard, or to another past.
    """
    if not identity.matches(header):
        raise LocalProtocolError(f"delta: expected one of {identity}, got {header}")
    if (header.parent, header.parent_digest) != applied or header.checkpoint <= applied.checkpoint:
        got = _describe(Mark(header.parent, header.parent_digest))
        raise LocalProtocolError(
            f"delta of {checkpoint_name(header.checkpoint)}: expected one that builds on {_describe(applied)}, got {got}"
        )


def check_applicable(mark: Mark, header: DeltaHeader, applied: Mark) -> None:
    """Check that a complete delta is the next one, or the applied one again.

    Raises:
        LocalProtocolError: it is not.
    """
    parent = Mark(header.parent, header.parent_digest)
    if applied not in (parent, mark):
        raise LocalProtocolError(
            f"apply {_describe(mark)}: expected {_describe(parent)} to be applied, got {_describe(applied)}"
        )


def _describe(mark: Mark) -> str:
    return f"{checkpoint_name(mark.checkpoint)} ({mark.digest.hex() or 'no digest'})"
