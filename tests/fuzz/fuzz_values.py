"""Targets: small things that travel as text or bytes: keys, tokens, names, addresses, units, crumbs, dead letters."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import cbor2
import msgspec
from fuzz_registry import Target, joined, pieces

from shardfun.config.listening import parse_listen
from shardfun.config.units import format_size, parse_duration, parse_size
from shardfun.errors import ConfigurationError, CorruptionError, DefinitionError, PayloadTypeError
from shardfun.model.address import Address, check_typename, parse_address
from shardfun.model.cbor import load_cbor
from shardfun.model.crumbs import TABLE_BYTES, Crumb, CrumbTable, read_crumbs
from shardfun.model.json_like import json_like
from shardfun.model.letters import DeadLetter, LetterName, is_for_type, letter_of, parse_letter_name
from shardfun.model.ordered_keys import decode_key, key_type
from shardfun.model.page_tokens import IDS, ids_place, ids_token, place_of, token_of
from shardfun.model.questions import LettersAnswer

KEYS: tuple[Any, ...] = (
    "text",
    "nul\0",
    b"raw\0",
    0,
    -1,
    255,
    1 << 64,
    -(1 << 2000),
    1.5,
    -0.0,
    float("inf"),
    True,
    uuid.UUID(int=7),
    dt.date(2024, 2, 29),
    dt.datetime(2024, 2, 29, 1, 2, 3, 4),  # noqa: DTZ001
    dt.datetime(2024, 2, 29, tzinfo=dt.UTC),
)
KEY_TYPES = {cls: key_type(cls, "key") for cls in dict.fromkeys(map(type, KEYS))}
PAIR = key_type(tuple[str, int], "key")
MANY = key_type(tuple[tuple[str, bytes], ...], "key")


def text_of(data: bytes) -> str:
    """Text as it comes from the command line or the environment: bytes that are no UTF-8 are lone surrogates in it."""
    return data.decode(errors="surrogateescape")


# ---- keys of maps --------------------------------------------------------------------------------------------------------
def _key(data: bytes) -> Any:
    key = decode_key(data)
    for described in KINDS:
        try:
            again = described.decode(data)
        except PayloadTypeError:
            continue
        assert described.encode(again) == data
    return key


def _keys() -> list[bytes]:
    pairs = (("a", 1), ("", -5))
    many = ((), (("a", b"\0"), ("b", b"")))
    return [*(KEY_TYPES[type(key)].encode(key) for key in KEYS), *map(PAIR.encode, pairs), *map(MANY.encode, many)]


KINDS = (*KEY_TYPES.values(), PAIR, MANY)


def _declared_key(data: bytes) -> Any:
    return KINDS[data[0] % len(KINDS)].decode(data[1:]) if data else None


def _declared_keys() -> list[bytes]:
    return [
        *(bytes((list(KEY_TYPES).index(type(key)),)) + KEY_TYPES[type(key)].encode(key) for key in KEYS),
        bytes((len(KINDS) - 2,)) + PAIR.encode(("a", 1)),
        bytes((len(KINDS) - 1,)) + MANY.encode((("a", b"\0"), ("b", b""))),
    ]


# ---- tokens, names, addresses --------------------------------------------------------------------------------------------
def _token(data: bytes) -> Any:
    text = text_of(data)
    for kind in (b"m", b"b", b"r"):
        try:
            place_of(text, kind)
        except ConfigurationError:
            continue
    return ids_place(text)


def _text_target(name: str, parse: Any, errors: tuple[type[Exception], ...], seeds: list[str], encode: Any = None) -> Target:
    return Target(
        name,
        lambda data: parse(text_of(data)),
        errors,
        lambda: [seed.encode() for seed in seeds],
        encode,
        words=(b":", b"/", b".", b"-"),
    )


def _encode_size(size: int) -> bytes:
    return format_size(size).encode()


# ---- dead letters and crumbs ---------------------------------------------------------------------------------------------
LETTER = {
    "payload_type": "shop.Add",
    "payload": {"n": 1, "raw": b"\xff", "list": [1, None]},
    "target": ["shop/cart", "42"],
    "sender": ["shop/other", "1"],
    "reason": "ValueError: no",
    "traceback": "Traceback ...",
    "attempts": 3,
    "checkpoint": (1 << 32) | 17,
    "time": 1.5,
}


def _letter(data: bytes) -> DeadLetter:
    """As the command line and the supervisor read one; it has to fit into an answer."""
    name, raw = pieces(data, 2)
    letter = letter_of(name, raw)
    is_for_type(raw, "shop/cart")
    msgspec.json.encode(LettersAnswer(checkpoint="1.1", total=1, letters=[letter]))
    return letter


def _is_for_type(data: bytes) -> bool:
    return is_for_type(data, "shop/cart")


def _letters() -> list[bytes]:
    key = b"\0\0d" + LetterName((1 << 32) | 17, 3, 0).encode()
    some = [LETTER, LETTER | {"sender": None, "lossy": True}, LETTER | {"payload": 10**30}, LETTER | {"payload": b"bytes"}]
    return [joined(key, cbor2.dumps(letter)) for letter in some]


def _crumbs() -> list[bytes]:
    table = bytearray(TABLE_BYTES)
    crumbs = CrumbTable(table)
    empty = bytes(table)
    crumbs.put(Crumb(b"k" * 16, 1, "shop/cart:42"))
    crumbs.put(Crumb(b"", 2, "é" * 400))
    return [empty, bytes(table)]


def _crumb_slots(data: bytes) -> tuple[Crumb, ...] | None:
    """A table whose last slots are free: a whole one is longer than what is fuzzed."""
    return read_crumbs(data.ljust(TABLE_BYTES, b"\0"))


def _shown(data: bytes) -> bytes:
    """What is stored, as JSON knows it: whatever it is, it can be said."""
    try:
        value = load_cbor(data)
    except ValueError as error:
        raise CorruptionError("not CBOR") from error
    return msgspec.json.encode(json_like(value))


TARGETS = (
    Target("ordered-key", _key, (ValueError,), _keys),
    Target("declared-key", _declared_key, (PayloadTypeError,), _declared_keys),
    Target(
        "page-token",
        _token,
        (ConfigurationError,),
        lambda: [ids_token(3, b"id").encode(), token_of(b"m", b"x" * 50).encode(), token_of(IDS, b"\0\1").encode()],
        lambda place: ids_token(*place).encode(),
    ),
    _text_target(
        "letter-name",
        parse_letter_name,
        (ConfigurationError,),
        ["1.17-3-0", "4294967295.1-1-65535"],
        lambda name: str(name).encode(),
    ),
    _text_target(
        "address",
        parse_address,
        (DefinitionError,),
        ["shop/cart:42", "a/b:c:d", "shop/cart:\N{SNOWMAN}"],
        lambda address: str(Address(*address)).encode(errors="surrogateescape"),
    ),
    _text_target("typename", check_typename, (DefinitionError,), ["shop/cart", "a/b"], str.encode),
    _text_target("duration", parse_duration, (ValueError,), ["200 ms", "1.5 s", "3 h", "0 s"]),
    _text_target("size", parse_size, (ValueError,), ["64 MiB", "1 B", "1.5 kB"], _encode_size),
    _text_target(
        "listen", parse_listen, (ValueError,), ["127.0.0.1:8484", "[::1]:0", "localhost:1"], lambda listen: str(listen).encode()
    ),
    Target("letter", _letter, (CorruptionError,), _letters),
    Target("letter-type", _is_for_type, (CorruptionError,), lambda: [cbor2.dumps(LETTER)]),
    Target("crumbs", read_crumbs, (), _crumbs),
    Target("crumb-slots", _crumb_slots, (), lambda: [table.rstrip(b"\0") for table in _crumbs()]),
    Target(
        "shown-value", _shown, (CorruptionError,), lambda: [cbor2.dumps(LETTER), cbor2.dumps([1.5, dt.datetime.now(dt.UTC)])]
    ),
)
