"""Numbers as people read them: counts, rates, sizes, durations. Pure, and short enough for a column of a table."""

from __future__ import annotations

from typing import Final

NOTHING: Final = "-"
_UNITS: Final = ("KiB", "MiB", "GiB", "TiB")


def count(number: int) -> str:
    """``12345`` as ``12,345``."""
    return f"{number:,}"


def counted(number: int, singular: str, plural: str = "") -> str:
    """``1 shard``, ``2 shards``."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def rate(per_second: float | None) -> str:
    """``1234.5`` as ``1,234/s``; slow ones keep a decimal."""
    if per_second is None:
        return NOTHING
    return f"{per_second:,.1f}/s" if 0 < per_second < 10 else f"{per_second:,.0f}/s"


def size(byte_count: int) -> str:
    """Bytes in the largest binary unit that leaves at least one."""
    if byte_count < 1024:
        return f"{byte_count} B"
    value = float(byte_count)
    for unit in _UNITS:
        value /= 1024
        if value < 1024 or unit == _UNITS[-1]:
            break
    return f"{value:.1f} {unit}" if value < 100 else f"{value:.0f} {unit}"


def duration(seconds: float) -> str:
    """``0.093`` as ``93 ms``, ``4.2`` as ``4.2 s``, ``3723`` as ``1 h 02 min``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
