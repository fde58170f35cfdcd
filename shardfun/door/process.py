"""The life of the door's process: from the bootstrap to the end of its lifeline."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Final

import msgspec
import structlog
import trio

from shardfun.config.schema import Config, HttpConfig
from shardfun.door.assembly import assemble
from shardfun.door.connection import Timeouts
from shardfun.door.node import NodeLink
from shardfun.door.server import Server
from shardfun.egress.tail import EgressTail
from shardfun.intake.desk import Intake
from shardfun.intake.entries import HTTP
from shardfun.intake.targets import Targets
from shardfun.mesh.door import open_asker
from shardfun.mesh.listening import read_token, tls_context
from shardfun.sdk.app import App

GRACE_S: Final = 1.0
"""When the supervisor is gone: time for answers that are being written. What waits for a reply gets none."""
ENTRY_OVERHEAD_BYTES: Final = 64 << 10
"""An entry of the intake log is its message, and names and an id with it."""
ENTRY_GROWTH: Final = 4
"""JSON may become longer as CBOR: ``1e9`` has three characters, and nine bytes."""
LIFELINE: Final = 0

log = structlog.get_logger("shardfun.door")


class Bootstrap(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor tells its door.

    Args:
        url: of the node's question socket.
        listener: the number of the inherited listening socket.
        public: the address that clients use, for the log.
        config: as ``Config.to_dict``; ``launch``: see ``sdk.launch``.
    """

    url: str
    runtime_dir: str
    listener: int
    public: str
    log_level: str
    config: dict[str, object]
    launch: dict[str, object]


async def run_door(bootstrap: Bootstrap, config: Config, app: App) -> None:
    """Serve until the lifeline ends.

    Raises:
        ShardfunError: the door cannot be opened: its files, the intake's log.
    """
    http = config.http
    assert http is not None, "the supervisor starts a door only if [http] is configured"
    token = None if http.token_file is None else read_token(http.token_file)
    tls = None
    if http.tls_certificate is not None and http.tls_key is not None:
        tls = tls_context(http.tls_certificate, http.tls_key)
    intake = _intake(bootstrap, config, http)
    stopping = trio.Event()
    with socket.socket(fileno=bootstrap.listener) as listener, open_asker(bootstrap.url) as asker:

        def make_tail(name: str, after: str | None, start: str) -> EgressTail:
            return EgressTail(
                config.data_dir, name, config.shards, after=after, start="newest" if start == "newest" else "oldest"
            )

        application = assemble(config, Targets.of(app), intake, NodeLink(asker), make_tail, token, stopping)
        timeouts = Timeouts(http.read_timeout_s, http.write_timeout_s, http.keep_alive_s)
        server = Server(application, timeouts, connections=http.connections, tls=tls)
        served = trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(intake.run)
            await nursery.start(_serve, server, listener, served)
            log.info("HTTP door open", url=bootstrap.public, authentication="none" if token is None else "bearer")
            await _end_of_lifeline()
            stopping.set()
            with trio.move_on_after(GRACE_S):
                await server.finish()
                await served.wait()
            nursery.cancel_scope.cancel()


async def _serve(
    server: Server,
    listener: socket.socket,
    served: trio.Event,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    await server.serve(listener, task_status=task_status)
    served.set()


def _intake(bootstrap: Bootstrap, config: Config, http: HttpConfig) -> Intake:
    return Intake(
        HTTP,
        config.data_dir / "intake" / HTTP,
        Path(bootstrap.runtime_dir),
        config.shards,
        backlog_bytes=http.backlog_bytes,
        entry_bytes_max=ENTRY_GROWTH * http.body_bytes + ENTRY_OVERHEAD_BYTES,
    )


async def _end_of_lifeline() -> None:
    """Until standard input ends: the supervisor is gone, or wants the door to end."""
    os.set_blocking(LIFELINE, False)
    while True:
        await trio.lowlevel.wait_readable(LIFELINE)
        try:
            if not os.read(LIFELINE, 4096):
                return
        except BlockingIOError:
            continue
