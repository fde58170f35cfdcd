"""The three functions: aircraft, airport, carrier.

::

    row -> aircraft -- Departure, Arrival --> airport -- Logged ------> aircraft
                    -- Operated ------------> carrier -- WhyLate -----> aircraft -- Explanation --> carrier

Messages of different senders interleave freely, so an airport or a carrier only adds up, and never tells anybody a sum that is
still growing. An aircraft decides by the order of its own rows alone; its answer to a question is about the leg that is asked
for, not about what it has done since.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from shardfun import App, Context, Message, State, Value, value
from shardfun.examples.flights import routing
from shardfun.examples.flights.messages import (
    AircraftTotals,
    AirportTotals,
    Arrival,
    Cancelled,
    CarrierTotals,
    Departure,
    Explanation,
    LateRotation,
    Leg,
    Logged,
    Operated,
    WhyLate,
)
from shardfun.examples.flights.routing import AIRCRAFT, AIRPORT, CARRIER
from shardfun.examples.flights.rules import LATE_ROTATION_MINUTES, QUESTIONED_DELAY_MINUTES, ROTATION_BREAK_MINUTES

app = App("flights")


@app.router("flights")
def route(record: dict[str, str]) -> Iterable[Message]:
    """One row of the file; see ``routing``."""
    return routing.messages_of(record)


# ---- aircraft ------------------------------------------------------------------------------------------------------------
class Case(msgspec.Struct, frozen=True):
    """Why a leg departed late, kept until the carrier has asked."""

    leg: int
    carried: int
    own: int


class Aircraft(State):
    """One aircraft, by tail number."""

    legs: Value[int] = value(0)
    diverted: Value[int] = value(0)
    cancelled: Value[int] = value(0)
    rotations: Value[int] = value(0)
    accumulated: Value[int] = value(0)
    late_legs: Value[int] = value(0)
    rotation_minutes: Value[int] = value(0)
    previous: Value[Leg | None] = value(None)
    cases: Value[tuple[Case, ...]] = value(())
    logged: Value[int] = value(0)
    logged_minutes: Value[int] = value(0)
    explained: Value[int] = value(0)


@app.function(AIRCRAFT)
def aircraft(ctx: Context[Aircraft], message: Leg | Cancelled | Logged | WhyLate) -> None:
    """Follow the rotation of one aircraft; tell airports and carrier; answer the carrier's questions."""
    match message:
        case Leg():
            _fly(ctx, message)
        case Cancelled():
            ctx.state.cancelled += 1
            ctx.state.previous = None  # whatever flies next starts a new rotation
            ctx.send(AIRPORT, message.origin, message)
            ctx.send(CARRIER, message.carrier, message)
        case Logged():
            ctx.state.logged += 1
            ctx.state.logged_minutes += message.minutes
        case WhyLate():
            _explain(ctx, message)


def _fly(ctx: Context[Aircraft], leg: Leg) -> None:
    state = ctx.state
    previous = state.previous
    state.legs += 1
    since_previous = None if previous is None else leg.departed - previous.departed
    if previous is None or since_previous is None or since_previous >= ROTATION_BREAK_MINUTES:
        since_previous = None
        carried = 0
        state.rotations += 1
        state.accumulated = 0
    else:
        carried = max(0, min(leg.dep_delay, _delay(previous)))
        state.rotation_minutes += since_previous
    state.accumulated = max(0, state.accumulated + _delay(leg))
    state.previous = leg
    if leg.dep_delay >= QUESTIONED_DELAY_MINUTES:
        state.cases += (Case(state.legs, carried, leg.dep_delay - carried),)

    ctx.send(AIRPORT, leg.origin, Departure(leg.dep_delay))
    if leg.arr_delay is None:
        state.diverted += 1
    else:
        ctx.send(AIRPORT, leg.dest, Arrival(leg.arr_delay))
    ctx.send(CARRIER, leg.carrier, Operated(state.legs, leg.dep_delay, leg.arr_delay, leg.distance))
    if state.accumulated >= LATE_ROTATION_MINUTES:
        state.late_legs += 1
        late = LateRotation(
            address=str(ctx.self),
            leg=state.legs,
            rotation=state.rotations,
            flight=leg.flight,
            origin=leg.origin,
            dest=leg.dest,
            arr_delay=leg.arr_delay,
            accumulated=state.accumulated,
            since_previous=since_previous,
        )
        ctx.emit("late", late)


def _delay(leg: Leg) -> int:
    """How late the aircraft was after the leg, as far as is known."""
    return leg.dep_delay if leg.arr_delay is None else leg.arr_delay


def _explain(ctx: Context[Aircraft], question: WhyLate) -> None:
    asked = [case for case in ctx.state.cases if case.leg == question.leg]
    assert len(asked) == 1, f"{ctx.self}: asked about leg {question.leg}, expected one open case, found {len(asked)}"
    assert ctx.caller is not None, "only carriers ask"
    ctx.state.cases = tuple(case for case in ctx.state.cases if case.leg != question.leg)
    ctx.state.explained += 1
    ctx.send(*ctx.caller, Explanation(asked[0].carried, asked[0].own))


@app.on_end(AIRCRAFT)
def aircraft_end(ctx: Context[Aircraft]) -> None:
    """Publish what one aircraft did."""
    state = ctx.state
    totals = AircraftTotals(
        address=str(ctx.self),
        legs=state.legs,
        diverted=state.diverted,
        cancelled=state.cancelled,
        rotations=state.rotations,
        late_legs=state.late_legs,
        rotation_minutes=state.rotation_minutes,
        logged=state.logged,
        logged_minutes=state.logged_minutes,
        explained=state.explained,
        open_cases=len(state.cases),
    )
    ctx.emit("totals", totals)


# ---- airport -------------------------------------------------------------------------------------------------------------
class Airport(State):
    """One airport, by its three letters."""

    departures: Value[int] = value(0)
    departure_minutes: Value[int] = value(0)
    arrivals: Value[int] = value(0)
    arrival_minutes: Value[int] = value(0)
    cancelled: Value[int] = value(0)
    worst_delay: Value[int] = value(0)


@app.function(AIRPORT)
def airport(ctx: Context[Airport], message: Departure | Arrival | Cancelled) -> None:
    """Add up the delays at one airport, and answer each departure and arrival."""
    match message:
        case Departure():
            ctx.state.departures += 1
            ctx.state.departure_minutes += message.delay
        case Arrival():
            ctx.state.arrivals += 1
            ctx.state.arrival_minutes += message.delay
        case Cancelled():
            ctx.state.cancelled += 1
            return
    ctx.state.worst_delay = max(ctx.state.worst_delay, message.delay)
    assert ctx.caller is not None, "departures and arrivals come from aircraft"
    ctx.send(*ctx.caller, Logged(message.delay))


@app.on_end(AIRPORT)
def airport_end(ctx: Context[Airport]) -> None:
    """Publish the figures of one airport."""
    state = ctx.state
    totals = AirportTotals(
        address=str(ctx.self),
        departures=state.departures,
        departure_minutes=state.departure_minutes,
        arrivals=state.arrivals,
        arrival_minutes=state.arrival_minutes,
        cancelled=state.cancelled,
        worst_delay=state.worst_delay,
    )
    ctx.emit("totals", totals)


# ---- carrier -------------------------------------------------------------------------------------------------------------
class Carrier(State):
    """One carrier, by its two letters."""

    legs: Value[int] = value(0)
    diverted: Value[int] = value(0)
    cancelled: Value[int] = value(0)
    miles: Value[int] = value(0)
    departure_minutes: Value[int] = value(0)
    arrival_minutes: Value[int] = value(0)
    questions: Value[int] = value(0)
    answers: Value[int] = value(0)
    carried_minutes: Value[int] = value(0)
    own_minutes: Value[int] = value(0)


@app.function(CARRIER)
def carrier(ctx: Context[Carrier], message: Operated | Cancelled | Explanation) -> None:
    """Add up what one carrier flew; ask back about each leg that departed very late."""
    state = ctx.state
    match message:
        case Operated():
            state.legs += 1
            state.miles += message.distance
            state.departure_minutes += message.dep_delay
            if message.arr_delay is None:
                state.diverted += 1
            else:
                state.arrival_minutes += message.arr_delay
            if message.dep_delay >= QUESTIONED_DELAY_MINUTES:
                assert ctx.caller is not None, "legs are reported by aircraft"
                state.questions += 1
                ctx.send(*ctx.caller, WhyLate(message.leg))
        case Cancelled():
            state.cancelled += 1
        case Explanation():
            state.answers += 1
            state.carried_minutes += message.carried
            state.own_minutes += message.own


@app.on_end(CARRIER)
def carrier_end(ctx: Context[Carrier]) -> None:
    """Publish the figures of one carrier."""
    state = ctx.state
    totals = CarrierTotals(
        address=str(ctx.self),
        legs=state.legs,
        diverted=state.diverted,
        cancelled=state.cancelled,
        miles=state.miles,
        departure_minutes=state.departure_minutes,
        arrival_minutes=state.arrival_minutes,
        questions=state.questions,
        answers=state.answers,
        carried_minutes=state.carried_minutes,
        own_minutes=state.own_minutes,
    )
    ctx.emit("totals", totals)
