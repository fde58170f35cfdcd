"""What travels between aircraft, airports and carriers, and what is published.

Frozen structs of scalars: they stay objects inside a shard and travel as columns between shards.
"""

from __future__ import annotations

import msgspec


# ---- events of the outside world -----------------------------------------------------------------------------------------
class Leg(msgspec.Struct, frozen=True):
    """One flight that took place.

    Args:
        departed: when it really left, in minutes on the clock of New York (all flights start there).
        dep_delay: minutes; negative if early.
        arr_delay: minutes; ``None`` if the flight was diverted and never arrived at ``dest``.
        distance: miles.
    """

    carrier: str
    flight: str
    origin: str
    dest: str
    departed: int
    dep_delay: int
    arr_delay: int | None
    distance: int


class Cancelled(msgspec.Struct, frozen=True):
    """One flight that did not take place. Passed on by the aircraft, or by the router if no aircraft was assigned."""

    carrier: str
    origin: str


# ---- between functions ---------------------------------------------------------------------------------------------------
class Departure(msgspec.Struct, frozen=True):
    """An aircraft tells the airport that it left."""

    delay: int


class Arrival(msgspec.Struct, frozen=True):
    """An aircraft tells the airport that it arrived."""

    delay: int


class Logged(msgspec.Struct, frozen=True):
    """The airport's answer to a departure or an arrival: so many minutes were written down."""

    minutes: int


class Operated(msgspec.Struct, frozen=True):
    """An aircraft tells the carrier for which it flew a leg. ``leg`` numbers the legs of this aircraft from 1."""

    leg: int
    dep_delay: int
    arr_delay: int | None
    distance: int


class WhyLate(msgspec.Struct, frozen=True):
    """The carrier asks the aircraft back about one of its legs."""

    leg: int


class Explanation(msgspec.Struct, frozen=True):
    """The aircraft's answer: minutes of departure delay that came with the previous leg, and minutes of this leg's own."""

    carried: int
    own: int


# ---- published -----------------------------------------------------------------------------------------------------------
class LateRotation(msgspec.Struct, frozen=True):
    """Egress ``late``: after this leg the accumulated delay of the rotation is above the limit.

    Args:
        address: of the aircraft.
        rotation: numbered from 1 for each aircraft.
        accumulated: minutes of delay in this rotation so far; early arrivals make up for it.
        since_previous: minutes between the previous departure from New York and this one; ``None`` at the start of a rotation.
    """

    address: str
    leg: int
    rotation: int
    flight: str
    origin: str
    dest: str
    arr_delay: int | None
    accumulated: int
    since_previous: int | None


class AircraftTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Egress ``totals``.

    Args:
        rotation_minutes: from the first to the last departure of each rotation, added up.
        logged: answers from airports: as many as departures and arrivals.
        explained: questions of carriers that were answered.
        open_cases: questions still expected; 0 unless one was lost.
    """

    address: str
    legs: int
    diverted: int
    cancelled: int
    rotations: int
    late_legs: int
    rotation_minutes: int
    logged: int
    logged_minutes: int
    explained: int
    open_cases: int


class AirportTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Egress ``totals``."""

    address: str
    departures: int
    departure_minutes: int
    arrivals: int
    arrival_minutes: int
    cancelled: int
    worst_delay: int


class CarrierTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Egress ``totals``. ``questions`` equals ``answers`` unless a message was lost or executed twice."""

    address: str
    legs: int
    diverted: int
    cancelled: int
    miles: int
    departure_minutes: int
    arrival_minutes: int
    questions: int
    answers: int
    carried_minutes: int
    own_minutes: int
