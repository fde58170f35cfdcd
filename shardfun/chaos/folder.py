"""Where a trial leaves what it has: a folder of the caller, or a temporary one, which goes away if there is nothing to look at."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shardfun.chaos.report import Report
from shardfun.errors import ConfigurationError, InconclusiveError

PREFIX: Final = "shardfun-chaos-"
CALM: Final = "calm"
CHAOS: Final = "chaos"
AGAIN: Final = "again"
"""Folders of the runs of a trial: undisturbed, under faults, undisturbed once more."""
RUNS: Final = (CALM, CHAOS, AGAIN)


@dataclass(slots=True)
class TrialFolder:
    """One folder.

    Args:
        kept: stays after the trial.
    """

    path: Path
    kept: bool

    def settle(self, report: Report) -> None:
        """Stay if something differs, and say in the report where that is."""
        self.kept |= bool(report.differences)
        report.folder = str(self.path) if self.kept else ""


@contextmanager
def trial_folder(folder: Path | None, *, keep: bool = False) -> Iterator[TrialFolder]:
    """For one trial.

    After an error a temporary folder stays if there was a run and either that is wanted or the error is a finding: not if the run
    just showed nothing. A note of the error says where it is.

    Args:
        folder: the caller's own, which always stays; ``None``: a temporary one.
        keep: even if nothing differs.

    Raises:
        ConfigurationError: the folder has the results of another trial.
    """
    if folder is not None:
        there = [name for name in RUNS if (folder / name).exists()]
        if there:
            raise ConfigurationError(f"folder {folder}: expected one without results of another trial, but it has {there[0]!r}")
        folder.mkdir(parents=True, exist_ok=True)
        yield TrialFolder(folder.absolute(), kept=True)
        return
    place = TrialFolder(Path(tempfile.mkdtemp(prefix=PREFIX)), kept=keep)
    try:
        yield place
    except BaseException as error:
        ran = any((place.path / name).exists() for name in RUNS)
        place.kept = ran and (keep or not isinstance(error, (InconclusiveError, KeyboardInterrupt)))
        if place.kept:
            error.add_note(f"kept: {place.path}")
        raise
    finally:
        if not place.kept:
            shutil.rmtree(place.path, ignore_errors=True)
