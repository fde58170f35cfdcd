"""``shardfun/request``: the function that carries a request. Its id is the request's key.

A request is a function instance like any other, so its key, its message and its reply are in checkpoints and outlive every process.
The target sees it as its caller. Its reply may be a value of any class; it is kept as the bytes that go out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from shardfun.core.function import CompiledFunction
from shardfun.core.options import FunctionOptions
from shardfun.intake.entries import RequestEntry
from shardfun.intake.replies import REPLIES, ReplyRecord
from shardfun.intake.targets import Targets
from shardfun.model.address import RESERVED_NAMESPACE
from shardfun.model.payload import Encoded, Payloads, PayloadType
from shardfun.sdk.context import Context
from shardfun.sdk.definition import function_spec
from shardfun.sdk.state import State, Value, value

REQUEST: Final = f"{RESERVED_NAMESPACE}/request"


class Request(msgspec.Struct, frozen=True):
    """A request as a message: what ``RequestEntry`` says, but for the key, which is the id."""

    anonymous: bool
    digest: bytes
    target: str
    id: str
    type: str
    payload: bytes
    owner: str


class Answer(msgspec.Struct):
    """Whatever the target replied: name of its type and CBOR. (Not frozen: so a value of any class is encoded when it is sent.)"""

    type: str
    payload: bytes


class RequestState(State):
    """What is known of a request. ``owner``: whose processes wait for the reply, with spaces between; empty if there is no request:
    none of this key was seen, or it has expired.
    """

    digest: Value[bytes] = value(b"")
    target: Value[str] = value("")
    target_id: Value[str] = value("")
    owner: Value[str] = value("")
    anonymous: Value[bool] = value(False)
    replied: Value[bool] = value(False)
    reply_type: Value[str] = value("")
    reply: Value[bytes] = value(b"")


class AnswerPayloads(Payloads):
    """The payload types of the request function: requests, and as a reply anything that can be encoded."""

    __slots__ = ("_answer", "_targets")

    def __init__(self, declared: tuple[PayloadType, ...], where: str, targets: Targets) -> None:
        super().__init__(declared, where)
        self._answer = self.by_class[Answer]
        self._targets = targets

    def prepare(self, value: Any) -> Any:
        """A reply as what is sent.

        Raises:
            PayloadTypeError: it cannot be encoded.
        """
        return Encoded(self._answer, self._answer.encode(Answer(*self._targets.reply(value))))


def request_function(targets: Targets, window_s: float) -> CompiledFunction:
    """The function, for an application.

    Args:
        window_s: how long a key is known after its last message.
    """
    options = FunctionOptions(expire_idle_ms=int(window_s * 1000))
    spec = function_spec(REQUEST, _handler(targets), options)
    function = CompiledFunction(spec)
    function.payloads = AnswerPayloads(spec.accepts, REQUEST, targets)
    return function


def request_message(entry: RequestEntry) -> tuple[str, str, Request]:
    """The message that begins a request: typename, id, value."""
    request = Request(entry.anonymous, entry.digest, entry.target, entry.id, entry.type, entry.payload, entry.owner)
    return REQUEST, entry.key, request


def _handler(targets: Targets) -> Callable[[Context[RequestState], Request | Answer], None]:
    def handle(ctx: Context[RequestState], message: Request | Answer) -> None:
        if isinstance(message, Answer):
            _answered(ctx, message)
        else:
            _requested(ctx, message, targets)

    return handle


def _requested(ctx: Context[RequestState], request: Request, targets: Targets) -> None:
    state = ctx.state
    if not state.owner:
        state.digest = request.digest
        state.target, state.target_id = request.target, request.id
        state.anonymous = request.anonymous
        state.owner = request.owner
        ctx.send(request.target, request.id, targets.message(request.target, request.type, request.payload))
    elif state.digest != request.digest:
        _emit(ctx, request.owner, request.digest, "conflict")
    elif state.replied:
        _emit(ctx, request.owner, state.digest, "reply")
    elif request.owner not in state.owner.split():
        state.owner += f" {request.owner}"


def _answered(ctx: Context[RequestState], answer: Answer) -> None:
    """The first reply is the reply. A later one, or one for a request that is forgotten, is nobody's."""
    state = ctx.state
    if not state.owner or state.replied:
        return
    state.replied = True
    state.reply_type, state.reply = answer.type, answer.payload
    for owner in state.owner.split():
        _emit(ctx, owner, state.digest, "reply")
    if state.anonymous:
        ctx.delete_instance()


def _emit(ctx: Context[RequestState], owner: str, digest: bytes, status: Literal["reply", "conflict"]) -> None:
    state = ctx.state
    type, payload = (state.reply_type, state.reply) if status == "reply" else ("", b"")
    ctx.emit(REPLIES, ReplyRecord(owner, ctx.self.id, digest, status, type, payload))
