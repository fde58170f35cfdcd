"""The exit codes of a shard process that are our own, and known to who reads them."""

from __future__ import annotations

from typing import Final

EXIT_BUG: Final = 70
EXIT_STORAGE: Final = 71
EXIT_THREADS_STUCK: Final = 72
EXIT_SUPERVISOR_GONE: Final = 75
EXPLAINED: Final = frozenset((EXIT_STORAGE, EXIT_SUPERVISOR_GONE, EXIT_THREADS_STUCK))
"""No message can cause these. A bug is another matter: it may show for one message only."""


def crumbs_name(pid: int) -> str:
    """The file of a process's breadcrumbs in the runtime folder."""
    return f"crumbs-{pid}"
