"""Sizes and durations as people write them: ``"64 MiB"``, ``"200 ms"``.

A plain ``200`` in a configuration file is read as milliseconds by one person and as seconds by the next, so durations carry
their unit in the file and their attribute carries it in the code (``interval_s``). The markers here go into the annotations
of option structs, ours and those of third parties; this module knows nothing of files, sections or settings.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Final

from shardfun.model.cbor import shown

# Digits are limited so that no text, however long, is turned into a huge integer.
_QUANTITY: Final = re.compile(r"\s*(\d{1,18}(?:\.\d{1,9})?)\s*([^\W\d_]*)\s*", re.ASCII)

_SECONDS: Final = MappingProxyType(
    {
        "us": Fraction(1, 1_000_000),
        "ms": Fraction(1, 1000),
        "s": Fraction(1),
        "min": Fraction(60),
        "h": Fraction(3600),
        "d": Fraction(86_400),
    }
)
_BYTES: Final = MappingProxyType(
    {
        "B": 1,
        "kB": 1000,
        "MB": 1000**2,
        "GB": 1000**3,
        "TB": 1000**4,
        "KiB": 1 << 10,
        "MiB": 1 << 20,
        "GiB": 1 << 30,
        "TiB": 1 << 40,
    }
)
_SPELLED_OUT: Final = MappingProxyType(
    {"m": "min", "sec": "s", "secs": "s", "second": "s", "seconds": "s", "minute": "min", "minutes": "min"}
    | {"hour": "h", "hours": "h", "day": "d", "days": "d", "msec": "ms", "millis": "ms", "milliseconds": "ms", "b": "B"}
    | {"k": "KiB", "kb": "KiB", "kib": "KiB", "mb": "MiB", "mib": "MiB", "g": "GiB", "gb": "GiB", "gib": "GiB"}
)

SIZE_MAX: Final = 1 << 50
"""Bytes: more is a mistake, whatever it is for."""


@dataclass(frozen=True, slots=True)
class Duration:
    """Marks a ``float`` of seconds that is written with a unit: ``Annotated[float, Duration]`` or ``Duration(0.01, 3600)``.

    Args:
        minimum: seconds, inclusive.
        maximum: seconds, inclusive.
    """

    minimum: float = 0.0
    maximum: float = math.inf

    def read(self, value: object) -> float:
        """Seconds from ``"200 ms"``.

        Raises:
            ValueError: no text, no unit, an unknown unit, or out of range.
        """
        seconds = parse_duration(value)
        if not self.minimum <= seconds <= self.maximum:
            raise ValueError(f"expected {self.allowed}, got {value!r}")
        return seconds

    def show(self, value: float) -> str:
        """The text that ``read`` turns into ``value``."""
        return format_duration(value)

    @property
    def allowed(self) -> str:
        """The range, for people."""
        if self.maximum == math.inf:
            return f"at least {format_duration(self.minimum)}"
        return f"{format_duration(self.minimum)} to {format_duration(self.maximum)}"


@dataclass(frozen=True, slots=True)
class Size:
    """Marks an ``int`` of bytes that may be written with a unit: ``Annotated[int, Size]`` or ``Size(1 << 20)``.

    Args:
        minimum: bytes, inclusive.
        maximum: bytes, inclusive.
    """

    minimum: int = 0
    maximum: int = SIZE_MAX

    def read(self, value: object) -> int:
        """Bytes from ``"64 MiB"`` or a plain number of bytes.

        Raises:
            ValueError: neither of these, an unknown unit, or out of range.
        """
        count = parse_size(value)
        if not self.minimum <= count <= self.maximum:
            raise ValueError(f"expected {self.allowed}, got {value!r}")
        return count

    def show(self, value: int) -> str:
        """The text that ``read`` turns into ``value``."""
        return format_size(value)

    @property
    def allowed(self) -> str:
        """The range, for people."""
        if self.maximum == SIZE_MAX:
            return f"at least {format_size(self.minimum)}"
        return f"{format_size(self.minimum)} to {format_size(self.maximum)}"


def toml_key(attribute: str) -> str:
    """The key for an attribute: units are part of the value there, so ``interval_s`` is ``interval``. For ``rename=``."""
    for suffix in ("_s", "_bytes"):
        if attribute.endswith(suffix):
            return attribute.removesuffix(suffix)
    return attribute


def parse_duration(value: object) -> float:
    """Seconds from a text with a unit (us, ms, s, min, h, d).

    Raises:
        ValueError: it is no such text; a plain number is refused, since nothing says what it counts.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        msg = f'expected a duration with a unit, got the plain number {shown(value)}: write "{shown(value)} ms" or "{shown(value)} s"'
        raise ValueError(msg)  # noqa: TRY004 - the units' one kind of error, which the reader of a struct catches
    number, unit = _quantity(value, 'a duration such as "200 ms"')
    if unit not in _SECONDS:
        raise ValueError(_unit_problem(value, unit, tuple(_SECONDS)))
    return float(number * _SECONDS[unit])


def parse_size(value: object) -> int:
    """Bytes from a text with a unit (B, KiB, MiB, GiB, TiB; kB, MB, GB, TB are powers of 1000) or a plain number of bytes.

    Raises:
        ValueError: it is neither, or no whole number of bytes.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number, unit = _quantity(value, 'a size such as "64 MiB"')
    if unit not in _BYTES:
        raise ValueError(_unit_problem(value, unit, tuple(_BYTES)))
    count = number * _BYTES[unit]
    if count.denominator != 1:
        raise ValueError(f"expected a whole number of bytes, got {shown(value)}")
    return int(count)


def format_duration(seconds: float) -> str:
    """The shortest exact text: in the largest unit that gives a whole number, otherwise in (parts of) microseconds."""
    if not math.isfinite(seconds):
        return str(seconds)
    exact = Fraction(str(seconds))
    for unit in ("d", "h", "min", "s", "ms"):
        count = exact / _SECONDS[unit]
        if count.denominator == 1 and count >= 1:
            return f"{int(count)} {unit}"
    return "0 s" if exact == 0 else f"{float(exact / _SECONDS['us']):.9f}".rstrip("0").rstrip(".") + " us"


def format_size(count: int) -> str:
    """The shortest exact text: in the largest binary unit that gives a whole number."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if count and count % _BYTES[unit] == 0:
            return f"{count // _BYTES[unit]} {unit}"
    return f"{count} B"


def _quantity(value: object, expected: str) -> tuple[Fraction, str]:
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"expected {expected}, got {shown(value)}")
    return Fraction(match[1]), match[2]


def _unit_problem(value: object, unit: str, known: tuple[str, ...]) -> str:
    text = f"expected a unit ({', '.join(known)}), got {shown(value)}"
    meant = _SPELLED_OUT.get(unit.lower())
    if meant in known:
        text += f": write {meant!r}"
    return text
