"""Runs a piece in a process of its own, and brings home what it says."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from soaking.state import Found, Piece, Result

LETTING_GO_S = 20.0
LOG_LENGTH = 20_000
PATIENCE_WHEN_NICE = 10
"""So many times the time may a piece take that leaves the processor to all others: what is starved does not hang."""

Process = subprocess.Popen[bytes]


def perform(
    piece: Piece, root: Path, limit_s: float, known: Callable[[Process], AbstractContextManager[None]] = contextlib.nullcontext
) -> tuple[Result, str]:
    """Run a piece from a repository; its result, and the end of what it wrote to its error output.

    Args:
        limit_s: a piece that takes longer hangs, and is ended. That is a violation, as is an end without a result. Nice ones may take longer.
        known: entered while the process lives.
    """
    # The tool of that repository does it, so that it fits the rest there.
    limit_s *= PATIENCE_WHEN_NICE if os.nice(0) > 0 else 1
    command = [sys.executable, str(root / "tools" / "soak"), "--piece", msgspec.json.encode(piece).decode()]
    environment = os.environ | {"PYTHONPATH": str(root), "PYTHONHASHSEED": str(piece.first)}
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as out:
        with (
            subprocess.Popen(
                command,
                cwd=root,
                env=environment,
                stdin=subprocess.PIPE,  # when it ends, the piece does
                stdout=out,
                stderr=errors,
                start_new_session=True,
            ) as process,
            known(process),
        ):
            hangs = not _ends(process, limit_s)
        out.seek(0)
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - LOG_LENGTH))
        printed, log = out.read(), errors.read().decode(errors="replace")
    if hangs:
        return Result(0, violations=(Found(piece.first, "hangs", f"took more than {limit_s:g} s"),)), log
    try:
        return msgspec.json.decode(printed, type=Result), log
    except msgspec.DecodeError:
        what = f"exit code {process.returncode} without a result: {log.strip().rpartition(chr(10))[2]}"
        return Result(0, violations=(Found(piece.first, "ends", what),)), log


def _ends(process: Process, limit_s: float) -> bool:
    """Whether it ends by itself in time. Otherwise it is made to."""
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        assert process.stdin is not None
        process.stdin.close()  # the piece notices, and ends what it started
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LETTING_GO_S)
        process.kill()
        return False
    return True
