"""The log of a node's supervisor, which may live in somebody else's program.

The command line sets up structlog for the whole process. A program that embeds a node has its own ideas of logging, which are not
to be touched: there the node's lines are ordinary records of ``logging``, of the logger ``shardfun``, or go to a file of their own.
Which of these holds is a matter of the thread that the node runs in, so it is a context variable.
"""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import structlog

from shardfun.telemetry.files import LogFile
from shardfun.telemetry.redaction import redacted

LOGGER: Final = "shardfun"


class Destination(Protocol):
    """Where lines go instead of to structlog."""

    def write(self, level: int, event: str, fields: dict[str, Any]) -> None:
        """Write one line. ``fields`` may have ``exc_info``, as in ``logging``."""


_destination: Final[ContextVar[Destination | None]] = ContextVar("shardfun_log_destination", default=None)


def log_to(destination: Destination) -> None:
    """Send what this context, and what is started from it, logs of the node to ``destination``."""
    _destination.set(destination)


class ToLogging:
    """Records of the logger ``shardfun``; the program decides what becomes of them."""

    def write(self, level: int, event: str, fields: dict[str, Any]) -> None:
        """As text, ``event key=value``; the fields also as ``record.fields``."""
        logger = logging.getLogger(LOGGER)
        if not logger.isEnabledFor(level):
            return
        error = fields.pop("exc_info", None)
        shown = redacted(fields)
        text = " ".join([event, *(f"{key}={value}" for key, value in shown.items() if key != "timestamp")])
        logger.log(level, "%s", text, exc_info=error, extra={"fields": shown})


class ToFile:
    """Lines of JSON in a file.

    Args:
        level: the least severe that is written.
    """

    def __init__(self, file: LogFile, level: int) -> None:
        self._file = file
        self._level = level

    def write(self, level: int, event: str, fields: dict[str, Any]) -> None:
        """As the command line writes them."""
        if level < self._level:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"timestamp": now, "level": logging.getLevelName(level).lower(), "event": event} | redacted(fields)
        self._file.write_line(json.dumps(line, default=repr))


class NodeLog:
    """A logger with the methods of structlog's that the supervisor uses."""

    def __init__(self, name: str) -> None:
        self._structlog = structlog.get_logger(name)

    def debug(self, event: str, **fields: Any) -> None:
        """Log at this level."""
        self.log(logging.DEBUG, event, **fields)

    def info(self, event: str, **fields: Any) -> None:
        """Log at this level."""
        self.log(logging.INFO, event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log at this level."""
        self.log(logging.WARNING, event, **fields)

    def error(self, event: str, **fields: Any) -> None:
        """Log at this level."""
        self.log(logging.ERROR, event, **fields)

    def log(self, level: int, event: str, **fields: Any) -> None:
        """Log at a level of ``logging``."""
        destination = _destination.get()
        if destination is None:
            self._structlog.log(level, event, **fields)
        else:
            destination.write(level, event, fields)
