"""Hands out pieces until the time is over, and adds up what they find. Nothing that is found ends it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from soaking.clones import Following, Here
from soaking.piece import LOAD_MAX, SHELLS, chaos_piece
from soaking.report import report
from soaking.running import Process, perform
from soaking.state import KINDS, Found, Piece, Refused, StateFile, Violation

PIECE_S_MAX = 900.0
"""A piece that takes longer hangs. That is a finding."""

LETTING_GO_S = 10.0
SHELLS_SHARE = 0.1
"""Of the time of all processes, if the repository has shells."""

SHELLS_COUNT = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How to soak.

    Args:
        chaos_share: of the time of all processes.
        seeds: in a piece.
    """

    minutes: float
    jobs: int
    chaos_share: float
    seeds: int


class Campaign:
    """One soak.

    Args:
        place: where pieces run.
        report_path: the report is written there after each piece.
    """

    def __init__(self, file: StateFile, place: Here | Following, wish: Wish, report_path: Path) -> None:
        self._file = file
        self._place = place
        self._wish = wish
        self._report_path = report_path
        self._details = file.path.with_name(file.path.stem + ".findings")
        self._left_over = list(file.state.open)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._processes: set[Process] = set()
        self._commits: Counter[str] = Counter()  # of pieces that are under way
        self._refreshing = threading.Lock()  # apart from the other one, since the check of a new commit takes minutes
        self._failure: Exception | None = None
        self._began = time.monotonic()
        self._soaked_before = file.state.soaked_s

    def run(self) -> None:
        """Until the time is over.

        Raises:
            KeyboardInterrupt: somebody wanted it to end; what is under way is done at the next start.
            RuntimeError: a worker cannot go on.
        """
        workers = [
            threading.Thread(target=self._work, name=f"worker {number}", daemon=True) for number in range(self._wish.jobs)
        ]
        for worker in workers:
            worker.start()
        try:
            for worker in workers:
                worker.join()
        except BaseException:
            self._end()
            for worker in workers:
                worker.join(LETTING_GO_S)
            raise
        finally:
            with self._lock:
                self._write()
        if self._failure is not None:
            what = f"{type(self._failure).__name__}: {self._failure}"
            raise RuntimeError(f"a worker cannot go on: {what}") from self._failure

    def _end(self) -> None:
        self._ended.set()
        with self._lock:
            for process in self._processes:
                process.send_signal(signal.SIGINT)

    # ---- workers ---------------------------------------------------------------------------------------------------------
    def _work(self) -> None:
        try:
            while not self._ended.is_set() and time.monotonic() - self._began < self._wish.minutes * 60:
                self._refresh()
                self._do_a_piece()
        except Exception as error:  # noqa: BLE001 - whatever it is: the others shall not go on as if nothing were
            self._failure = self._failure or error
            self._end()

    def _do_a_piece(self) -> None:
        with self._lock:
            if self._ended.is_set():
                return
            root, commit = self._place.current()
            self._commits[commit] += 1
            piece = self._take(root)
            self._write()
        try:
            started = time.monotonic()
            result, log = perform(piece, root, PIECE_S_MAX, self._known)
            if self._ended.is_set():
                return
            with self._lock:
                kept = [self._keep(piece, found, commit, log) for found in result.violations]
                for doubt in result.doubts:
                    self._keep(piece, doubt, commit, log)
                self._file.state.close(piece, result, commit, time.monotonic() - started, kept)
                self._write()
        finally:
            with self._lock:
                self._commits[commit] -= 1

    def _refresh(self) -> None:
        if not self._refreshing.acquire(blocking=False):
            return  # another worker is at it
        try:
            why = self._place.refresh()
            with self._lock:
                if why is not None:
                    commit, _, reason = why.partition(": ")
                    self._file.state.refuse(Refused(_now(), commit, reason))
                if isinstance(self._place, Following):
                    self._place.remove_others({commit for commit, pieces in self._commits.items() if pieces})
        finally:
            self._refreshing.release()

    def _take(self, root: Path) -> Piece:
        """The next piece; it counts as open from now on."""
        if self._left_over:
            return self._left_over.pop(0)
        state, wish = self._file.state, self._wish
        if self._is_due("chaos", wish.chaos_share) and (wish.chaos_share >= 1 or not _overloaded()):
            piece = chaos_piece(state.next_chaos)
            state.next_chaos += 1
        elif self._is_due("shells", SHELLS_SHARE) and (root / SHELLS).exists():
            piece = Piece("shells", state.next_shells, SHELLS_COUNT)
            state.next_shells += SHELLS_COUNT
        else:
            piece = Piece("seeds", state.next_seed, wish.seeds)
            state.next_seed += wish.seeds
        state.open.append(piece)
        return piece

    def _is_due(self, kind: str, share: float) -> bool:
        """Whether pieces of a kind have had less than their share of the time."""
        spent = {each: self._file.state.busy_s(each) for each in KINDS}
        return share >= 1 or spent[kind] < share * sum(spent.values())

    @contextlib.contextmanager
    def _known(self, process: Process) -> Iterator[None]:
        with self._lock:
            self._processes.add(process)
            if self._ended.is_set():  # meanwhile
                process.send_signal(signal.SIGINT)
        try:
            yield
        finally:
            with self._lock:
                self._processes.remove(process)

    # ---- what is kept ----------------------------------------------------------------------------------------------------
    def _keep(self, piece: Piece, found: Found, commit: str, log: str) -> Violation:
        """Write the details of a violation into a file."""
        self._details.mkdir(exist_ok=True)
        name = f"{piece.kind}-{found.seed}-{commit}.txt"
        lines = [f"{piece}, commit {commit}", f"seed {found.seed}: {found.kind}: {found.what}"]
        for title, value in found.details.items():
            lines += ["", f"== {title}", *_lines(value)]
        lines += ["", "== error output", log]
        (self._details / name).write_text("\n".join(lines))
        return Violation(_now(), str(piece), found.seed, found.kind, found.what, commit, f"{self._details.name}/{name}")

    def _write(self) -> None:
        self._file.state.soaked_s = self._soaked_before + time.monotonic() - self._began
        self._file.write()
        temporary = self._report_path.with_name(self._report_path.name + ".tmp")
        temporary.write_text(report(self._file.state))
        temporary.replace(self._report_path)


def _overloaded() -> bool:
    """Whether real nodes would starve: then seeds are run, which do not care, until it is over."""
    return os.getloadavg()[0] / len(os.sched_getaffinity(0)) > LOAD_MAX


def _lines(value: object) -> list[str]:
    if isinstance(value, str):
        return value.splitlines()
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return value
    return json.dumps(value, indent=1, default=str).splitlines()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
