"""What the supervisor writes durably: jobs in order, in a thread, and the content of a manifest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import trio

from shardfun.core.coordinator import WriteManifest
from shardfun.errors import ShardfunError
from shardfun.intake.entries import is_internal
from shardfun.ports import RunInThread
from shardfun.state.manifest import MANIFEST_FORMAT, Manifest, ShardDelta
from shardfun.supervisor.machine import run_in_thread
from shardfun.telemetry.node_log import NodeLog

JOBS_MAX = 100
FULL_RETRY_S = 1.0

log = NodeLog("shardfun.supervisor")


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[], Any]
    done: Callable[[Any], None]


class Disk:
    """One job after the other. An error is fail-stop: whether a manifest is durable is only known after a restart.

    Except for a full disk: then a job is done again until there is room, as a whole and with the same content.

    Args:
        failed: called once, with the error; nothing is done afterwards.
    """

    def __init__(self, failed: Callable[[ShardfunError], None], run_in_thread: RunInThread = run_in_thread) -> None:
        self._run_in_thread = run_in_thread
        self._failed = failed
        self._send, self._receive = trio.open_memory_channel[_Job](JOBS_MAX)

    def submit(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Queue a job; ``done`` gets its result on the loop."""
        self._send.send_nowait(_Job(work, done))

    async def run(self) -> None:
        """Work until cancelled or failed."""
        async for job in self._receive:
            while True:
                try:
                    result = await self._run_in_thread(job.work)
                    break
                except ShardfunError as error:
                    if not error.disk_full:
                        self._failed(error)
                        return
                    log.warning("disk full, waiting for space", error=str(error))
                    await trio.sleep(FULL_RETRY_S)
            job.done(result)


def manifest_of(effect: WriteManifest, job: str, incarnation: int, ingresses: Iterable[str]) -> Manifest:
    """The manifest that a decision wants written, with the positions of all readers for people to see."""
    return Manifest(
        format=MANIFEST_FORMAT,
        job=job,
        checkpoint=effect.checkpoint,
        parent=effect.parent,
        incarnation=incarnation,
        created_at=time.time(),
        shards=[ShardDelta(shard, part.digest, part.size_bytes, part.records) for shard, part in enumerate(effect.parts)],
        end_sent=effect.end,
        ingress={
            name: [part.positions.get(name) for part in effect.parts]
            for name in dict.fromkeys([*ingresses, *(name for part in effect.parts for name in part.positions)])
            if not is_internal(name) or any(part.positions.get(name) for part in effect.parts)
        },
    )
