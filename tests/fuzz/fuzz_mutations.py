"""Inputs that are wrong: mutations of valid ones, and things that are hostile to any decoder of bytes."""

from __future__ import annotations

import functools
import gzip
from collections.abc import Sequence
from typing import Final

import cbor2
from hypothesis import strategies as st

Step = tuple[int, float, float, bytes]
"""Which kind, two places from 0 to 1, and bytes for those that need some."""

_INTERESTING: Final = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    (1 << 63) - 1,
    (1 << 64) - 1,
)
KINDS: Final = 11


def mutated(data: bytes, steps: Sequence[Step], others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """Apply steps to an input. The same steps always do the same.

    Args:
        others: inputs to splice with.
        words: pieces that are inserted.
    """
    for step in steps:
        data = _step(data, step, others, words)
    return data


def _step(data: bytes, step: Step, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    kind, first, second, extra = step
    at = int(first * len(data))
    other = int(second * len(data))
    low, high = min(at, other), max(at, other)
    pick = int(second * 1_000_003)
    match kind % KINDS:
        case 0 if data:  # a bit
            at = min(at, len(data) - 1)
            return data[:at] + bytes((data[at] ^ (1 << pick % 8),)) + data[at + 1 :]
        case 1:  # cut short
            return data[:at]
        case 2:  # inserted
            return data[:at] + extra + data[at:]
        case 3:  # overwritten
            return data[:at] + extra + data[at + len(extra) :]
        case 4:  # a part gone
            return data[:low] + data[high:]
        case 5:  # a part twice
            return data[:high] + data[low:high] + data[high:]
        case 6 if others:  # two inputs
            chosen = others[pick % len(others)]
            return data[:at] + chosen[int(second * len(chosen)) :]
        case 7:  # a length, or another number
            width = (1, 2, 4, 8)[pick % 4]
            number = _INTERESTING[pick % len(_INTERESTING)] & ((1 << 8 * width) - 1)
            return data[:at] + number.to_bytes(width, "big") + data[at + width :]
        case 8 if words:  # a word of the format
            word = words[pick % len(words)]
            return data[:at] + word + data[at + (len(word) if pick % 2 else 0) :]
        case 9:  # something hostile inside
            return data[:at] + SMALL_BOMBS[pick % len(SMALL_BOMBS)] + data[at + 1 :]
        case _:  # a digit or a sign replaced
            return data[:at] + b'0123456789-+.eE"\\{}[],:=\0\r\n\t %&;#'[pick % 31 : pick % 31 + 1] + data[at + 1 :]


@st.composite
def mutations(draw: st.DrawFn, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """Valid inputs with up to four mutations."""
    place = st.floats(0, 1, allow_nan=False, width=32)
    step = st.tuples(st.integers(0, KINDS - 1), place, place, st.binary(max_size=8))
    data = seeds[draw(st.integers(0, len(seeds) - 1))]
    return mutated(data, draw(st.lists(step, min_size=1, max_size=4)), seeds, words)


# ---- hostile to CBOR -----------------------------------------------------------------------------------------------------
def _tagged(tag: int, body: bytes) -> bytes:
    return cbor2.dumps(cbor2.CBORTag(tag, 0))[:-1] + body


def _laughs(levels: int, width: int) -> bytes:
    """A list that holds a list many times, that holds a list many times, ...: each is in the input once (tags 28 and 29)."""
    item = _tagged(28, cbor2.dumps(["x"]))
    for depth in reversed(range(levels - 1)):
        item = _tagged(28, bytes((0x80 + width + 1,)) + item + _tagged(29, cbor2.dumps(depth + 1)) * width)
    return item


CBOR_BOMBS: Final = (
    b"\x81" * 10_000 + b"\x00",  # nested lists
    b"\xa1\x00" * 10_000 + b"\x00",  # nested maps
    b"\x9f" * 10_000,  # nested lists without an end
    b"\xc1" * 10_000 + b"\x00",  # nested tags
    b"\x81" * 350 + b"\x00",  # as deep as the decoder lets pass
    b"\xa1\x61a" * 350 + b"\x00",
    b"\x5b" + b"\xff" * 8,  # a declared length
    b"\x5b\x00\x00\x00\x01\x00\x00\x00\x00",
    b"\x7b\x00\x00\x00\x10\x00\x00\x00\x00",
    b"\x9b\x00\x00\x00\x10\x00\x00\x00\x00",
    b"\x9a\x7f\xff\xff\xff",
    b"\xbb\x00\x00\x00\x10\x00\x00\x00\x00",
    _tagged(2, cbor2.dumps(b"\xff" * 20_000)),  # an integer with 48,000 digits
    _tagged(3, cbor2.dumps(b"\xff" * 20_000)),
    _tagged(2, cbor2.dumps(b"\xff" * 1_900)),  # one digit more than Python writes, and some
    _tagged(4, cbor2.dumps([10**9, 1])),  # decimal fractions and big floats with huge exponents
    _tagged(4, cbor2.dumps([-(10**18), 1])),
    _tagged(5, cbor2.dumps([10**9, 3])),
    _tagged(5, cbor2.dumps([-(10**9), 3])),
    _tagged(30, cbor2.dumps([1, 0])),
    _tagged(30, b"\x82\x01" + _tagged(2, cbor2.dumps(b"\xff" * 9_000))),
    _tagged(35, cbor2.dumps("(" * 1500)),
    _tagged(35, cbor2.dumps("a{4294967296}")),
    _tagged(36, cbor2.dumps("Content-Type: text/plain; charset=none\n\nx")),
    _tagged(0, cbor2.dumps("2013-13-99")),
    _tagged(1, cbor2.dumps(float("nan"))),
    _tagged(1, cbor2.dumps(1e300)),
    _tagged(37, cbor2.dumps(b"short")),
    _tagged(258, cbor2.dumps([1, 1, [2]])),
    _tagged(28, b"\x81" + _tagged(29, b"\x00")),  # a list that holds itself
    _laughs(12, 9),
    b"\x82" + _tagged(256, b"\x82" + cbor2.dumps("y" * 500) + _tagged(25, b"\x00")) + b"\x00",
    b"\xa2\x61a\x01\x61a\x02",  # a key twice
    b"\xa1\xa0\x00",  # a map as a key
    b"\x61\xff",
    b"\xf7",
    b"\xf8\xff",
    b"\xf9\x7e\x00",
    b"\xf9\x7c\x00",
    b"\x7f\x61a\x61b\xff",
    b"\x5f\x41a\x41b\xff",
    b"\xff",
    b"\x1c",
)

TEXT_BOMBS: Final = (
    b"[" * 20_000,
    b"[" * 20_000 + b"]" * 20_000,
    b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    b"[" * 350 + b"]" * 350,
    b"9" * 20_000,
    b"-" + b"9" * 20_000,
    b"1e400",
    b"1e-400",
    b"NaN",
    b"Infinity",
    b"0x" + b"f" * 20_000,
    b'"\\ud800"',
    b'{"a":1,"a":2}',
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b"\xed\xa0\x80",
    "٣".encode(),
    b"a." * 5_000 + b"a",
    b"(" * 5_000,
    b"%00%ff%",
    b"\0",
    b"\x1b[2J",
    b"'" * 1000,
    b'"' * 1001,
)

SMALL_BOMBS: Final = tuple(bomb for bomb in (*CBOR_BOMBS, *TEXT_BOMBS) if len(bomb) <= 2000)


@functools.cache
def hostile() -> tuple[bytes, ...]:
    """Whole inputs that are hostile to any decoder."""
    zeros = gzip.compress(bytes(32 << 20), 3)
    return (b"", bytes(1), bytes(1000), b"\xff" * 1000, zeros, gzip.compress(zeros), *CBOR_BOMBS, *TEXT_BOMBS)
