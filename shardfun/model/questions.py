"""What another process may ask a running node, and what it answers: JSON objects with a ``type``, over the node's door.

The question ``status`` is the bare word, so that it can be asked by hand.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from shardfun.errors import ProtocolError
from shardfun.model.letters import DeadLetter

STATUS = b"status"
LETTERS_MAX = 1000
"""Dead letters in one answer; also how many one question may change."""

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


Answer = LettersAnswer | Refusal


def decode_question(raw: bytes) -> LettersQuestion:
    """Raises ProtocolError if it is no question."""
    try:
        question = msgspec.json.decode(raw, type=LettersQuestion)
    except msgspec.DecodeError as error:
        msg = f"question to the node: {error}; is it of another version?"
        raise ProtocolError(msg) from error
    if not 1 <= question.limit <= LETTERS_MAX or len(question.keys) > LETTERS_MAX:
        msg = f"question to the node: expected at most {LETTERS_MAX} dead letters, got limit {question.limit}, {len(question.keys)} keys"
        raise ProtocolError(msg)
    return question


def decode_answer(raw: bytes) -> Answer:
    """Raises ProtocolError if it is no answer."""
    try:
        return msgspec.json.decode(raw, type=LettersAnswer | Refusal)
    except msgspec.DecodeError as error:
        msg = f"answer of the node: {error}; is it of another version?"
        raise ProtocolError(msg) from error
