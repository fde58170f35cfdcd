"""From a row of the flights file to messages.

The ingress is partitioned by tail number, so the rows of one aircraft arrive in the order of the file. ``NA`` is the tail
number of the flights that were cancelled before an aircraft was assigned: they concern no aircraft, only the carrier and the
airport, which are told directly. A row that cannot be read raises ``ValueError``, which makes it a dead letter.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from shardfun import Message
from shardfun.examples.flights.messages import Cancelled, Leg

AIRCRAFT = "flights/aircraft"
AIRPORT = "flights/airport"
CARRIER = "flights/carrier"
NO_VALUE = "NA"
MINUTES_PER_DAY = 1440


def messages_of(record: dict[str, str]) -> Iterable[Message]:
    """The messages for one row: a leg or a cancellation for its aircraft, or cancellations for carrier and airport.

    Raises:
        ValueError: a column is missing or does not hold what it should.
    """
    tail = _text(record, "tailnum")
    carrier = _text(record, "carrier")
    origin = _text(record, "origin")
    if _text(record, "dep_time") == NO_VALUE:
        cancelled = Cancelled(carrier, origin)
        if tail == NO_VALUE:
            return [Message(CARRIER, carrier, cancelled), Message(AIRPORT, origin, cancelled)]
        return [Message(AIRCRAFT, tail, cancelled)]
    if tail == NO_VALUE:
        msg = f"column 'tailnum': expected an aircraft, since the flight took place, found {tail!r}"
        raise ValueError(msg)
    dep_delay = _number(record, "dep_delay")
    leg = Leg(
        carrier=carrier,
        flight=carrier + _text(record, "flight"),
        origin=origin,
        dest=_text(record, "dest"),
        departed=_scheduled(record) + dep_delay,
        dep_delay=dep_delay,
        arr_delay=None if _text(record, "arr_delay") == NO_VALUE else _number(record, "arr_delay"),
        distance=_number(record, "distance"),
    )
    return [Message(AIRCRAFT, tail, leg)]


def _scheduled(record: dict[str, str]) -> int:
    """The scheduled departure in minutes since the first of January of year 1, on the clock of New York."""
    clock = _number(record, "sched_dep_time")
    day = date(_number(record, "year"), _number(record, "month"), _number(record, "day"))
    return day.toordinal() * MINUTES_PER_DAY + clock // 100 * 60 + clock % 100


def _text(record: dict[str, str], column: str) -> str:
    value = record.get(column)
    if not value:
        msg = f"column {column!r}: expected a value, found {value!r}"
        raise ValueError(msg)
    return value


def _number(record: dict[str, str], column: str) -> int:
    text = _text(record, column)
    try:
        return int(text)
    except ValueError:
        msg = f"column {column!r}: expected a whole number, found {text!r}"
        raise ValueError(msg) from None
