"""One piece of work, in a process of its own, from the repository that the tool lies in: seeds, a chaos run, or rounds of shells.

The process ends when its standard input does: so nothing is left at work when the soak that started it is killed.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from soaking.state import Found, Piece, Result

GC_THRESHOLD = 100_000
"""Worlds are small and short-lived: looking for cycles often costs a fifth of the time."""

LETTING_GO_S = 15.0
"""After the end of the soak a piece has so long to end what it started."""

KILLS = 15
"""Of shards in a chaos run; other faults follow from it."""

LOAD_MAX = 3.0
"""Processes that want to run, for each core: with more, real nodes starve, and what takes too long proves nothing."""

TOO_LONG = re.compile("within [0-9.]+ s")

CHAOS_APPS = ("flights", "bank", "strict bank", "trees")
CHAOS_SHARDS = (1, 2, 3, 4, 5, 6)
SHELLS = Path("tests", "shells", "shell_faults.py")
"""What draws the rounds of drivers and supervisor under virtual time."""

SHELLS_RECORDS = 150


def chaos_piece(number: int) -> Piece:
    """The chaos run with this number: all applications with all numbers of shards, one after the other, mixed."""
    chosen = number * 7 % (len(CHAOS_APPS) * len(CHAOS_SHARDS))
    app, shards = CHAOS_APPS[chosen % len(CHAOS_APPS)], CHAOS_SHARDS[chosen // len(CHAOS_APPS)]
    return Piece("chaos", number, 1, app, shards)


def work(text: str) -> int:
    """Do a piece (JSON) and print its result; returns the exit code."""
    piece = msgspec.json.decode(text, type=Piece)
    be_as_nice_as_a_session()
    _end_with_the_soak()
    match piece.kind:
        case "seeds":
            result = _seeds(piece)
        case "chaos":
            result = _chaos(piece)
        case "shells":
            result = _shells(piece)
        case _:
            raise ValueError(f"{piece.kind}: expected seeds, chaos or shells")
    sys.stdout.buffer.write(msgspec.json.encode(result) + b"\n")
    return 0


def be_as_nice_as_a_session() -> None:
    """Where Linux shares the processor among sessions, niceness counts inside one only: the own session becomes as nice as this process."""
    with contextlib.suppress(OSError):  # another kernel
        Path("/proc/self/autogroup").write_text(str(os.nice(0)))


def _end_with_the_soak() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a soak in the background of a shell inherits that it is ignored

    def watch() -> None:
        # Not sys.stdin: its lock would be held while the interpreter ends.
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGINT)  # so that what was started is ended
        time.sleep(LETTING_GO_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="soak").start()


# ---- the simulator -------------------------------------------------------------------------------------------------------
def _seeds(piece: Piece) -> Result:
    from shardfun.cli.main import main

    gc.set_threshold(GC_THRESHOLD)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main(["simulate", "--seeds", f"{piece.first}:{piece.first + piece.count - 1}", "--jobs", "1", "--json"])
    report = json.loads(out.getvalue())
    found = tuple(
        Found(
            finding["seed"],
            finding["kind"],
            finding["what"],
            {name: value for name, value in finding.items() if name not in {"seed", "kind", "what"}},
        )
        for finding in report["findings"]
    )
    return Result(report["seeds"], _numbers(report["figures"]), found)


def _numbers(figures: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if isinstance(value, int | float)}


# ---- chaos ---------------------------------------------------------------------------------------------------------------
def _chaos(piece: Piece) -> Result:
    from shardfun.chaos import Counts, InconclusiveError
    from shardfun.chaos.jobs import run_job

    try:
        report = run_job(piece.app, seed=piece.first, shards=piece.shards, counts=Counts.of(kills=KILLS))
    except InconclusiveError as error:
        return Result(1, inconclusive=1, doubts=(Found(piece.first, "inconclusive", str(error)),))
    said = report.as_dict()
    figures = {f"faults_{kind}": count for kind, count in said["faults"].items()}
    figures |= {"sigkills": report.sigkills, "recoveries": len(report.recoveries_ms), "during_recovery": report.during_recovery}
    times = tuple(report.recoveries_ms)
    if not report.differences:
        return Result(1, figures, recoveries_ms=times)
    details = {"differences": report.differences, "timeline": report.lines(), "report": said}
    return _judged(Found(piece.first, "difference", "; ".join(report.differences[:3]), details), figures, times)


def _judged(found: Found, figures: dict[str, float], times: tuple[float, ...]) -> Result:
    """A difference is a violation. That something took too long is none if the machine had no time for it."""
    load = os.getloadavg()[0] / len(os.sched_getaffinity(0))
    if load > LOAD_MAX and TOO_LONG.search(found.what):
        doubt = msgspec.structs.replace(found, kind="inconclusive", what=f"with {load:.1f} processes per core: {found.what}")
        return Result(1, figures, inconclusive=1, doubts=(doubt,), recoveries_ms=times)
    return Result(1, figures, (found,), recoveries_ms=times)


# ---- shells --------------------------------------------------------------------------------------------------------------
def _shells(piece: Piece) -> Result:
    root = Path(__file__).resolve().parents[2]
    if not (root / SHELLS).exists():
        return Result(0)
    sys.path[:0] = [str(root / SHELLS.parent), str(root / "tests" / "support")]
    from shell_app import adds  # type: ignore[import-not-found]
    from shell_faults import drawn, together  # type: ignore[import-not-found]
    from shell_jobs import bank  # type: ignore[import-not-found]
    from shell_world import Violation, run_world  # type: ignore[import-not-found]

    figures = {"virtual_s": 0.0, "faults": 0.0}
    found = []
    for seed in range(piece.first, piece.first + piece.count):
        options, kinds = drawn(seed)
        job = bank(SHELLS_RECORDS) if seed % 4 == 0 else adds(SHELLS_RECORDS)
        try:
            outcome = run_world(seed, job, options, together(*kinds))
        except Violation as violation:
            text = str(violation)
            found.append(Found(seed, "shells", text.rpartition("\n")[2], {"trace": text.splitlines()}))
            continue
        figures["virtual_s"] += outcome.virtual_s
        figures["faults"] += outcome.world.faults.total()
    return Result(piece.count, figures, tuple(found))
