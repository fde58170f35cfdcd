"""Entry of the door's process; started by the supervisor only.

The first line of standard input is the bootstrap (hex of CBOR). Standard input stays open as the lifeline: its end of file means
that the supervisor is gone, and then the door ends, too. The listening socket is inherited.
"""

from __future__ import annotations

from shardfun.telemetry import structlog_alone  # noqa: F401

# isort: split
import functools
import gc
import os
import signal
import sys
from typing import NoReturn

import cbor2
import msgspec
import structlog
import trio

from shardfun.config.schema import Config
from shardfun.door.process import Bootstrap, run_door
from shardfun.errors import ShardfunError
from shardfun.model.exits import EXIT_BUG
from shardfun.sdk.importing import import_app
from shardfun.sdk.launch import Launch, prepare
from shardfun.telemetry.logs import configure_logging

BOOTSTRAP_BYTES_MAX = 4 << 20
GC_THRESHOLD = 20_000
SWITCH_S = 0.0005

log = structlog.get_logger("shardfun.door")


def main() -> int:
    """Run the door; returns its exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the supervisor decides what it means
    bootstrap = _read_bootstrap()
    configure_logging(level=bootstrap.log_level, json=True, stream=sys.stderr)
    try:
        prepare(msgspec.convert(bootstrap.launch, Launch))
        config = Config.from_dict(bootstrap.config)
        app = import_app(config.app)
        _tune()
        trio.run(functools.partial(run_door, bootstrap, config, app))
    except BaseException as error:
        # whatever it is, the process ends, and the supervisor starts another one
        cause = _first(error)
        if isinstance(cause, ShardfunError):
            log.error("the HTTP door cannot work", error=str(cause), code=cause.code)  # noqa: TRY400 - it says all there is to say
            return cause.exit_code
        log.exception("the HTTP door failed", error=f"{type(cause).__name__}: {cause}", exc_info=cause)
        return EXIT_BUG
    return 0


def _tune() -> None:
    """What was imported stays, and requests make garbage that needs no collector. The intake's thread gets its turn soon."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 20)
    sys.setswitchinterval(SWITCH_S)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _read_bootstrap() -> Bootstrap:
    line = b""
    while not line.endswith(b"\n") and len(line) < BOOTSTRAP_BYTES_MAX:
        chunk = os.read(0, 65536)
        if not chunk:
            sys.exit("shardfun.door is started by the supervisor; configure [http] and use 'shardfun run CONFIG'")
        line += chunk
    return msgspec.convert(cbor2.loads(bytes.fromhex(line.decode())), Bootstrap)


def _end_process(code: int) -> NoReturn:
    """End without waiting for threads: they may be stuck in a disk."""
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _end_process(main())
