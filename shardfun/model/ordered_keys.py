"""Keys of maps as bytes: the order of the bytes is the order of the keys, and the bytes can be read without the declaration.

LevelDB orders entries by their bytes, so a scan comes in key order for nothing. No encoding is the beginning of another one, so
that parts of a tuple stand one behind the other. Each part begins with a byte that tells its type (compare FoundationDB's tuple
layer, whose idea this is):

- ``bytes`` and ``str`` (as UTF-8, so by code points): a zero byte becomes ``00 01``, and ``00 00`` ends the text;
- ``int`` of any size: a byte ``80`` + length, then the number; of a negative one, the complement of all that;
- ``float``: the bits, with the sign flipped, or all of them if negative; ``-0.0`` is ``0.0``, every NaN is the same key, the last;
- ``date``: the day's number; ``datetime``: microseconds since the year 1, of an aware one in UTC (equal instants are one key);
  those without a time zone come first, as they are written;
- a tuple: its parts, then ``00``; an enum: its value.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import struct
import typing
import uuid
from collections.abc import Callable
from typing import Any

from shardfun.errors import DefinitionError, PayloadTypeError
from shardfun.model.conversion import unalias

KEY_BYTES_MAX = 4096  # as of an id
TUPLE_DEPTH_MAX = 50

_END = 0x00  # of a tuple: before every other part
_BYTES, _TEXT, _INT, _FLOAT, _FALSE, _TRUE, _UUID, _DATE, _NAIVE, _AWARE, _TUPLE = range(1, 12)
_ONE_BYTE_LENGTH_MAX = 0x7E
_SHORT_TEXT = 1000
_INT_HEADS = [bytes((_INT, 0x80 + length)) for length in range(_ONE_BYTE_LENGTH_MAX + 1)]
_SIGN = 1 << 63
_ALL = (1 << 64) - 1
_DOUBLE = struct.Struct(">d")
_WORD = struct.Struct(">Q")
_NAN = b"\x7f\xf8" + bytes(6)
_YEAR_ONE = dt.datetime(1, 1, 1)  # noqa: DTZ001 - a zero point, in every zone
_MICROSECOND = dt.timedelta(microseconds=1)

Write = Callable[[Any], bytes]
"""One key to bytes; ``PayloadTypeError`` without the place if it is of another type."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class KeyType:
    """The declared type of a map's keys. Made by ``key_type``.

    Args:
        name: the type as text: stored for maps that are registered at run time.
        what: what to call the key in an error.

    ``encode``: a key as bytes; raises ``PayloadTypeError`` if it is not of the declared type, or too long.
    """

    name: str
    what: str
    _write: Write
    _parts: Write | None
    _read: Callable[[Any], Any] | None
    encode: Write = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        """Most keys are ids and numbers: these are encoded in one call."""
        quick = _QUICK.get(self._write)
        object.__setattr__(self, "encode", self._encode if quick is None else quick(self._encode))

    def _encode(self, key: Any) -> bytes:
        try:
            encoded = self._write(key)
        except PayloadTypeError as error:
            msg = f"{self.what}: {error}"
            raise PayloadTypeError(msg) from None
        if len(encoded) > KEY_BYTES_MAX:
            msg = f"{self.what}: expected at most {KEY_BYTES_MAX} bytes, got {len(encoded)}"
            raise PayloadTypeError(msg)
        return encoded

    def encode_bound(self, key: Any) -> bytes:
        """The bytes at which the keys from ``key`` on begin; of tuples, ``key`` may be the first parts only.

        Raises:
            PayloadTypeError: it does not fit the declared type.
        """
        if self._parts is None:
            return self.encode(key)
        try:
            return self._parts(key)
        except PayloadTypeError as error:
            msg = f"{self.what}: {error}"
            raise PayloadTypeError(msg) from None

    def decode(self, encoded: bytes) -> Any:
        """Bytes to the key.

        Raises:
            PayloadTypeError: they are not one of the declared type (the declaration has changed).
        """
        try:
            key = decode_key(encoded)
            if self._read is not None:
                key = self._read(key)
            if self._write(key) == encoded:
                return key
        except (ValueError, PayloadTypeError) as error:
            msg = f"{self.what}: the stored key is not of the declared type {self.name}: {error}"
            raise PayloadTypeError(msg) from error
        msg = f"{self.what}: the stored key {key!r:.100} is not of the declared type {self.name}"
        raise PayloadTypeError(msg)


def key_type(annotation: Any, what: str) -> KeyType:
    """What a declared type of keys means.

    Args:
        what: what to call a key in an error, such as ``"state field 'prices': key"``.

    Raises:
        DefinitionError: there is no order for keys of that type.
    """
    part = _part(annotation, what)
    return KeyType(part.name, what, part.write, part.write_open, part.read)


# ---- writing -----------------------------------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """``write_open``: of a tuple, its parts without an end. ``read``: from what ``decode_key`` gives; ``None``: as it is."""

    name: str
    write: Write
    read: Callable[[Any], Any] | None = None
    write_open: Write | None = None


def _part(annotation: Any, what: str) -> _Part:
    annotation = unalias(annotation)
    if annotation in _WRITERS:
        return _Part(annotation.__name__, _WRITERS[annotation])
    if typing.get_origin(annotation) is tuple:
        return _tuple_part(typing.get_args(annotation), what)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _enum_part(annotation, what)
    msg = f"{what}: {annotation!r} cannot be the type of keys; use {', '.join(cls.__name__ for cls in _WRITERS)}, "
    msg += "an enum of str or int, or a tuple of these"
    raise DefinitionError(msg)


def _enum_part(cls: type[enum.Enum], what: str) -> _Part:
    kinds = {type(member.value) for member in cls}
    if kinds not in ({str}, {int}):
        msg = f"{what}: {cls.__qualname__} cannot be the type of keys: expected an enum whose values are all str or all int"
        raise DefinitionError(msg)
    write_value = _WRITERS[kinds.pop()]

    def write(key: Any) -> bytes:
        if type(key) is not cls:
            raise _mismatch(cls.__qualname__, key)
        return write_value(key.value)

    return _Part(f"{cls.__module__}.{cls.__qualname__}", write, cls)


def _tuple_part(members: tuple[Any, ...], what: str) -> _Part:
    same = len(members) == 2 and members[1] is Ellipsis
    parts = [_part(member, what) for member in members if member is not Ellipsis]
    name = f"tuple[{', '.join(part.name for part in parts)}{', ...' if same else ''}]"

    def write_open(key: Any) -> bytes:
        if type(key) is not tuple or (not same and len(key) > len(parts)):
            raise _mismatch(name, key)
        used = parts * len(key) if same else parts
        return bytes((_TUPLE,)) + b"".join([part.write(item) for part, item in zip(used, key, strict=False)])

    def write(key: Any) -> bytes:
        if type(key) is not tuple or (not same and len(key) != len(parts)):
            raise _mismatch(name, key)
        return write_open(key) + bytes((_END,))

    def read(key: Any) -> Any:
        if type(key) is not tuple or (not same and len(key) != len(parts)):
            raise _mismatch(name, key)
        used = parts * len(key) if same else parts
        return tuple(item if part.read is None else part.read(item) for part, item in zip(used, key, strict=True))

    convert = read if any(part.read is not None for part in parts) else None
    return _Part(name, write, convert, write_open)


def _mismatch(expected: str, key: Any) -> PayloadTypeError:
    return PayloadTypeError(f"expected {expected}, got {type(key).__qualname__}: {key!r:.100}")


def _write_text(key: Any) -> bytes:
    if type(key) is not str:
        raise _mismatch("str", key)
    try:
        raw = key.encode()
    except UnicodeEncodeError as error:
        msg = f"expected text that can be encoded, got {key!r:.100}"
        raise PayloadTypeError(msg) from error
    return b"\x02" + (raw.replace(b"\0", b"\0\1") if b"\0" in raw else raw) + b"\0\0"


def _write_bytes(key: Any) -> bytes:
    if type(key) is not bytes:
        raise _mismatch("bytes", key)
    return b"\x01" + key.replace(b"\0", b"\0\1") + b"\0\0"


def _write_int(key: Any) -> bytes:
    if type(key) is not int:
        raise _mismatch("int", key)
    length = (key.bit_length() + 7) // 8
    if key >= 0 and length <= _ONE_BYTE_LENGTH_MAX:
        return _INT_HEADS[length] + key.to_bytes(length, "big")
    size = abs(key)
    if length > KEY_BYTES_MAX:
        msg = f"expected a number of at most {KEY_BYTES_MAX} bytes, got one of {length}"
        raise PayloadTypeError(msg)
    if length <= _ONE_BYTE_LENGTH_MAX:
        number = ((0x80 + length) << 8 * length) + size
        width = length + 1
    else:
        number = (((0xFF << 32) + length) << 8 * length) + size
        width = length + 5
    if key < 0:
        number = (1 << 8 * width) - 1 - number
    return b"\x03" + number.to_bytes(width, "big")


def _quick_int(slow: Write) -> Write:
    def encode(key: Any) -> bytes:
        if type(key) is int and 0 <= key < _SIGN:
            length = (key.bit_length() + 7) >> 3
            return _INT_HEADS[length] + key.to_bytes(length, "big")
        return slow(key)

    return encode


def _quick_text(slow: Write) -> Write:
    def encode(key: Any) -> bytes:
        if type(key) is str and len(key) <= _SHORT_TEXT and key.isascii() and "\0" not in key:
            return b"\x02" + key.encode() + b"\0\0"
        return slow(key)

    return encode


def _write_float(key: Any) -> bytes:
    if type(key) is not float:
        raise _mismatch("float", key)
    bits = _WORD.unpack(_NAN if key != key else _DOUBLE.pack(key + 0.0))[0]  # noqa: PLR0124 - NaN; -0.0 + 0.0 is 0.0
    return b"\x04" + _WORD.pack(bits ^ (_ALL if bits & _SIGN else _SIGN))


def _write_bool(key: Any) -> bytes:
    if type(key) is not bool:
        raise _mismatch("bool", key)
    return b"\x06" if key else b"\x05"


def _write_uuid(key: Any) -> bytes:
    if type(key) is not uuid.UUID:
        raise _mismatch("UUID", key)
    return b"\x07" + key.bytes


def _write_date(key: Any) -> bytes:
    if type(key) is not dt.date:
        raise _mismatch("date", key)
    return b"\x08" + key.toordinal().to_bytes(4, "big")


def _write_datetime(key: Any) -> bytes:
    if type(key) is not dt.datetime:
        raise _mismatch("datetime", key)
    offset = key.utcoffset()
    micros = (key.replace(tzinfo=None, fold=0) - _YEAR_ONE) // _MICROSECOND
    if offset is None:
        return b"\x09" + _WORD.pack(micros)
    # Biased, because the year 1 in the east is before the year 1 in UTC: what cannot be read back must still be ordered.
    return b"\x0a" + _WORD.pack(micros - offset // _MICROSECOND + _SIGN)


_WRITERS: dict[Any, Write] = {
    str: _write_text,
    bytes: _write_bytes,
    int: _write_int,
    float: _write_float,
    bool: _write_bool,
    uuid.UUID: _write_uuid,
    dt.date: _write_date,
    dt.datetime: _write_datetime,
}

_QUICK: dict[Write, Callable[[Write], Write]] = {_write_int: _quick_int, _write_text: _quick_text}


# ---- reading -----------------------------------------------------------------------------------------------------------
def decode_key(encoded: bytes) -> Any:
    """The key that bytes stand for, without its declaration: an enum comes as its value.

    Raises:
        ValueError: they are no key.
    """
    try:
        key, end = _read(encoded, 0, TUPLE_DEPTH_MAX)
    except (IndexError, struct.error, OverflowError) as error:
        msg = f"damaged key {encoded!r:.100}"
        raise ValueError(msg) from error
    if end != len(encoded):
        msg = f"damaged key {encoded!r:.100}"
        raise ValueError(msg)
    return key


def _read(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    kind = data[at]
    at += 1
    match kind:
        case 0x02 | 0x01:
            raw, at = _read_escaped(data, at)
            return (raw.decode() if kind == _TEXT else raw), at
        case 0x03:
            return _read_int(data, at)
        case 0x04:
            bits = _WORD.unpack_from(data, at)[0]
            return _DOUBLE.unpack(_WORD.pack(bits ^ (_SIGN if bits & _SIGN else _ALL)))[0], at + 8
        case 0x05 | 0x06:
            return kind == _TRUE, at
        case 0x07:
            return uuid.UUID(bytes=data[at : at + 16]), at + 16
        case 0x08:
            return dt.date.fromordinal(int.from_bytes(data[at : at + 4], "big")), at + 4
        case 0x09:
            return _YEAR_ONE + _WORD.unpack_from(data, at)[0] * _MICROSECOND, at + 8
        case 0x0A:
            micros = _WORD.unpack_from(data, at)[0] - _SIGN
            return (_YEAR_ONE + micros * _MICROSECOND).replace(tzinfo=dt.UTC), at + 8
        case 0x0B:
            if depth == 0:
                msg = f"damaged key: tuples nested deeper than {TUPLE_DEPTH_MAX}"
                raise ValueError(msg)
            parts = []
            while data[at] != _END:
                part, at = _read(data, at, depth - 1)
                parts.append(part)
            return tuple(parts), at + 1
        case _:
            msg = f"damaged key: no part begins with {kind:#04x}"
            raise ValueError(msg)


def _read_escaped(data: bytes, at: int) -> tuple[bytes, int]:
    start = at
    while True:
        at = data.index(b"\0", at)
        if data[at + 1] == 0:
            return data[start:at].replace(b"\0\1", b"\0"), at + 2
        at += 2


def _read_int(data: bytes, at: int) -> tuple[int, int]:
    head = data[at]
    negative = head < 0x80
    length = (0x7F - head) if negative else (head - 0x80)
    width = length + 1
    if length > _ONE_BYTE_LENGTH_MAX:
        stored = int.from_bytes(data[at + 1 : at + 5], "big")
        length = (0xFFFFFFFF - stored) if negative else stored
        width = length + 5
    if length > KEY_BYTES_MAX or at + width > len(data):
        msg = "damaged key: a number is cut short"
        raise ValueError(msg)
    size = int.from_bytes(data[at + width - length : at + width], "big")
    return (size - ((1 << 8 * length) - 1) if negative else size), at + width
