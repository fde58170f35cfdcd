"""Messages and requests to functions: ``POST /v1/functions/...`` and ``GET /v1/requests/...``.

What is acknowledged is durable. A request with an ``Idempotency-Key`` goes through the function of requests, which remembers the
key and the reply, so repeating it does no harm; a message without key and without ``wait`` goes straight to its function.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Collection
from typing import Any, Final, NamedTuple, NoReturn, Protocol
from urllib.parse import quote

from shardfun.door.node import NodeLink
from shardfun.door.problems import ProblemError
from shardfun.door.request import ANONYMOUS, JSON, Request, Response, Waits, check_key, decode_json, json_response
from shardfun.errors import DefinitionError, PayloadTypeError, nearest
from shardfun.intake.entries import HTTP, Entry, MessageEntry, Reply, RequestEntry, request_digest
from shardfun.intake.request import REQUEST
from shardfun.intake.targets import Targets, check_id
from shardfun.model.address import check_typename, is_declared
from shardfun.model.questions import StateQuestion

KEY_RANDOM_BYTES: Final = 9
KEYS_SEEN_MAX: Final = 50_000
"""Keys of which a reuse for another request is refused although nobody waits for the reply."""


class Desk(Protocol):
    """What the door needs of an ``Intake``."""

    @property
    def backlog_bytes_now(self) -> int:
        """Bytes that no complete checkpoint has read."""
        ...

    async def append(self, entries: list[Entry]) -> None:
        """Durable when it returns."""

    async def ask(self, entry: RequestEntry, *, wait_s: float | None = None) -> Reply | None:
        """Append, and wait for the reply."""
        ...

    def digest_of(self, key: str) -> bytes | None:
        """What is asked with a key that may not be processed yet."""
        ...


class _Seen(NamedTuple):
    """Whose a key is, as far as the door knows.

    ``until``: monotonic seconds. ``proven``: the function of requests has replied to this request.
    """

    digest: bytes
    until: float
    proven: bool


class MessageRoutes:
    """See the module.

    Args:
        wait_max_s: the longest ``?wait=``.
        window_s: how long a key is remembered.
    """

    def __init__(self, targets: Targets, intake: Desk, node: NodeLink, wait_max_s: float, window_s: float) -> None:
        self._targets = targets
        self._intake = intake
        self._node = node
        self._waits = Waits(wait_max_s)
        self._window_s = window_s
        self._seen: dict[str, _Seen] = {}
        self._series = secrets.token_hex(KEY_RANDOM_BYTES)
        self._number = 0
        self._declared = frozenset(function["typename"] for function in targets.describe())

    async def send(self, request: Request) -> Response:
        """``POST /v1/functions/{namespace}/{type}/{id}``."""
        namespace, name, id = request.parameters
        query = request.query("wait", "type")
        typename = f"{namespace}/{name}"
        require_function(typename, self._declared)
        require_id(id)
        request.require_type(JSON)
        key = request.idempotency_key()
        wait_s = self._waits.seconds(query["wait"]) if "wait" in query else None
        body = decode_json(await request.body())
        type, payload = self._targets.from_json(typename, id, body, query.get("type"))
        if key is None and wait_s is None:
            await self._intake.append([MessageEntry(typename, id, type, payload)])
            return json_response({"status": "accepted"}, 202)
        digest = request_digest(typename, id, type, payload)
        entry = RequestEntry(key or self._new_key(), key is None, digest, typename, id, type, payload, HTTP)
        if key is not None:
            self._check_key(key, digest, waits=wait_s is not None)
        if wait_s is None:
            await self._intake.append([entry])
            if key is not None:
                self._remember(key, digest, proven=False)
            return _accepted(key)
        return await self._ask(entry, wait_s)

    async def _ask(self, entry: RequestEntry, wait_s: float) -> Response:
        reply = await self._intake.ask(entry, wait_s=wait_s)
        if reply is None:
            return _accepted(None if entry.anonymous else entry.key)
        if reply.status == "conflict":
            _refuse_key(entry.key)
        if not entry.anonymous:
            self._remember(entry.key, entry.digest, proven=True)
        return self._replied(None if entry.anonymous else reply.key, reply.type, reply.payload)

    async def look(self, request: Request) -> Response:
        """``GET /v1/requests/{key}``."""
        (key,) = request.parameters
        request.query()
        check_key(key.encode())
        known = self._intake.digest_of(key) is not None or key in self._seen  # asked first: it is forgotten with its checkpoint
        answer = await self._node.state(StateQuestion(target=REQUEST, id=key, at="checkpoint"))
        if answer.fields.get("replied"):
            encoded = answer.fields["reply"].get("base64")
            if encoded is None:
                detail = "the reply is too long to be looked up; repeat the request with its key and '?wait='"
                raise ProblemError("reply-too-long", detail)
            return self._replied(key, answer.fields["reply_type"], base64.b64decode(encoded))
        if answer.exists or known:
            return json_response({"status": "accepted", "key": key}, 202)
        raise ProblemError("unknown-request", f"no request with the key {key!r} is known: it was never made, or long ago")

    def _check_key(self, key: str, digest: bytes, *, waits: bool) -> None:
        """Refuse a key that belongs to another request.

        Whose it is the function of requests knows, and tells those who wait. What passed by here may itself be the misuse of an older
        key: so it only counts against those who do not wait.
        """
        seen = self._seen.get(key)
        if seen is not None and seen.until <= time.monotonic():
            seen = None
        if seen is not None and seen.proven:
            known: bytes | None = seen.digest
        elif waits:
            return
        else:
            known = self._intake.digest_of(key) or (None if seen is None else seen.digest)
        if known not in {None, digest}:
            _refuse_key(key)

    def _remember(self, key: str, digest: bytes, *, proven: bool) -> None:
        """A key that belongs to a request now, as far as is known; the oldest are forgotten first."""
        before = self._seen.pop(key, None)
        if len(self._seen) >= KEYS_SEEN_MAX:
            del self._seen[next(iter(self._seen))]
        proven = proven or (before is not None and before.proven and before.digest == digest)
        self._seen[key] = _Seen(digest, time.monotonic() + self._window_s, proven)

    def _replied(self, key: str | None, type: str, payload: bytes) -> Response:
        try:
            reply = self._targets.to_json(type, payload)
        except PayloadTypeError as error:
            detail = f"the request was processed, but its reply, a {type}, has no form in JSON: {error}"
            raise ProblemError("internal-error", detail) from error
        body: dict[str, Any] = {"status": "replied", "type": type, "reply": reply}
        return json_response(body if key is None else body | {"key": key})

    def _new_key(self) -> str:
        self._number += 1
        return f"{ANONYMOUS}{self._series}{self._number}"

    async def describe(self, request: Request) -> Response:
        """``GET /v1/functions``."""
        request.query()
        return json_response({"functions": self._targets.describe()})


def require_function(typename: str, declared: Collection[str]) -> None:
    """Raise ProblemError if the application has no such function."""
    try:
        check_typename(typename)
    except DefinitionError as error:  # of a whole namespace every name is declared, if it is one
        raise ProblemError("unknown-function", str(error)) from error
    if not is_declared(typename, declared):
        raise ProblemError("unknown-function", f"function {typename[:200]!r} is not declared{nearest(typename, declared)}")


def require_id(id: str) -> None:
    """Raise ProblemError if it is not the id of an address."""
    try:
        check_id(id)
    except PayloadTypeError as error:
        raise ProblemError("malformed-request", str(error)) from error


def _accepted(key: str | None) -> Response:
    if key is None:
        return json_response({"status": "accepted"}, 202)
    location = f"/v1/requests/{quote(key, safe='')}"
    return json_response({"status": "accepted", "key": key}, 202, ((b"location", location.encode()),))


def _refuse_key(key: str) -> NoReturn:
    raise ProblemError(
        "key-reused", f"the Idempotency-Key {key!r} belongs to a request to another address, or with another body"
    )
