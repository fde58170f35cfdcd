"""Where log lines go: a stream, or a file that is rotated by size.

Writing a log line never fails: a full disk or a reader that went away must not end an invocation, let alone a shard. What
could not be written is counted, and said as soon as writing works again. Knows nothing of what a line contains.
"""

from __future__ import annotations

import os
from pathlib import Path
from threading import Lock
from typing import Final, TextIO

from shardfun.errors import ConfigurationError

LOG_FILE_BYTES_MAX: Final = 64 << 20
"""A log file that would grow beyond this becomes ``<name>.1``; that one becomes ``<name>.2``, and so on."""

LOG_FILES_KEPT: Final = 3
"""Rotated files that are kept beside the current one."""

_MODE: Final = 0o600


class LogStream:
    """Lines to an open stream, usually standard error; not closed here."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = Lock()
        self.lost = 0

    def write_line(self, line: str) -> None:
        """Write a line; lost, and counted, if the stream refuses."""
        with self._lock:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):  # ValueError: closed, or a character its encoding does not have
                self.lost += 1


class LogFile:
    """Lines appended to a file that only its owner may read.

    Args:
        path: created, with its folder, if it is missing.
        bytes_max: size at which it is rotated.

    Raises:
        ConfigurationError: it cannot be opened for writing.
    """

    def __init__(self, path: Path, *, bytes_max: int = LOG_FILE_BYTES_MAX) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._lock = Lock()
        self._descriptor = -1
        self._size = 0
        self.lost = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            raise ConfigurationError(f"log.file: expected a file that can be written, {path}: {error.strerror}") from error

    def write_line(self, line: str) -> None:
        """Append a line; lost, and counted, if the disk refuses."""
        data = line.encode(errors="backslashreplace") + b"\n"
        with self._lock:
            try:
                if self._size and self._size + len(data) > self._bytes_max:
                    self._rotate()
                if self._descriptor < 0:
                    self._open()
                self._size += os.write(self._descriptor, data)
            except OSError:
                self.lost += 1

    def close(self) -> None:
        """Release the file. Safe to call twice; a later line opens it again."""
        with self._lock:
            self._release()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, _MODE)
        self._size = os.fstat(self._descriptor).st_size

    def _release(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _rotate(self) -> None:
        self._release()
        for number in range(LOG_FILES_KEPT - 1, 0, -1):
            if self._numbered(number).exists():
                self._numbered(number).replace(self._numbered(number + 1))
        self._path.replace(self._numbered(1))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")
