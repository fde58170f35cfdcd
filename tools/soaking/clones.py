"""Where pieces run: this repository as it is, or a clone of another one that follows it commit by commit.

A clone is made for each commit that is used. So a commit never changes under a piece that runs, and pieces of two commits may run
at once. A new commit is used when its quick check passes; otherwise the soak stays with the one before.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from soaking.running import perform
from soaking.state import Piece

CHECK_S = 300.0
CHECK_PIECE = Piece("seeds", 1, 2)
WHY_LENGTH = 500


class Here:
    """The repository that the tool lies in."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def current(self) -> tuple[Path, str]:
        """Where the next piece runs, and the commit, with a sign if files were changed since."""
        commit = _git(self._root, "rev-parse", "--short=10", "HEAD")
        changed = _git(self._root, "status", "--porcelain", "--untracked-files=no")
        return self._root, commit + ("+changes" if changed else "")

    def refresh(self) -> str | None:
        """There is nothing to follow."""
        return None


class Following:
    """Clones of a repository.

    Args:
        source: the repository; ``folder``: of the clones.
        every_s: look for a new commit at most so often.

    Raises:
        RuntimeError: the first commit does not pass the quick check, or git fails.
    """

    def __init__(self, source: Path, folder: Path, every_s: float) -> None:
        self._source = source
        self._folder = folder
        self._every_s = every_s
        self._commit = ""
        self._refused: set[str] = set()
        self._looked_at = time.monotonic() - every_s
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if (why := self.refresh()) is not None:
            raise RuntimeError(why)

    def current(self) -> tuple[Path, str]:
        """Where the next piece runs, and the commit. May be called while another thread is in ``refresh``."""
        commit = self._commit
        return self._folder / commit, commit

    def refresh(self) -> str | None:
        """Go on to a new commit, if it is time and there is one; why it was refused, if it was. That may take minutes.

        Raises:
            RuntimeError: git fails.
        """
        if time.monotonic() - self._looked_at < self._every_s:
            return None
        self._looked_at = time.monotonic()
        commit = _git(self._source, "rev-parse", "--short=10", "HEAD")
        if commit == self._commit or commit in self._refused:
            return None
        clone = self._folder / commit
        _git(self._folder, "clone", "-q", str(self._source), str(clone))
        _git(clone, "checkout", "-q", commit)
        why = quick_check(clone)
        if why is not None:
            self._refused.add(commit)
            shutil.rmtree(clone)
            return f"{commit}: {why}"
        self._commit = commit
        return None

    def remove_others(self, in_use: set[str]) -> None:
        """Remove the clones of commits that no piece uses any more."""
        for clone in self._folder.iterdir():
            if clone.name not in in_use | {self._commit}:
                shutil.rmtree(clone, ignore_errors=True)


def quick_check(root: Path) -> str | None:
    """Whether two seeds pass; what went wrong otherwise."""
    result, log = perform(CHECK_PIECE, root, CHECK_S)
    if result.violations:
        return f"{'; '.join(found.what for found in result.violations)}\n{log}"[:WHY_LENGTH]
    return None


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    except subprocess.CalledProcessError as error:
        msg = f"{folder}: git {' '.join(arguments)}: {error.stderr.strip() or error}"
        raise RuntimeError(msg) from error
    except OSError as error:
        msg = f"{folder}: git {' '.join(arguments)}: {error}"
        raise RuntimeError(msg) from error
    return done.stdout.strip()
