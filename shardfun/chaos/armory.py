"""The runner's side of failpoints: the folder, arming a point while the node runs, and seeing who has taken it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from shardfun.failpoints import FOLDER_MODE, FULL, MARK, Action, Point, taken_name


class Armory:
    """A folder for one node. Its processes get it by the environment (``shardfun.failpoints.ENVIRONMENT``)."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=FOLDER_MODE, parents=True)
        folder.chmod(FOLDER_MODE)  # whatever the umask says
        (folder / MARK).touch()
        self.folder = folder
        self._serial = 0

    def arm(self, point: Point, action: Action, passes: int) -> str:
        """The next process that reaches the point shall do that; returns the order's serial number."""
        self._serial += 1
        temporary = self.folder / "being-armed"
        temporary.write_text(f"{action} {self._serial} {passes}")
        temporary.rename(self.folder / point)
        return str(self._serial)

    def taken_by(self, point: Point, serial: str) -> int | None:
        """The process that has obeyed an order; ``None``: none yet."""
        names = [path.name for path in self.folder.glob(taken_name(point, serial, 0).removesuffix("0") + "*")]
        return int(names[0].rpartition(".")[2]) if names else None

    def disarm(self, point: Point, serial: str) -> int | None:
        """Take an order back; the process that was faster, if one was."""
        with suppress(FileNotFoundError):
            (self.folder / point).unlink()
        return self.taken_by(point, serial)

    # ---- full disk -------------------------------------------------------------------------------------------------------
    def fill(self) -> None:
        """From now on nobody can write."""
        (self.folder / FULL).touch()

    def free(self) -> None:
        """There is room again."""
        (self.folder / FULL).unlink()
