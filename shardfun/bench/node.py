"""A node under measurement: a Supervisor in this process, real shard processes, a data directory that is removed afterwards."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from shardfun.config.loader import config_from_mapping
from shardfun.supervisor import Supervisor

POLL_S = 0.005
START_TIMEOUT_S = 60.0


@asynccontextmanager
async def measured_node(settings: dict[str, Any]) -> AsyncIterator[Supervisor]:
    """Run a node with ``settings`` until the block ends, then kill it.

    Raises:
        ShardfunError: the node failed.
    """
    folder = Path(tempfile.mkdtemp(prefix="shardfun-bench-"))
    try:
        config = config_from_mapping({**settings, "data_dir": str(folder / "data")}, name="bench", directory=folder)
        supervisor = Supervisor(config)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.run)
            with trio.fail_after(START_TIMEOUT_S):
                while supervisor.status().state != "running":
                    await trio.sleep(POLL_S)
            yield supervisor
            supervisor.stop_now()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
