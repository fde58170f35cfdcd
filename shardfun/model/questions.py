"""What another process may ask a running node, and what it answers: JSON objects with a ``type``, over the node's door.

The question ``status`` is the bare word, so that it can be asked by hand.
"""

from __future__ import annotations

from typing import Any, Literal, assert_never

import msgspec

from shardfun.errors import ProtocolError
from shardfun.model.letters import DeadLetter

STATUS = b"status"
LETTERS_MAX = 1000
"""Dead letters in one answer; also how many one question may change."""
PAGE_MAX = 1000
"""Ids in one answer, or items of a map, a buffer or a registry."""
PAGE_DEFAULT = 100
PART_BYTES_MAX = 1024
"""Of the name of a part: of a registry's field and what was registered in it."""

Action = Literal["list", "show", "replay", "drop"]


class LettersQuestion(msgspec.Struct, frozen=True, kw_only=True, tag="letters"):
    """Look at dead letters, or send them again (``replay``), or delete them (``drop``).

    Args:
        keys: which ones; empty: all.
        typename: only those for functions of that type.
        limit: at most so many, the newest.
    """

    action: Action
    keys: list[str] = []
    typename: str | None = None
    limit: int = LETTERS_MAX


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What has become of one letter; ``refused`` says why it is still there."""

    key: str
    target: str
    refused: str = ""


class LettersAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="letters"):
    """The letters asked for, or what has become of them.

    Args:
        checkpoint: as of which they were looked at; for a change, the complete one that contains it.
        total: how many there are that fit, the unlisted ones, too.
        unknown: keys that were asked for and are not there.
    """

    checkpoint: str
    total: int
    letters: list[DeadLetter] = []
    changes: list[Change] = []
    unknown: list[str] = []


class Refusal(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """Why there is no answer: as in ``errors``."""

    code: str
    message: str
    exit_code: int


# ---- state ---------------------------------------------------------------------------------------------------------------
class StateQuestion(msgspec.Struct, frozen=True, kw_only=True, tag="state"):
    """The state of one address.

    Args:
        target: the function type, ``namespace/name``.
        at: ``live``: what a message that is handled now would see; ``checkpoint``: as of the last applied checkpoint.
        part: one map, buffer or registry, or what is registered in one (``field.name``); else the beginning of all.
        after: where to go on: ``next`` of an answer about that part.
        limit: items of each part, at most.
    """

    target: str
    id: str
    at: Literal["live", "checkpoint"] = "live"
    part: str | None = None
    after: str | None = None
    limit: int = PAGE_DEFAULT


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An entry of a map, an element of a buffer, or a registered state.

    Args:
        key: of the entry; the number of the element; the name.
        value: of a registered state: its kind and type, and if it is a value that is not at its default, the value.
        expires: unix seconds; ``None``: never.
    """

    key: Any
    value: Any
    expires: float | None = None


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Some items of a map, a buffer or a registry in their order. ``next``: where to go on; ``None``: there are no more."""

    kind: Literal["map", "buffer", "registry"]
    items: list[Item]
    next: str | None = None


class StateAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="state"):
    """The state of one address. Values as JSON knows them, see ``model.json_like``.

    Args:
        exists: whether there is anything that is not at its default.
        checkpoint: the last applied one; of ``live``, the state may be newer.
        fields: single values, those at their defaults, too.
        expires: when fields expire, in unix seconds; ``""`` is the instance as a whole.
        parts: maps, buffers and registries; only that one if one was asked for.
        next: that of the part that was asked for.
    """

    address: str
    exists: bool
    checkpoint: str
    fields: dict[str, Any] = {}
    expires: dict[str, float] = {}
    parts: dict[str, Part] = {}
    next: str | None = None


class ListQuestion(msgspec.Struct, frozen=True, kw_only=True, tag="list"):
    """The ids of a function type that have something stored, as of the last applied checkpoint.

    Args:
        after: where to go on: ``next`` of an answer.
        limit: at most so many; there may be fewer, although more follow.
    """

    typename: str
    after: str | None = None
    limit: int = PAGE_DEFAULT


class ListAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="list"):
    """Some ids. Over all pages each comes once, in an order that stays the same.

    Args:
        next: where to go on; ``None``: there are no more.
        checkpoint: as of which; of several shards, the oldest.
    """

    ids: list[str]
    next: str | None
    checkpoint: str


class CheckpointQuestion(msgspec.Struct, frozen=True, kw_only=True, tag="checkpoint"):
    """Take a checkpoint whose cut is after this question; answered when it is complete."""


class CheckpointAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="checkpoint"):
    """The complete checkpoint, and how long it took from the question on."""

    checkpoint: str
    took_ms: float


# ---- messages ------------------------------------------------------------------------------------------------------------
class SendQuestion(msgspec.Struct, frozen=True, kw_only=True, tag="send"):
    """Take a message in; answered when it is durable.

    Args:
        payload: the message as CBOR, ``payload_type`` the name of its type; or else
        body: the message as JSON. Only a node in the process of its application can read that.
    """

    target: str
    id: str
    payload_type: str | None = None
    payload: bytes | None = None
    body: Any = None


class SentAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="sent"):
    """The message is durable."""


class AskQuestion(msgspec.Struct, frozen=True, kw_only=True, tag="ask"):
    """Take a request in; answered with its reply.

    Args:
        key: that of the request; the same key again gives the same reply.
        timeout_s: how long to wait.
        payload_type, payload, body: as in ``SendQuestion``.
    """

    target: str
    id: str
    payload_type: str | None = None
    payload: bytes | None = None
    body: Any = None
    key: str | None = None
    timeout_s: float


class ReplyAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="reply"):
    """The reply: as CBOR, and as JSON if the node can say it so (``has_body``)."""

    payload_type: str
    payload: bytes
    body: Any = None
    has_body: bool = False


# ---- all of them ---------------------------------------------------------------------------------------------------------
Query = StateQuestion | ListQuestion | CheckpointQuestion
QueryAnswer = StateAnswer | ListAnswer | CheckpointAnswer
Question = LettersQuestion | Query | SendQuestion | AskQuestion
Answer = LettersAnswer | QueryAnswer | SentAnswer | ReplyAnswer | Refusal


def decode_question(raw: bytes) -> Question:
    """Raises ProtocolError if it is no question. Whatever the bytes are, nothing else is raised."""
    try:
        question: Question = msgspec.json.decode(raw, type=Question)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        msg = f"question to the node: {error}; is it of another version?"
        raise ProtocolError(msg) from error
    check_question(question)
    return question


def check_question(question: Question) -> None:
    """Raises ProtocolError if a question is beyond the limits."""
    match question:
        case LettersQuestion():
            if not 1 <= question.limit <= LETTERS_MAX or len(question.keys) > LETTERS_MAX:
                expected = f"at most {LETTERS_MAX} dead letters, got limit {question.limit}, {len(question.keys)} keys"
                raise ProtocolError(f"question to the node: expected {expected}")
        case StateQuestion() | ListQuestion():
            if not 1 <= question.limit <= PAGE_MAX:
                raise ProtocolError(f"question to the node: expected a limit from 1 to {PAGE_MAX}, got {question.limit}")
        case CheckpointQuestion() | SendQuestion() | AskQuestion():
            pass
        case _:
            assert_never(question)


def decode_answer(raw: bytes) -> Answer:
    """Raises ProtocolError if it is no answer."""
    try:
        answer: Answer = msgspec.json.decode(raw, type=Answer)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        msg = f"answer of the node: {error}; is it of another version?"
        raise ProtocolError(msg) from error
    return answer
