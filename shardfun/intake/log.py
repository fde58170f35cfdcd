"""The writer of an intake log: appends groups of entries durably, and finds its place again after any death.

One writer at a time holds the lock on the mark. An append is one write, one fsync and then the mark, however many callers wait for
it. Readers never look beyond the mark, so they never see what is not durable.

After a write or an fsync that failed nothing more is written to that file: what was synced stays in it, the rest of the log goes
into a new one. When a log is opened, what was written behind the mark and never acknowledged (or acknowledged, and the mark was
lost with the power) is kept as far as it is whole, as a new file that is synced: the old one's fsync may have failed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from shardfun.errors import CorruptionError, DirectoryInUseError, StorageError
from shardfun.intake.log_disk import REAL_LOG_DISK, LogDisk
from shardfun.intake.log_files import (
    CONTENT_BYTES_MAX,
    GROUP_BYTES,
    HEAD,
    NO_MARK,
    Mark,
    damaged,
    frame,
    group_behind,
    group_frame,
    load_mark,
    read_mark,
    read_range,
    segment_path,
    segments,
    whole_frames,
    write_all_at,
    write_mark,
)
from shardfun.state.files import (
    durable_file,
    file_bytes,
    make_directory,
    remove_temporaries,
    storage_error,
    sync_directory,
)

SEGMENT_BYTES: Final = 16 << 20
"""A segment that is longer gets no more groups."""

DURABLE: Final = "durable"
CONSUMED: Final = "consumed"


def log_exists(folder: Path, disk: LogDisk = REAL_LOG_DISK) -> bool:
    """Whether there is a log.

    Raises:
        StorageError: nobody can say.
    """
    path = folder / DURABLE
    try:
        return disk.exists(path)
    except OSError as error:
        raise storage_error("read", path, error) from error


def frame_bytes(content: bytes) -> int:
    """What an entry takes in the log."""
    return HEAD.size + len(content)


class LogWriter:
    """The log of one owner. Blocks on the disk: for one worker thread.

    Args:
        folder: of the log; made by ``open``.
        segment_bytes: after which a new file begins.
    """

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES, disk: LogDisk = REAL_LOG_DISK) -> None:
        self.folder = folder
        self.durable = 0
        """Up to here everything is on the disk."""
        self._segment_bytes = segment_bytes
        self._disk = disk
        self._mark: int | None = None
        self._file: int | None = None
        self._start = 0

    # ---- opening --------------------------------------------------------------------------------------------------------
    def open(self) -> None:
        """Lock the log, cut off what is torn at its end, and announce what is whole.

        Raises:
            DirectoryInUseError: another process writes it.
            CorruptionError: something that was durable is damaged or missing.
            StorageError: it cannot be read or written.
        """
        assert self._mark is None, "the log is open already"
        make_directory(self.folder, self._disk)
        path = self.folder / DURABLE
        try:
            self._mark = self._disk.open(path, write=True, create=True)
            self._disk.lock(self._mark)
            mark = read_mark(self._mark, self._disk) or NO_MARK
        except BlockingIOError as error:
            self.close()
            raise DirectoryInUseError(f"{self.folder}: another process writes this intake log", errno=error.errno) from error
        except OSError as error:
            self.close()
            raise storage_error("lock", path, error) from error
        try:
            remove_temporaries(self.folder, self._disk)
            self._recover(mark)
            self._announce(sync=True)
            sync_directory(self.folder, self._disk)
        except StorageError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise storage_error("write", path, error) from error

    def _recover(self, mark: Mark) -> None:
        starts = segments(self.folder, self._disk)
        if not starts:
            if mark.offset:
                raise CorruptionError(
                    f"{self.folder}: the log has {mark.offset} bytes by its mark, and its files are missing; restore them from a backup, "
                    "or start afresh with --fresh"
                )
            return
        for start, following in itertools.pairwise(starts):
            path = segment_path(self.folder, start)
            if file_bytes(path, self._disk) < following - start:
                raise damaged(path, file_bytes(path, self._disk))
        last = starts[-1]
        path = segment_path(self.folder, last)
        content = read_range(path, 0, file_bytes(path, self._disk), self._disk)
        _, end = whole_frames(content, last)
        consumed = load_mark(self.folder / CONSUMED, self._disk) or NO_MARK  # what was read was durable
        synced = max(mark.offset, consumed.offset, last)
        if end < synced or group_behind(content, end - last, last) is not None:
            raise damaged(path, end - last)
        self.durable = end
        if end == synced:
            self._continue(path, last, len(content))
        else:
            self._move(path, last, synced, content[synced - last : end - last])

    def _continue(self, path: Path, start: int, size: int) -> None:
        """Go on in the last segment."""
        try:
            self._file = self._disk.open(path, write=True)
            self._start = start
            if size > self.durable - start:
                self._disk.truncate(self._file, self.durable - start)
                self._disk.fsync(self._file)
        except OSError as error:
            raise storage_error("cut", path, error) from error

    def _move(self, path: Path, start: int, synced: int, tail: bytes) -> None:
        """Write what is whole behind the mark into a file of its own, which may replace the last one."""
        moved = segment_path(self.folder, synced)
        with durable_file(moved, disk=self._disk) as write:
            write(tail)
        try:
            if synced > start:
                old = self._disk.open(path, write=True)
                try:
                    self._disk.truncate(old, synced - start)
                finally:
                    self._disk.close(old)
            self._file = self._disk.open(moved, write=True)
        except OSError as error:
            raise storage_error("cut", path, error) from error
        self._start = synced

    # ---- writing --------------------------------------------------------------------------------------------------------
    def append(self, entries: Sequence[tuple[int, bytes]]) -> int:
        """Append entries ``(slot, content)`` and return the offset behind them. They are durable then, and readers may see them.

        Raises:
            StorageError: none of them is in the log: the disk is full or failed. It may be tried again.
        """
        assert self._mark is not None, "open() comes first"
        offset = self.durable
        parts = [group_frame(offset)]
        offset += GROUP_BYTES
        for slot, content in entries:
            assert 0 < len(content) <= CONTENT_BYTES_MAX
            parts.append(frame(offset, slot, content))
            offset += frame_bytes(content)
        try:
            file = self._file_for_more()
            write_all_at(self._disk, file, b"".join(parts), self.durable - self._start)
            self._disk.sync_data(file)
            write_mark(self._mark, Mark(offset, self._start), self._disk)
        except OSError as error:
            path = segment_path(self.folder, self.durable if self._file is None else self._start)
            self._give_up_file()
            raise storage_error("append", path, error) from error
        self.durable = offset
        return offset

    def _file_for_more(self) -> int:
        if self._file is not None and self.durable - self._start >= self._segment_bytes:
            self._disk.close(self._file)
            self._file = None
        if self._file is None:
            path = segment_path(self.folder, self.durable)
            with suppress(FileNotFoundError):
                self._disk.unlink(path)  # of this name only if its first write failed: nothing in it was ever announced
            self._file = self._disk.create(path)
            self._start = self.durable
            self._disk.sync_folder(self.folder)
            self._announce(sync=True)
        return self._file

    def _give_up_file(self) -> None:
        """Something failed: what is behind the mark is cut off, or will be where the next segment begins."""
        if self._file is None:
            return
        with suppress(OSError):
            self._disk.truncate(self._file, self.durable - self._start)
            self._disk.fsync(self._file)  # else it might be back after a power cut
        self._disk.close(self._file)
        self._file = None

    def _announce(self, *, sync: bool) -> None:
        assert self._mark is not None
        write_mark(self._mark, Mark(self.durable, self._start), self._disk)
        if sync:  # now and then, so that a power cut finds it not far behind
            self._disk.sync_data(self._mark)

    def close(self) -> None:
        """Give everything up. Safe to call twice."""
        if self._mark is not None:
            with suppress(OSError):
                self._disk.sync_data(self._mark)
            with suppress(OSError):
                self._disk.unlock(self._mark)  # a process forked meanwhile has the same lock, and would keep it
            self._disk.close(self._mark)
            self._mark = None
        if self._file is not None:
            self._disk.close(self._file)
            self._file = None
