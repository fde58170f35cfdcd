"""Structured logs: one event a line, for people on a terminal and as JSON for everything else.

A shard process logs JSON lines to its own standard error, with ``configure_logging(json=True, stream=sys.stderr)``. The
supervisor reads them from the pipe and passes each to ``forward_line``, so that a node has one log in one format, whichever
process a line comes from. Loggers are ``structlog.get_logger()``; the standard library's ``logging`` ends up here too, since
that is what libraries and applications use.
"""

from __future__ import annotations

import json as json_format
import logging
from collections.abc import MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol, TextIO

import msgspec
import structlog

from shardfun.model.delta import checkpoint_name
from shardfun.telemetry.files import LogFile, LogStream
from shardfun.telemetry.node_log import NodeLog
from shardfun.telemetry.redaction import redacted

LEVELS: Final = MappingProxyType(
    {name: getattr(logging, name.upper()) for name in ("debug", "info", "warning", "error", "critical")}
)

FORWARDED_LINE_BYTES_MAX: Final = 256 << 10
"""A longer line of a shard is not parsed but cut, as text."""

FORWARDED_TEXT_MAX: Final = 8 << 10
"""Characters of a text line of a shard that are kept."""

# Parameters of structlog's own methods, and requests to add a traceback of this process, in which nothing was raised.
_NOT_FORWARDED: Final = frozenset(
    {"event", "level", "self", "method_name", "event_kw", "exc_info", "stack_info", "stacklevel", "_record", "_from_structlog"}
)


class _Lines(Protocol):
    lost: int
    """Lines that could not be written since this was last set to 0."""

    def write_line(self, line: str) -> None: ...


@dataclass(slots=True)
class LogContext:
    """What every line of a task and its children carries, when known; its owner changes it as the shard moves on.

    One object that children share, not one context variable per field: a child task has a copy of the variables of the
    moment it was started, and would go on naming an incarnation that is long over.
    """

    shard: int | None = None
    incarnation: int | None = None
    checkpoint: int | None = None


_current: Final[ContextVar[LogContext | None]] = ContextVar("shardfun_log_context", default=None)


def open_log_context(*, shard: int | None = None) -> LogContext:
    """A new context for this task and all that it starts from now on, threads of ``trio.to_thread`` included."""
    context = LogContext(shard=shard)
    _current.set(context)
    return context


def configure_logging(*, level: str, json: bool, file: Path | None = None, stream: TextIO) -> None:
    """Set up logging of the whole process. May be called again.

    Args:
        level: the least severe that is written: debug, info, warning, error or critical.
        json: JSON lines instead of text for people.
        file: write to this file instead of ``stream``; always JSON, mode 0600, rotated by size.
        stream: where lines go; coloured if it is a terminal.

    Raises:
        ConfigurationError: ``file`` cannot be opened.
    """
    lines: _Lines = LogStream(stream) if file is None else LogFile(file)
    renderer: Any = _render_json
    if not json and file is None:
        # Not structlog's default for exceptions: rich shows the local variables, and they hold whatever a function was given.
        renderer = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback, sort_keys=False, pad_event_to=0
        )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            _add_timestamp,
            _add_log_context,
            _redact,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: _LineLogger(lines),
        # A cached logger would keep its old destination when the set-up changes; a log line is rare enough to do without.
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [known for known in root.handlers if isinstance(known, _StandardLibraryBridge)]:
        root.removeHandler(handler)
    root.addHandler(_StandardLibraryBridge())
    root.setLevel(LEVELS[level])


def forward_line(line: bytes, shard: int | None) -> None:
    """Log a line that a shard process wrote to its standard error, with its own time, level and fields.

    What is no JSON log line (a traceback of the interpreter, a ``print`` of the application) becomes the event ``output`` at
    level warning, with the line as ``text``, cut to ``FORWARDED_TEXT_MAX`` characters and without control characters.

    Args:
        line: with or without its newline; an empty one is ignored.
        shard: whose it is; ``None`` for a process that has no shard yet.
    """
    line = line.rstrip(b"\r\n")
    if not line.strip():
        return
    logger = NodeLog("")
    known = {} if shard is None else {"shard": shard}
    fields = _parsed(line)
    if fields is None:
        logger.warning("output", text=_printable(line), **known)
        return
    level = LEVELS.get(str(fields.get("level")), logging.INFO)
    rest = {key: value for key, value in fields.items() if key not in _NOT_FORWARDED}
    logger.log(level, str(fields["event"]), **(rest | known))


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The fields of a JSON log line; ``None`` if it is none."""
    if len(line) > FORWARDED_LINE_BYTES_MAX:
        return None
    try:
        fields = msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return fields if isinstance(fields, dict) and "event" in fields and "level" in fields else None


def _printable(line: bytes) -> str:
    """Safe for a terminal: an escape sequence in what a function prints must not reach the operator's screen."""
    text = line[: 4 * FORWARDED_TEXT_MAX].decode(errors="replace")[:FORWARDED_TEXT_MAX]
    rest = len(line) - len(text.encode())
    safe = "".join(
        character if character.isprintable() or character == "\t" else "\N{REPLACEMENT CHARACTER}" for character in text
    )
    return f"{safe}... ({rest} more bytes)" if rest > 0 else safe


class _LineLogger:
    """What structlog calls with a rendered line, under the name of the level."""

    def __init__(self, lines: _Lines) -> None:
        self._lines = lines

    def msg(self, line: str) -> None:
        """Write the line, and say how many before it were lost."""
        lost = self._lines.lost
        self._lines.write_line(line)
        if lost and self._lines.lost == lost:
            self._lines.lost = 0
            structlog.get_logger().error("log lines lost", count=lost)

    debug = info = warning = error = critical = msg


class _StandardLibraryBridge(logging.Handler):
    """Makes records of ``logging`` structlog events."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record at its level, or at the nearest below that has a name here."""
        try:
            level = max((known for known in LEVELS.values() if known <= record.levelno), default=logging.DEBUG)
            exception = {"exc_info": record.exc_info} if record.exc_info else {}
            structlog.get_logger().log(level, record.getMessage(), logger=record.name, **exception)
        except Exception:  # noqa: BLE001 - the contract of a handler: a wrong log call must not end its caller
            self.handleError(record)


def _add_timestamp(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """UTC; a forwarded line has the time at which it was written."""
    if "timestamp" not in event:
        event["timestamp"] = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return event


def _add_log_context(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    context = _current.get()
    if context is not None:
        for name in ("shard", "incarnation", "checkpoint"):
            value = getattr(context, name)
            if value is not None:
                event.setdefault(name, checkpoint_name(value) if name == "checkpoint" else value)
    return event


def _redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return redacted(event)


def _render_json(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    # The event and what it is about first: people read these lines, too.
    first = {key: event[key] for key in ("timestamp", "level", "event") if key in event}
    return json_format.dumps(first | dict(event), default=repr)
