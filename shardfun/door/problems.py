"""What an HTTP client is told when it does not get what it asked for: problem documents (RFC 9457).

One table, from which the door, the OpenAPI document and ``docs/HTTP.md`` are made. A ``type`` is stable: programs decide by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec

from shardfun import errors
from shardfun.errors import ShardfunError

URN: Final = "urn:shardfun:problem:"
CONTENT_TYPE: Final = b"application/problem+json"
RETRY_S: Final = 1
"""When to come back, if nothing better is known."""


class Kind(NamedTuple):
    """One kind of problem.

    Args:
        name: the end of its ``type``.
        status: HTTP status code.
        title: the same for all of the kind.
        meaning: when it comes, for the documentation.
    """

    name: str
    status: int
    title: str
    meaning: str

    @property
    def urn(self) -> str:
        """Its ``type``."""
        return URN + self.name


_KINDS: Final = (
    Kind("malformed-request", 400, "Malformed request", "The request is no HTTP/1.1, or its path or a header is wrong."),
    Kind("malformed-json", 400, "Malformed JSON", "The body, or a line of it, is not one JSON document in UTF-8."),
    Kind(
        "wrong-parameter", 400, "Wrong parameter", "A query parameter is unknown, comes twice, or has a value it cannot have."
    ),
    Kind(
        "wrong-key",
        400,
        "Wrong Idempotency-Key",
        "The key is empty, too long or has characters it cannot have, or the route takes none.",
    ),
    Kind("wrong-event-id", 400, "Wrong Last-Event-ID", "The event id is none of this stream, or of one that was begun anew."),
    Kind("unauthorized", 401, "Token required", "There is no bearer token, or it is a wrong one."),
    Kind(
        "foreign-origin",
        403,
        "Foreign origin",
        "A web page of another origin sent the request, or it names a host that is not this one.",
    ),
    Kind("unknown-path", 404, "Unknown path", "There is no such route."),
    Kind("unknown-function", 404, "Unknown function", "The application has no function of that name."),
    Kind("unknown-ingress", 404, "Unknown ingress", "There is no ingress of kind 'http' with that name."),
    Kind("unknown-egress", 404, "Unknown egress", "There is no egress of that name that can be followed."),
    Kind("unknown-request", 404, "Unknown request", "No request with that key is known, or no more."),
    Kind("unknown-letter", 404, "Unknown dead letter", "There is no dead letter with that key."),
    Kind("method-not-allowed", 405, "Method not allowed", "The route knows other methods; 'Allow' names them."),
    Kind("not-acceptable", 406, "Not acceptable", "'Accept' excludes the one media type the route answers with."),
    Kind("too-slow", 408, "Request too slow", "The request did not arrive within http.read_timeout."),
    Kind(
        "reply-too-long",
        409,
        "Reply too long",
        "The reply is too long to be looked up: repeat the request with its key and 'wait'.",
    ),
    Kind("letter-refused", 409, "Dead letter not sent", "The letter cannot be sent again; it stays."),
    Kind("events-gone", 410, "Events gone", "The events behind 'Last-Event-ID' were deleted (retention of the egress)."),
    Kind("body-too-large", 413, "Body too large", "The body, or a line of a stream of records, is longer than http.body."),
    Kind("unsupported-media-type", 415, "Unsupported media type", "The body is of another media type than the route takes."),
    Kind(
        "wrong-payload",
        422,
        "Payload of no accepted type",
        "The body is JSON, but none of the types that the function accepts.",
    ),
    Kind("key-reused", 422, "Idempotency-Key reused", "The key belongs to another request: other address or other body."),
    Kind("backlog-full", 429, "Backlog full", "http.backlog is reached: come back after 'Retry-After' seconds."),
    Kind("headers-too-large", 431, "Headers too large", "Request line and headers together are longer than 16 KiB."),
    Kind("internal-error", 500, "Internal error", "A bug, or damaged data; the log says more."),
    Kind("not-implemented", 501, "Not implemented", "A transfer coding that is not 'chunked'."),
    Kind(
        "unavailable",
        503,
        "Node not available",
        "The node is starting, recovering or stopping; what is sent meanwhile is taken in.",
    ),
    Kind("too-many-connections", 503, "Too many connections", "http.connections is reached."),
    Kind("storage-full", 507, "Storage full", "What was sent could not be made durable; it was not taken in."),
)
KINDS: Final[Mapping[str, Kind]] = MappingProxyType({kind.name: kind for kind in _KINDS})

BY_STATUS: Final[Mapping[int, str]] = MappingProxyType(
    {400: "malformed-request", 408: "too-slow", 413: "body-too-large", 431: "headers-too-large", 501: "not-implemented"}
)
"""The kinds for what the protocol itself finds wrong, where no route was reached."""


class ProblemError(Exception):
    """Ends a request with a problem document.

    Args:
        kind: name of the kind.
        detail: what is wrong this time, and what to do.
        headers: more headers of the answer.
        retry_after_s: for a ``Retry-After``.
        members: more members of the document.
    """

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        retry_after_s: float | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = KINDS[kind]
        self.detail = detail
        self.headers = headers
        self.members = members or {}
        if retry_after_s is not None:
            self.headers = (*headers, (b"retry-after", str(max(1, round(retry_after_s + 0.499))).encode()))

    def document(self, instance: str | None) -> bytes:
        """The body of the answer.

        Args:
            instance: path of the request; ``None`` if it is not known.
        """
        return problem_document(self.kind, self.detail, instance, self.members)


def problem_document(kind: Kind, detail: str, instance: str | None = None, members: Mapping[str, Any] | None = None) -> bytes:
    """A problem document as JSON."""
    document: dict[str, Any] = {"type": kind.urn, "title": kind.title, "status": kind.status, "detail": detail}
    if instance is not None:
        document["instance"] = instance
    return msgspec.json.encode(document | dict(members or {}))


def problem_of(error: ShardfunError) -> ProblemError:
    """The problem that an error of shardfun is to a client."""
    text = str(error)
    match error:
        case errors.BacklogFullError():
            return ProblemError("backlog-full", text, retry_after_s=error.retry_after_s)
        case errors.UnknownTargetError():
            return ProblemError("unknown-function", text)
        case errors.PayloadTypeError():
            return ProblemError("wrong-payload", text)
        case errors.CorruptionError():
            return ProblemError("internal-error", "the node's data is damaged; the log says more")
        case errors.StorageError():
            return ProblemError("storage-full", text, retry_after_s=5.0)
        case errors.UnavailableError():
            return ProblemError("unavailable", text, retry_after_s=RETRY_S)
        case errors.ConfigurationError() | errors.DefinitionError() | errors.ProtocolError():
            return ProblemError("wrong-parameter", text)
        case _:
            return ProblemError("internal-error", f"{error.code}: {text}")
