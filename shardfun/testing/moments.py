"""Times of a test: aware datetimes and durations outside, whole unix milliseconds inside."""

from __future__ import annotations

import datetime as dt

START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
"""When a test begins, unless it says otherwise."""

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLISECOND = dt.timedelta(milliseconds=1)


def to_ms(moment: dt.datetime) -> int:
    """Unix milliseconds.

    Raises:
        ValueError: the moment has no time zone.
    """
    if moment.tzinfo is None:
        msg = f"expected a datetime with a time zone, such as datetime(2024, 1, 1, tzinfo=UTC), got {moment!r}"
        raise ValueError(msg)
    return (moment - _EPOCH) // _MILLISECOND


def to_datetime(ms: int) -> dt.datetime:
    """The datetime in UTC."""
    return _EPOCH + ms * _MILLISECOND


def duration_ms(duration: dt.timedelta | float) -> int:
    """A timedelta or seconds, rounded up.

    Raises:
        ValueError: it is negative.
    """
    delta = duration if isinstance(duration, dt.timedelta) else dt.timedelta(seconds=duration)
    if delta < dt.timedelta(0):
        msg = f"time goes forward only: expected 0 or more, got {duration!r}"
        raise ValueError(msg)
    return -(-delta // _MILLISECOND)
