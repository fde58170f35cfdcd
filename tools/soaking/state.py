"""What a soak has done so far: sums in one file, written anew after each piece, so that a kill at any moment loses a piece at most.

The file says what is under way, too: pieces that were cut short are the first ones of the next start.
"""

from __future__ import annotations

import fcntl
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

VERSION = 1
KINDS = ("seeds", "chaos", "shells")
"""Of pieces."""

VIOLATIONS_MAX = 1_000
"""Kept one by one; of more there is only the number."""

REFUSED_MAX = 100
DIGITS = 2
"""Times are counted in buckets of so many significant digits: the file stays small however long a soak goes on."""


class StateError(Exception):
    """A state file cannot be used. The message says why, and what to do."""


class Piece(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one process does.

    Args:
        kind: one of ``KINDS``.
        first: the first seed; ``count``: so many.
        app: for chaos; so is ``shards``.
    """

    kind: str
    first: int
    count: int
    app: str = ""
    shards: int = 0

    def __str__(self) -> str:
        if self.kind == "chaos":
            return f"chaos of {self.app} with {self.shards} shards, seed {self.first}"
        return f"{self.kind} {self.first} to {self.first + self.count - 1}"


class Times(msgspec.Struct):
    """How long something took, in milliseconds: a count for each bucket."""

    buckets: dict[str, int] = {}
    max_ms: float = 0.0

    def add(self, ms: float) -> None:
        """One more."""
        step = 10 ** max(0, len(str(int(ms))) - DIGITS)
        name = str(int(ms) // step * step)
        self.buckets[name] = self.buckets.get(name, 0) + 1
        self.max_ms = max(self.max_ms, ms)

    @property
    def count(self) -> int:
        """How many."""
        return sum(self.buckets.values())

    def percentile(self, share: float) -> float | None:
        """The time that ``share`` of all were done in, to two digits; ``None`` without any."""
        rank = max(1, math.ceil(share * self.count))
        for name, count in sorted(self.buckets.items(), key=lambda item: int(item[0])):
            rank -= count
            if rank <= 0:
                return float(name)
        return None


class Sums(msgspec.Struct):
    """What the pieces of one sort add up to.

    Args:
        runs: seeds, chaos runs or rounds.
        inconclusive: runs in which not every fault fell inside; they prove less, and are no violations.
        commits: runs by commit.
    """

    runs: int = 0
    inconclusive: int = 0
    violations: int = 0
    busy_s: float = 0.0
    figures: dict[str, float] = {}
    commits: dict[str, int] = {}
    recoveries: Times = msgspec.field(default_factory=Times)

    def add(self, result: Result, commit: str, took_s: float) -> None:
        """One more piece."""
        self.runs += result.runs
        self.inconclusive += result.inconclusive
        self.violations += len(result.violations)
        self.busy_s += took_s
        for name, value in result.figures.items():
            self.figures[name] = self.figures.get(name, 0) + value
        self.commits[commit] = self.commits.get(commit, 0) + result.runs
        for ms in result.recoveries_ms:
            self.recoveries.add(ms)


class Found(msgspec.Struct, frozen=True):
    """A violation as a piece reports it.

    Args:
        kind: of the violation; ``what``: in words.
        details: long texts by name (options, last events, ...): they go into a file of their own.
    """

    seed: int
    kind: str
    what: str
    details: dict[str, Any] = {}


class Result(msgspec.Struct, frozen=True):
    """What a piece prints when it has ended.

    Args:
        doubts: why runs were inconclusive: kept as files, and no violations.
    """

    runs: int
    figures: dict[str, float] = {}
    violations: tuple[Found, ...] = ()
    inconclusive: int = 0
    doubts: tuple[Found, ...] = ()
    recoveries_ms: tuple[float, ...] = ()


class Violation(msgspec.Struct, frozen=True):
    """A violation as it is kept. ``file``: beside the state, with the details."""

    at: str
    piece: str
    seed: int
    kind: str
    what: str
    commit: str
    file: str


class Refused(msgspec.Struct, frozen=True):
    """A commit that did not pass the quick check, so no piece ran under it."""

    at: str
    commit: str
    why: str


class State(msgspec.Struct, forbid_unknown_fields=True):
    """See the module.

    Args:
        next_seed: seeds below it are done or in ``open``; ``next_chaos`` and ``next_shells`` likewise.
        soaked_s: seconds that soaks of this state have taken.
        sums: by sort: ``seeds``, ``shells``, ``chaos APP SHARDS``.
    """

    version: int = VERSION
    next_seed: int = 1
    next_chaos: int = 1
    next_shells: int = 1
    soaked_s: float = 0.0
    open: list[Piece] = []
    sums: dict[str, Sums] = {}
    violations: list[Violation] = []
    violations_seen: int = 0
    refused: list[Refused] = []

    def sums_of(self, piece: Piece) -> Sums:
        """Where the result of a piece belongs."""
        name = f"chaos {piece.app} {piece.shards}" if piece.kind == "chaos" else piece.kind
        return self.sums.setdefault(name, Sums())

    def close(self, piece: Piece, result: Result, commit: str, took_s: float, kept: list[Violation]) -> None:
        """A piece has ended."""
        self.open.remove(piece)
        self.sums_of(piece).add(result, commit, took_s)
        self.violations_seen += len(kept)
        self.violations += kept[: max(0, VIOLATIONS_MAX - len(self.violations))]

    def refuse(self, refused: Refused) -> None:
        """A commit is not used."""
        self.refused = [*self.refused, refused][-REFUSED_MAX:]

    def busy_s(self, kind: str) -> float:
        """Seconds that processes have spent on pieces of a kind."""
        return sum(sums.busy_s for name, sums in self.sums.items() if name.split(" ", maxsplit=1)[0] == kind)


class StateFile:
    """A state with its file, for one soak at a time.

    Args:
        path: of the file; it is made if it is not there.

    Raises:
        StateError: another soak uses it, or it is none.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise StateError(f"{path}: another soak is using it; end that one, or name another state") from None
        try:
            self.state = load(path) if path.exists() else State()
        except StateError:
            self.close()
            raise

    def write(self) -> None:
        """Durable, and whole or not at all."""
        encoded = msgspec.json.format(msgspec.json.encode(self.state), indent=1)
        temporary = self.path.with_name(self.path.name + ".tmp")
        with temporary.open("wb") as file:
            file.write(encoded)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)

    def close(self) -> None:
        """Another soak may use it."""
        os.close(self._lock)


def load(path: Path) -> State:
    """Read a state file.

    Raises:
        StateError: it cannot be read, or is none.
    """
    try:
        state = msgspec.json.decode(path.read_bytes(), type=State)
    except (OSError, msgspec.DecodeError) as error:
        raise StateError(f"{path}: expected the state of a soak: {error}; move it away to begin anew") from error
    if state.version != VERSION:
        raise StateError(f"{path}: expected version {VERSION}, found {state.version}; move it away to begin anew")
    return state


def by_sort(state: State, kind: str) -> Mapping[str, Sums]:
    """The sums of a kind, by name."""
    return {name: sums for name, sums in sorted(state.sums.items()) if name.split(" ", maxsplit=1)[0] == kind}
