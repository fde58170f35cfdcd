"""Dead letters as they are stored and shown: their keys, their names for people, their content.

A key is ``slot | d | checkpoint (u64) | number (u32) | shard (u16)``; what follows the kind is the letter's name, written
``1.17-3-0``: parked by shard 0, as the third after it cut checkpoint 1.17. A name stays the same for as long as the letter lives.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from shardfun.errors import ConfigurationError, CorruptionError
from shardfun.model.address import Address
from shardfun.model.cbor import load_cbor
from shardfun.model.delta import CHECKPOINT_SEQUENCE_BITS, checkpoint_id, checkpoint_name

INGRESS_RECORD: Final = "ingress record"
"""The payload type of a dead letter that never became a message."""
NAME_BYTES: Final = 14
SHOWN_BYTES_MAX: Final = 1 << 20
"""A payload whose encoding is longer is not shown by a running node."""
_NAME: Final = re.compile(r"(\d{1,10})\.(\d{1,10})-(\d{1,10})-(\d{1,5})")
_WORD: Final = 1 << 32


class LetterName(NamedTuple):
    """Which letter.

    Args:
        cut: the checkpoint that the shard had cut last; ``number`` counts from 1 behind it.
        shard: that parked it.
    """

    cut: int
    number: int
    shard: int

    def __str__(self) -> str:
        incarnation, sequence = self.cut >> CHECKPOINT_SEQUENCE_BITS, self.cut % (1 << CHECKPOINT_SEQUENCE_BITS)
        return f"{incarnation}.{sequence}-{self.number}-{self.shard}"

    def encode(self) -> bytes:
        """As in the key."""
        return self.cut.to_bytes(8, "big") + self.number.to_bytes(4, "big") + self.shard.to_bytes(2, "big")


def name_of_key(key: bytes) -> LetterName:
    """The name in a stored key."""
    name = key[3:]
    return LetterName(int.from_bytes(name[:8], "big"), int.from_bytes(name[8:12], "big"), int.from_bytes(name[12:14], "big"))


def parse_letter_name(text: str) -> LetterName:
    """The inverse of ``str(name)``.

    Raises:
        ConfigurationError: it is none.
    """
    found = _NAME.fullmatch(text)
    numbers = [int(part) for part in found.groups()] if found else []
    if not found or max(numbers[:3]) >= _WORD or numbers[3] >= 1 << 16:
        msg = f"dead letter {text!r:.100}: expected a key as 'shardfun dead-letters list' prints it, such as 1.17-3-0"
        raise ConfigurationError(msg)
    return LetterName(checkpoint_id(numbers[0], numbers[1]), numbers[2], numbers[3])


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was parked, and why."""

    key: str = ""
    target: str
    sender: str | None
    reason: str
    attempts: int
    checkpoint: str
    time: float
    payload_type: str
    payload: Any
    traceback: str = ""


def letter_of(key: bytes, raw: bytes) -> DeadLetter:
    """A stored letter.

    Raises:
        CorruptionError: it is none.
    """
    letter = decoded(raw, "a dead letter")
    try:
        sender = letter["sender"]
        return DeadLetter(
            key=str(name_of_key(key)),
            target=str(Address(*letter["target"])),
            sender=None if sender is None else str(Address(*sender)),
            reason=str(letter["reason"]),
            attempts=int(letter["attempts"]),
            checkpoint=checkpoint_name(letter["checkpoint"]),
            time=float(letter["time"]),
            payload_type=str(letter["payload_type"]),
            payload=plain(letter["payload"]),
            traceback=str(letter["traceback"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CorruptionError(f"a dead letter is damaged: {error!r:.200}") from error


def is_for_type(raw: bytes, typename: str) -> bool:
    """Whether a stored letter's target is of that type.

    Raises:
        CorruptionError: it is no letter.
    """
    try:
        return bool(decoded(raw, "a dead letter")["target"][0] == typename)
    except (LookupError, TypeError) as error:
        raise CorruptionError(f"a dead letter is damaged: {error!r:.200}") from error


def decoded(raw: bytes, what: str) -> Any:
    """A stored CBOR value.

    Raises:
        CorruptionError: it is none.
    """
    try:
        return load_cbor(raw)
    except ValueError as error:
        raise CorruptionError(f"{what} is damaged: {error}") from error


def plain(value: Any) -> Any:
    """A decoded CBOR value as JSON knows it. Bytes that are UTF-8 become text, others ``{"base64": ...}``."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                return {"base64": base64.b64encode(value).decode()}
        case Mapping():
            return {key if isinstance(key, str) else str(plain(key)): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case _:
            return str(value)
