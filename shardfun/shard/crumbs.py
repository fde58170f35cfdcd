"""The file that a shard process in careful mode leaves its breadcrumbs in, mapped into memory."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import structlog

from shardfun.model.crumbs import TABLE_BYTES, CrumbTable
from shardfun.model.exits import crumbs_name

FILE_MODE = 0o600

log = structlog.get_logger("shardfun.shard")


def open_crumbs(folder: Path, pid: int | None = None) -> CrumbTable:
    """A table in a new file for a process, by default this one. Without room for it the table is in memory only, where nobody will read it."""
    path = folder / crumbs_name(os.getpid() if pid is None else pid)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            os.posix_fallocate(descriptor, 0, TABLE_BYTES)  # a full disk would show as SIGBUS later
            return CrumbTable(mmap.mmap(descriptor, TABLE_BYTES))
        finally:
            os.close(descriptor)
    except OSError as error:
        path.unlink(missing_ok=True)
        log.warning("no breadcrumbs: a message that kills this process again cannot be found", error=str(error))
        return CrumbTable(bytearray(TABLE_BYTES))
