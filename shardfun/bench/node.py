"""A node under measurement: a node's supervisor in this process, real shard processes, a folder that is removed afterwards."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import trio

from shardfun.config.loader import config_from_mapping
from shardfun.supervisor import Node

POLL_S = 0.005
START_TIMEOUT_S = 60.0


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for one benchmark."""
    folder = Path(tempfile.mkdtemp(prefix="shardfun-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def measured_node(settings: dict[str, Any], folder: Path) -> AsyncIterator[Node]:
    """Run a node with ``settings`` on ``folder/data`` until the block ends, then kill it.

    Raises:
        ShardfunError: the node failed.
    """
    config = config_from_mapping({**settings, "data_dir": str(folder / "data")}, name="bench", directory=folder)
    supervisor = Node(config)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        with trio.fail_after(START_TIMEOUT_S):
            while supervisor.status().state != "running":  # noqa: ASYNC110 - a supervisor has a status, not an event
                await trio.sleep(POLL_S)
        yield supervisor
        supervisor.stop_now()
