"""Sizes and durations: read, written, refused with a hint."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfun.config.units import Duration, Size, format_duration, format_size, parse_duration, parse_size, toml_key


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("200 ms", 0.2),
        ("200ms", 0.2),
        (" 2 s ", 2.0),
        ("1.5 min", 90.0),
        ("5 min", 300.0),
        ("1 h", 3600.0),
        ("1 d", 86400.0),
        ("10 us", 1e-05),
        ("0 s", 0.0),
        ("70 ms", 0.07),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "count"), [("64 MiB", 64 << 20), ("1.5 KiB", 1536), ("1 kB", 1000), ("7 B", 7), (4096, 4096), ("2GiB", 2 << 30)]
)
def test_sizes(text: object, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (200, '"200 ms" or "200 s"'),
        (0.5, '"0.5 ms" or "0.5 s"'),
        ("200", "expected a unit"),
        ("5 m", "write 'min'"),
        ("5 seconds", "write 's'"),
        ("-1 s", "expected a duration"),
        ("1e3 s", "expected a duration"),
        ("9" * 5000 + " s", "expected a duration"),
        (True, "expected a duration"),
        ("\u0665 s", "expected a duration"),
        (None, "expected a duration"),
    ],
)
def test_wrong_durations(value: object, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        parse_duration(value)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("64", "expected a unit"),
        ("64 M", "expected a unit"),
        ("8 mb", "write 'MiB'"),
        ("0.3 B", "whole number"),
        (1.5, "a size"),
        (True, "a size"),
    ],
)
def test_wrong_sizes(value: object, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        parse_size(value)


def test_ranges_are_inclusive_and_named() -> None:
    marker = Duration(0.01, 3600)
    assert marker.read("10 ms") == 0.01
    assert marker.read("1 h") == 3600
    with pytest.raises(ValueError, match="10 ms to 1 h, got '2 h'"):
        marker.read("2 h")
    with pytest.raises(ValueError, match="at least 1 MiB, got 5"):
        Size(1 << 20).read(5)


@given(st.integers(0, 10**13))
def test_written_durations_read_back(microseconds: int) -> None:
    seconds = microseconds / 10**6
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, 1 << 50))
def test_written_sizes_read_back(count: int) -> None:
    assert parse_size(format_size(count)) == count


@pytest.mark.parametrize(
    ("attribute", "key"), [("interval_s", "interval"), ("cache_bytes", "cache"), ("retries", "retries"), ("shards", "shards")]
)
def test_keys(attribute: str, key: str) -> None:
    assert toml_key(attribute) == key
