"""A request as the routes see it, and what they answer. Everything that is wrong with one ends in a ``ProblemError``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from shardfun.config.units import parse_duration
from shardfun.door.connection import EVENT_STREAM, SlowClientError
from shardfun.door.problems import ProblemError
from shardfun.errors import nearest

JSON: Final = b"application/json"
NDJSON: Final = b"application/x-ndjson"
SSE: Final = b"text/event-stream"
PARAMETERS_MAX: Final = 16
DEPTH_MAX: Final = 100
"""Of JSON. What is stored has to be read again, and CBOR's decoder refuses what is nested much deeper."""
WAITS_KNOWN_MAX: Final = 64
KEY_CHARACTERS_MAX: Final = 200
ANONYMOUS: Final = "~"
"""What keys begin with that the door makes itself; a client's cannot."""

Headers = tuple[tuple[bytes, bytes], ...]


class Response(NamedTuple):
    """A whole answer."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: Headers = ()


class StreamResponse(NamedTuple):
    """An answer that goes on.

    Args:
        pieces: called once; when it ends, so does the answer.
    """

    content_type: bytes
    pieces: Callable[[], AsyncGenerator[bytes, None]]
    headers: Headers = ()


def json_response(value: Any, status: int = 200, headers: Headers = ()) -> Response:
    """A value as JSON."""
    return Response(status, msgspec.json.encode(value), JSON, headers)


class Request:
    """One request.

    Args:
        headers: by name in lower case.
        parameters: the variable parts of the path, decoded.
        body_max: bytes.
    """

    __slots__ = ("_body_max", "_receive", "_scope", "headers", "method", "parameters")

    def __init__(
        self,
        scope: dict[str, Any],
        headers: dict[bytes, bytes],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        parameters: tuple[str, ...],
        body_max: int,
    ) -> None:
        self.method: str = scope["method"]
        self.headers = headers
        self.parameters = parameters
        self._scope = scope
        self._receive = receive
        self._body_max = body_max

    # ---- query -----------------------------------------------------------------------------------------------------------
    def query(self, *known: str) -> dict[str, str]:
        """The query parameters.

        Raises:
            ProblemError: one is not known, comes twice or is no UTF-8.
        """
        raw: bytes = self._scope["query_string"]
        if not raw:
            return {}
        try:
            pairs = parse_qsl(
                raw.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=PARAMETERS_MAX
            )
        except ValueError as error:  # of Unicode, too
            raise ProblemError("wrong-parameter", f"expected a query like 'name=value&name=value' in UTF-8: {error}") from error
        found: dict[str, str] = {}
        for name, value in pairs:
            if name not in known:
                raise ProblemError("wrong-parameter", f"no such query parameter: {name[:60]!r}{nearest(name, known)}")
            if name in found:
                raise ProblemError("wrong-parameter", f"{name}: expected once, but it comes twice")
            found[name] = value
        return found

    # ---- body ------------------------------------------------------------------------------------------------------------
    def require_type(self, *accepted: bytes) -> bytes:
        """The media type of the body.

        Raises:
            ProblemError: it is another one, or the body is packed.
        """
        given = self.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if given not in accepted:
            expected = " or ".join(kind.decode() for kind in accepted)
            got = given.decode("latin-1")[:80] or "none"
            raise ProblemError(
                "unsupported-media-type", f"Content-Type: expected {expected}, got {got}", headers=_accept_post(accepted)
            )
        coding = self.headers.get(b"content-encoding", b"identity").lower()
        if coding != b"identity":
            got = coding.decode("latin-1")[:80]
            raise ProblemError(
                "unsupported-media-type",
                f"Content-Encoding: expected none, got {got}",
                headers=((b"accept-encoding", b"identity"),),
            )
        return given

    async def body(self) -> bytes:
        """The whole body.

        Raises:
            ProblemError: it is too long, or does not arrive in time.
        """
        self._check_length()
        message = await self._next()
        body: bytes = message["body"]
        if message["more_body"]:
            pieces, size = [body], len(body)
            while message["more_body"] and size <= self._body_max:
                message = await self._next()
                pieces.append(message["body"])
                size += len(message["body"])
            body = b"".join(pieces)
        if len(body) > self._body_max:
            raise self._too_large("body")
        return body

    async def no_body(self) -> None:
        """For routes that take none: one is refused, so that nobody thinks that it had a meaning.

        Raises:
            ProblemError: there is one.
        """
        length = self.headers.get(b"content-length", b"0")
        if length == b"0" and b"transfer-encoding" not in self.headers:
            return
        if b"transfer-encoding" in self.headers and not await self.body():
            return
        raise ProblemError("malformed-request", "expected no body")

    async def lines(self) -> AsyncGenerator[list[bytes], None]:
        """The lines of a body that may have no end, as many at a time as have arrived; empty ones are left out.

        Raises:
            ProblemError: a line is too long, or the client is silent for too long.
        """
        stream = self._scope["extensions"].get(EVENT_STREAM)
        if stream is not None:
            stream()
        rest: list[bytes] = []
        size, more = 0, True
        while more:
            message = await self._next()
            body, more = message["body"], message["more_body"]
            if b"\n" in body or not more:
                *lines, last = b"".join((*rest, body)).split(b"\n")
                rest, size = [last], len(last)
                if not more:
                    lines.append(last)
                long = next((number for number, line in enumerate(lines) if len(line) > self._body_max), len(lines))
                found = [line for line in lines[:long] if line.strip()]
                if found:
                    yield found
                if long < len(lines):
                    raise self._too_large("line")
            else:  # joined once, when the line has its end
                rest.append(body)
                size += len(body)
            if size > self._body_max:
                raise self._too_large("line")

    async def _next(self) -> dict[str, Any]:
        try:
            return await self._receive()
        except SlowClientError as error:
            raise ProblemError("too-slow", "the body did not arrive in time (http.read_timeout)") from error

    def _check_length(self) -> None:
        length = self.headers.get(b"content-length")
        if length is not None and int(length) > self._body_max:  # h11 has seen that it is a number
            raise self._too_large("body")

    def _too_large(self, what: str) -> ProblemError:
        return ProblemError("body-too-large", f"expected a {what} of at most {self._body_max} bytes (http.body)")

    # ---- headers ---------------------------------------------------------------------------------------------------------
    def require_accept(self, offered: bytes) -> None:
        """Whether the client takes what the route answers with.

        Raises:
            ProblemError: it does not.
        """
        accept = self.headers.get(b"accept")
        if accept is None or accept == b"*/*":
            return
        family = offered.partition(b"/")[0] + b"/*"
        for part in accept.lower().split(b","):
            kind, *parameters = (piece.strip() for piece in part.split(b";"))
            if kind in (offered, family, b"*/*") and not any(_is_zero(parameter) for parameter in parameters):
                return
        raise ProblemError("not-acceptable", f"this route answers with {offered.decode()}, which 'Accept' leaves out")

    def idempotency_key(self) -> str | None:
        """The client's key for the request, if it has one.

        Raises:
            ProblemError: it is none.
        """
        raw = self.headers.get(b"idempotency-key")
        if raw is None:
            return None
        if sum(name == b"idempotency-key" for name, _ in self._scope["headers"]) > 1:
            raise ProblemError("wrong-key", "Idempotency-Key: expected once, but it comes twice")
        if len(raw) >= 2 and raw[:1] == raw[-1:] == b'"':  # as a structured field
            raw = raw[1:-1]
        check_key(raw)
        return raw.decode("ascii")


def check_key(raw: bytes) -> None:
    """Raise ProblemError if it cannot be an Idempotency-Key."""
    wrong = not 1 <= len(raw) <= KEY_CHARACTERS_MAX or any(not 0x21 <= byte < 0x7F or byte in b'"\\' for byte in raw)
    if wrong or raw.startswith(ANONYMOUS.encode()):
        msg = (
            f"Idempotency-Key: expected 1 to {KEY_CHARACTERS_MAX} printable ASCII characters without blanks, quotes and backslashes "
            f"that do not begin with '{ANONYMOUS}', such as a UUID"
        )
        raise ProblemError("wrong-key", msg)


def decode_json(raw: bytes, what: str = "body") -> Any:
    """A JSON document.

    Raises:
        ProblemError: it is none.
    """
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError("malformed-json", f"{what}: expected one JSON document in UTF-8: {error}") from error
    if raw.count(b"[") + raw.count(b"{") > DEPTH_MAX and _is_deep(value):
        raise ProblemError("malformed-json", f"{what}: expected at most {DEPTH_MAX} lists and objects inside each other")
    return value


def _is_deep(value: Any) -> bool:
    """Whether it is nested deeper than ``DEPTH_MAX``."""
    level = [value]
    for _ in range(DEPTH_MAX):
        level = [
            inner
            for outer in level
            if isinstance(outer, list | dict)
            for inner in (outer if isinstance(outer, list) else outer.values())
        ]
        if not level:
            return False
    return any(isinstance(inner, list | dict) for inner in level)


def decode_segment(raw: bytes) -> str:
    """A part of a path as text.

    Raises:
        ProblemError: it is no UTF-8.
    """
    try:
        return (unquote_to_bytes(raw) if b"%" in raw else raw).decode()
    except UnicodeDecodeError as error:
        raise ProblemError("malformed-request", "the path: expected UTF-8, with '%' and two digits for other bytes") from error


class Waits:
    """Reads ``?wait=``. Programs send the same text again and again, and reading it takes longer than all the rest of a query.

    Args:
        longest_s: more than that is never waited.
    """

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._known: dict[str, float] = {}

    def seconds(self, text: str) -> float:
        """Raises ProblemError as ``wait_of``."""
        found = self._known.get(text)
        if found is None:
            found = wait_of(text, self._longest_s)
            if len(self._known) < WAITS_KNOWN_MAX:
                self._known[text] = found
        return found


def wait_of(text: str, longest_s: float) -> float:
    """Seconds from ``5 s``, ``500ms`` or ``2.5``; never more than ``longest_s``.

    Raises:
        ProblemError: it is no such text.
    """
    try:
        seconds = float(text) if text.replace(".", "", 1).isdecimal() and text.isascii() else parse_duration(text)
    except ValueError as error:
        raise ProblemError(
            "wrong-parameter", f"wait: expected seconds or a duration such as '500ms' or '5 s': {error}"
        ) from error
    return min(seconds, longest_s)


def count_of(text: str | None, default: int, most: int) -> int:
    """A ``limit``.

    Raises:
        ProblemError: it is no number from 1 to ``most``.
    """
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and 1 <= int(text) <= most):
        raise ProblemError("wrong-parameter", f"limit: expected a whole number from 1 to {most}, got {text[:40]!r}")
    return int(text)


def one_of(name: str, text: str, allowed: Collection[str]) -> str:
    """A parameter with few values.

    Raises:
        ProblemError: it is none of them.
    """
    if text not in allowed:
        raise ProblemError("wrong-parameter", f"{name}: expected {' or '.join(allowed)}, got {text[:40]!r}")
    return text


def _is_zero(parameter: bytes) -> bool:
    name, _, value = parameter.partition(b"=")
    return name.strip() == b"q" and value.strip().strip(b"0.") == b"" and value.strip() != b""


def _accept_post(accepted: tuple[bytes, ...]) -> Headers:
    return ((b"accept-post", b", ".join(accepted)),)
