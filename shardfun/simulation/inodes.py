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
        data: what processes read.
        stored: what the disk holds for certain.
        dirty: pages that were written since the last fsync.
        dropped: pages that a failed fsync has given up: they count as clean, and are not on the disk.
        whole: what it held before a bit of it flipped.
        torn: a power cut has left a part of what was written.
        owner: who has locked it.
    """

    data: bytearray = field(default_factory=bytearray)
    stored: bytearray = field(default_factory=bytearray)
    dirty: set[int] = field(default_factory=set)
    dropped: set[int] = field(default_factory=set)
    whole: bytes | None = None
    torn: bool = False
    owner: object = None

    @property
    def durable(self) -> bool:
        """Whether a power cut takes nothing of it."""
        return not self.dirty and not self.dropped and len(self.stored) == len(self.data)

    def write(self, piece: bytes | memoryview, position: int | None = None) -> None:
        """Write somewhere, by default at the end."""
        start = len(self.data) if position is None else position
        if start > len(self.data):
            self.write(bytes(start - len(self.data)))
        self.data[start : start + len(piece)] = piece
        self.dirty.update(range(start // PAGE_BYTES, -(-(start + len(piece)) // PAGE_BYTES)))

    def truncate(self, length: int) -> None:
        """Cut the end off."""
        del self.data[length:]
        pages = range(-(-length // PAGE_BYTES))
        self.dirty.intersection_update(pages)
        self.dropped.intersection_update(pages)
        if length % PAGE_BYTES:
            self.dirty.add(length // PAGE_BYTES)

    def fsync(self, *, fails: bool) -> None:
        """The pages that are not on the disk yet go there, or are given up and count as clean from now on."""
        if fails:
            self.dropped |= self.dirty
        else:
            self.dropped -= self.dirty
            size = len(self.data)
            del self.stored[size:]
            self.stored += bytes(size - len(self.stored))
            for page in self.dirty:
                self.stored[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = self._page(self.data, page)
        self.dirty.clear()

    @staticmethod
    def _page(content: bytearray, page: int) -> bytearray:
        return content[page * PAGE_BYTES : (page + 1) * PAGE_BYTES]

    def lose_power(self, chance: random.Random) -> None:
        """What is not durable stays in part: all, nothing, a prefix, or some of the pages."""
        if self.durable:
            return
        kind = chance.choice(("all", "none", "prefix", "pages"))
        self.data = self._left(kind, chance)
        self.torn = self.torn or kind != "all"
        self.stored = bytearray(self.data)
        self.dirty.clear()
        self.dropped.clear()

    def _left(self, kind: str, chance: random.Random) -> bytearray:
        data, stored = self.data, self.stored
        if kind in {"all", "none"}:
            return data if kind == "all" else bytearray(stored)
        unsure = sorted(self.dirty | self.dropped)
        if kind == "prefix":
            first = min([len(stored), len(data), *(page * PAGE_BYTES for page in unsure[:1])])
            until = chance.randint(first, len(data))
            return data[:until] + stored[until:]
        left = bytearray(data)
        for page in unsure:
            if chance.random() < 0.5:
                start, length = page * PAGE_BYTES, len(self._page(data, page))
                left[start : start + length] = self._page(stored, page)[:length].ljust(length, b"\0")
        if len(stored) > len(data) and chance.random() < 0.5:  # the new length was not written
            left += stored[len(data) :]
        return left


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
