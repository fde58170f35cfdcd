"""Entry of a shard process; started by the supervisor only.

The first line of standard input is the bootstrap (hex of CBOR): configuration and control address. Standard input stays open
as the lifeline: its end of file means that the supervisor is gone.
"""

from __future__ import annotations

from shardfun.telemetry import structlog_alone  # noqa: F401

# isort: split
import os
import sys
from pathlib import Path
from typing import Any

import cbor2
import msgspec
import structlog
import trio

from shardfun.config.schema import Config
from shardfun.errors import CorruptionError, ShardfunError, StorageError
from shardfun.mesh.channel import Channel
from shardfun.mesh.fabric import Endpoint
from shardfun.model.control import Fatal, Heartbeat, Warm, encode_control
from shardfun.model.exits import EXIT_BUG, EXIT_STORAGE
from shardfun.sdk.importing import import_app
from shardfun.sdk.launch import Launch, prepare
from shardfun.shard.heartbeat import start_heartbeat
from shardfun.shard.machine import end_process
from shardfun.shard.process import LAST_WORDS_S, ShardProcess
from shardfun.shard.program import Application
from shardfun.telemetry.logs import configure_logging

CONTROL_BUFFER_FRAMES = 256
BOOTSTRAP_BYTES_MAX = 4 << 20

log = structlog.get_logger("shardfun.shard")


def main() -> int:
    """Run a shard process; returns its exit code."""
    bootstrap = _read_bootstrap()
    configure_logging(level=bootstrap["log_level"], json=True, stream=sys.stderr)
    control = Channel(CONTROL_BUFFER_FRAMES, lambda: None)
    control.dial(bootstrap["control"])
    try:
        prepare(msgspec.convert(bootstrap["launch"], Launch))
        config = Config.from_dict(bootstrap["config"])
        application = Application(config, import_app(config.app))
    except ShardfunError as error:
        return _last_words(control, error)
    endpoint = Endpoint(config.mesh.transport, config.mesh.host, Path(bootstrap["runtime_dir"]), config.mesh.buffer_frames)
    process = ShardProcess(application, control, endpoint)
    process.send(Warm(os.getpid()))
    start_heartbeat(
        config.supervision.heartbeat_interval_s,
        process.sample,
        lambda beat: _send_beat(control, beat),
    )
    return _run(process)


def _send_beat(control: Channel, beat: Heartbeat) -> None:
    """From the heartbeat's thread (nng is thread safe). Without room it is dropped; the next one says the same."""
    control.send(encode_control(beat))


def _run(process: ShardProcess) -> int:
    try:
        trio.run(process.run)
    except BaseException as error:
        # whatever it is, the process ends, and recovery brings the shard back
        cause = _first(error)
        log.exception("shard process failed", error=f"{type(cause).__name__}: {cause}", exc_info=cause)
        return EXIT_STORAGE if isinstance(cause, (CorruptionError, StorageError)) else EXIT_BUG
    return 0


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _last_words(control: Channel, error: ShardfunError) -> int:
    """Tell the supervisor why this process cannot serve, and give the message time to arrive."""
    import time

    message = encode_control(Fatal(error.code, error.exit_code, str(error), repr(error.__cause__ or "")))
    deadline = time.monotonic() + LAST_WORDS_S
    while not control.send(message) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(LAST_WORDS_S)
    return error.exit_code


def _read_bootstrap() -> dict[str, Any]:
    line = b""
    while not line.endswith(b"\n") and len(line) < BOOTSTRAP_BYTES_MAX:
        chunk = os.read(0, 65536)
        if not chunk:
            sys.exit("shardfun.shard is started by the supervisor; use 'shardfun run CONFIG'")
        line += chunk
    found = cbor2.loads(bytes.fromhex(line.decode()))
    assert isinstance(found, dict)
    return found


if __name__ == "__main__":
    end_process(main())
