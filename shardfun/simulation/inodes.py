"""What a simulated disk holds: files and folders, as they are now, and what a power cut leaves of them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import NamedTuple

PAGE_BYTES = 256  # small, so that small files have some


@dataclass(slots=True, eq=False)
class Inode:
    """A file.

    Args:
        synced: bytes up to here were fsynced, except for ``dropped``: parts that a failed fsync has given up.
        whole: what it held before a bit of it flipped.
        torn: a power cut has left zeros in it.
    """

    data: bytearray = field(default_factory=bytearray)
    synced: int = 0
    dropped: list[tuple[int, int]] = field(default_factory=list)
    whole: bytes | None = None
    torn: bool = False

    @property
    def durable(self) -> bool:
        """Whether a power cut takes nothing of it."""
        return self.synced == len(self.data) and not self.dropped

    def fsync(self, *, fails: bool) -> None:
        """The pages that are not on the disk yet go there, or are given up and count as clean from now on."""
        if fails and self.synced < len(self.data):
            self.dropped.append((self.synced, len(self.data)))
        self.synced = len(self.data)

    def lose_power(self, chance: random.Random) -> None:
        """What is not durable stays in part: all, a prefix, or some of the pages."""
        if self.durable:
            return
        unsure = [*self.dropped, (self.synced, len(self.data))]
        kind = chance.choice(("all", "none", "prefix", "pages"))
        for start, end in unsure:
            until = {"all": end, "none": start}.get(kind, chance.randint(start, end))
            for page in range(start - start % PAGE_BYTES, end, PAGE_BYTES):
                first, stop = max(page, start), min(page + PAGE_BYTES, end)
                if kind == "pages":
                    until = chance.choice((first, stop))
                lost = min(max(first, until), stop)
                self.data[lost:stop] = bytes(stop - lost)
        if kind != "pages" and until < end:  # the length was not written either
            del self.data[until:]
        self.torn = self.torn or kind != "all"
        self.synced = len(self.data)
        self.dropped = []


class Change(NamedTuple):
    """A change of a folder: ``name`` is now ``node`` (``None``: gone), and ``old`` is gone."""

    name: str
    node: Inode | Folder | None
    old: str | None = None


class Folder:
    """A folder: its names now, and those that a power cut would leave, but for the changes since then."""

    __slots__ = ("durable", "names", "pending")

    def __init__(self) -> None:
        self.names: dict[str, Inode | Folder] = {}
        self.durable: dict[str, Inode | Folder] = {}
        self.pending: list[Change] = []

    def change(self, change: Change) -> None:
        """Make a change that is not durable yet."""
        self.pending.append(change)
        _make(self.names, change)

    def sync(self) -> None:
        """All changes are durable."""
        if self.pending:
            self.durable = dict(self.names)
            self.pending = []

    def lose_power(self, chance: random.Random) -> None:
        """Each change since the last sync is kept or lost, whatever becomes of the others; then the same in what is left."""
        for change in self.pending:
            if chance.random() < 0.5:
                _make(self.durable, change)
        self.names = dict(self.durable)
        self.pending = []
        for node in self.names.values():
            node.lose_power(chance)


def _make(names: dict[str, Inode | Folder], change: Change) -> None:
    if change.old is not None:
        names.pop(change.old, None)
    if change.node is None:
        names.pop(change.name, None)
    else:
        names[change.name] = change.node
