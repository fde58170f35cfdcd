"""Every error a user or an operator of shardfun can meet.

One small tree, so that callers can catch by meaning and the command line can print one line: what was expected, what came,
what to do. Exceptions of libraries (plyvel, pynng, msgspec, OSError) are mapped to these where they enter.

House rules: a message names the thing (setting, file, address) first; ``code`` is stable and documented, ``exit_code`` is what
a process that ends because of the error returns.
"""

from __future__ import annotations

import errno as errnos
from collections.abc import Iterable
from typing import Final

_DISK_FULL: Final = (errnos.ENOSPC, errnos.EDQUOT)


class ShardfunError(Exception):
    """The root of the tree. Not raised itself."""

    code = "error"
    exit_code = 1
    errno: int | None = None
    """What the operating system said, if it was it that refused (such as ``errno.ENOSPC``)."""

    @property
    def disk_full(self) -> bool:
        """Whether the same work may go well when somebody has freed some space."""
        return self.errno in _DISK_FULL


class ConfigurationError(ShardfunError):
    """The configuration or the command line is wrong; nothing was started.

    Args:
        problems: one sentence each, already naming file, line and setting. All problems found, not only the first.
    """

    code = "configuration"
    exit_code = 2

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class DefinitionError(ShardfunError):
    """An application is defined wrongly: found while it is imported or bound, before anything runs."""

    code = "definition"
    exit_code = 3


class ApplicationImportError(ShardfunError):
    """The application named in the configuration cannot be imported."""

    code = "application-import"
    exit_code = 3


class InvocationError(ShardfunError):
    """A function used its context wrongly. Fails that invocation only."""

    code = "invocation"


class UnknownTargetError(InvocationError):
    """``send`` named a function, or ``emit`` an egress, that does not exist."""

    code = "unknown-target"


class PayloadTypeError(InvocationError):
    """A message or a state value is not of its declared type."""

    code = "payload-type"


class ContextClosedError(InvocationError):
    """A context was used after its invocation had ended."""

    code = "context-closed"


class TokenPendingError(InvocationError):
    """``send_after`` named a token that belongs to a message that is still pending."""

    code = "token-pending"


class FunctionTimeoutError(InvocationError):
    """An ``async`` or blocking function took longer than its ``timeout``."""

    code = "function-timeout"


class FunctionRestartError(ShardfunError):
    """A function has failed, and its policy is to fall back to the last checkpoint: the incarnation has to end."""

    code = "function-restart"


class ProtocolError(ShardfunError):
    """A frame or a control message does not follow the protocol: damaged, or from another version.

    ``LocalProtocolError`` is our own mistake (a bug, fail-stop); this one is what the other side sent.
    """

    code = "protocol"


class LocalProtocolError(ProtocolError):
    """A state machine of ours was driven against its transition table. A bug: the shard stops and recovers."""

    code = "protocol-local"


class ChannelLossError(ProtocolError):
    """A frame of a channel is missing or a channel is gone: the incarnation has to end."""

    code = "channel-loss"


class StorageError(ShardfunError):
    """Durable state could not be read or written.

    Args:
        errno: of the operating system.
    """

    code = "storage"
    exit_code = 4

    def __init__(self, message: str, *, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno


class CorruptionError(StorageError):
    """A file of the data directory is damaged, and going on would lose or falsify what was acknowledged."""

    code = "corruption"


class IncompatibleDataError(StorageError):
    """The data directory belongs to another application, format version or number of shards."""

    code = "incompatible-data"


class DirectoryInUseError(StorageError):
    """Another supervisor holds the data directory."""

    code = "directory-in-use"
    exit_code = 5


class IngressError(ShardfunError):
    """An ingress cannot be read (missing file, another file than the one the position belongs to)."""

    code = "ingress"
    exit_code = 6


class EgressError(ShardfunError):
    """An egress cannot be written, or no longer holds what was published to it.

    Args:
        retry_s: when a sink that could not publish wants to be asked again; ``None``: after the usual pause.
        errno: of the operating system.
    """

    code = "egress"
    exit_code = 6
    retry_s: float | None = None

    def __init__(self, message: str, *, retry_s: float | None = None, errno: int | None = None) -> None:
        super().__init__(message)
        self.retry_s = retry_s
        self.errno = errno


class EventIdError(EgressError):
    """Reading a stream cannot go on behind an event id: it is malformed, or of a stream that was begun anew."""

    code = "event-id"


class EventsGoneError(EventIdError):
    """The records behind an event id were deleted, since newer ones needed the room."""

    code = "events-gone"


class BacklogLimitError(ShardfunError):
    """The messages waiting in a shard passed the hard limit: the application floods itself.

    Stops the node. A restart of the shard would recover into the same flood for ever.
    """

    code = "backlog-limit"
    exit_code = 7


class BacklogFullError(ShardfunError):
    """So many messages from outside wait for their checkpoint that no more are taken in.

    Args:
        retry_after_s: when to try again.
    """

    code = "backlog-full"
    exit_code = 8
    retry_after_s: float = 1.0

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RequestConflictError(ShardfunError):
    """A request came with the key of another one, which had another target or message."""

    code = "request-conflict"


class ReplyTimeoutError(ShardfunError, TimeoutError):
    """There was no reply in time. The request goes on; asked again with the same key, it gives the reply and does not run again."""

    code = "reply-timeout"
    exit_code = 8


class UnavailableError(ShardfunError):
    """The node is not running, or gave up (too many deaths without a checkpoint, a process that cannot be reaped)."""

    code = "unavailable"
    exit_code = 8


class InconclusiveError(ShardfunError):
    """A run under chaos shows nothing: faults fell outside of it, or two undisturbed runs differ already."""

    code = "inconclusive"
    exit_code = 9


def error_of(code: str, message: str, exit_code: int | None = None) -> ShardfunError:
    """The error that another process reported, as an exception again.

    Args:
        code: of the class there; an unknown one gives ``UnavailableError``.
        exit_code: if it is not that of the class.
    """
    classes = [ShardfunError]
    for cls in classes:
        classes += cls.__subclasses__()
    found = next((cls for cls in classes if cls.code == code), UnavailableError)
    error = found.__new__(found)
    Exception.__init__(error, message)
    if isinstance(error, ConfigurationError):
        error.problems = tuple(message.splitlines())
    elif isinstance(error, StorageError):
        error.errno = None
    if exit_code is not None:
        error.exit_code = exit_code
    return error


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about a name that does not exist: the nearest one that does, or all of them."""
    import difflib

    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(names) or 'none'}"
