"""The flights example: router, functions under any interleaving, the plain program on data small enough to check by hand."""

import json
from itertools import islice
from pathlib import Path

import pytest
from interleaving import World

from shardfun.examples.compare import compare
from shardfun.examples.flights import app, functions, plain
from shardfun.examples.flights.messages import Cancelled, Leg
from shardfun.examples.flights.routing import messages_of

JANUARY = Path(plain.__file__).parent.parent / "data" / "flights-2013-01.csv.gz"
STATES = {
    functions.AIRCRAFT: functions.Aircraft,
    functions.AIRPORT: functions.Airport,
    functions.CARRIER: functions.Carrier,
}


def flight(tail="N1", *, day="1", sched="600", dep="0", arr="0", carrier="UA", origin="JFK", dest="BOS"):
    """A row; ``dep`` and ``arr`` are delays, ``NA`` for none."""
    return {
        "year": "2013",
        "month": "1",
        "day": day,
        "dep_time": "NA" if dep == "NA" else "1",
        "sched_dep_time": sched,
        "dep_delay": dep,
        "arr_delay": arr,
        "carrier": carrier,
        "flight": "7",
        "tailnum": tail,
        "origin": origin,
        "dest": dest,
        "distance": "100",
    }


# ---- router --------------------------------------------------------------------------------------------------------------
def test_a_flown_leg_goes_to_its_aircraft():
    """One message, with the delay added to the scheduled minute."""
    (message,) = messages_of(flight(sched="2359", dep="3", arr="-4"))
    (earlier,) = messages_of(flight(sched="2359", dep="0", arr="-4"))
    assert (message.typename, message.id) == ("flights/aircraft", "N1")
    assert isinstance(message.value, Leg)
    assert message.value.departed - earlier.value.departed == 3
    assert (message.value.flight, message.value.arr_delay) == ("UA7", -4)


def test_a_scheduled_time_of_2400_is_midnight_of_the_next_day():
    """The data has such times."""
    (late,) = messages_of(flight(day="1", sched="2400"))
    (midnight,) = messages_of(flight(day="2", sched="0"))
    assert late.value.departed == midnight.value.departed


def test_a_diverted_leg_has_no_arrival_delay():
    """NA is no number, and not 0."""
    (message,) = messages_of(flight(arr="NA"))
    assert message.value.arr_delay is None


def test_a_cancelled_flight_with_an_aircraft_goes_to_the_aircraft():
    """The aircraft passes it on."""
    (message,) = messages_of(flight(dep="NA", arr="NA"))
    assert message == ("flights/aircraft", "N1", Cancelled("UA", "JFK"))


def test_a_cancelled_flight_without_aircraft_goes_to_carrier_and_airport():
    """There is no aircraft called NA."""
    messages = list(messages_of(flight("NA", dep="NA", arr="NA")))
    assert messages == [("flights/carrier", "UA", Cancelled("UA", "JFK")), ("flights/airport", "JFK", Cancelled("UA", "JFK"))]


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({}, "tailnum"),
        (flight(""), "tailnum"),
        (flight("NA"), "tailnum"),
        (flight(dep="soon"), "dep_delay"),
        (flight(arr=""), "arr_delay"),
        (flight(origin=""), "origin"),
        (flight(sched="6:00"), "sched_dep_time"),
        ({**flight(), "distance": None}, "distance"),
    ],
)
def test_a_row_that_cannot_be_read_names_the_column(row, named):
    """So that the dead letter says what is wrong."""
    with pytest.raises(ValueError, match=f"column '{named}'"):
        list(messages_of(row))


def test_an_impossible_date_is_refused():
    """The 32nd of January."""
    with pytest.raises(ValueError, match="day"):
        list(messages_of(flight(day="32")))


# ---- plain program, by hand ----------------------------------------------------------------------------------------------
ROWS = [
    flight(sched="600", dep="70", arr="80"),  # leaves 7:10; questioned
    flight(sched="1200", dep="65", arr="45", dest="LGA"),  # leaves 13:05, 355 minutes later; 65 of 65 carried; 125 in all
    flight(sched="1800", dep="10", arr="-60"),  # leaves 18:10, 305 minutes later; 65 in all
    flight(day="3", sched="600", dep="0", arr="NA"),  # next rotation, diverted
    flight(day="3", sched="700", dep="NA", arr="NA"),  # cancelled: ends that rotation
    flight(day="3", sched="800", dep="121", arr="130"),  # third rotation; questioned; late
    flight("NA", dep="NA", arr="NA", carrier="DL"),
]


def totals_of(results, address):
    (found,) = [record for record in results["totals"] if record["address"] == address]
    return found


def test_late_rotations_by_hand():
    """Two legs are late: the second of the first rotation, and the last."""
    late = plain.compute(ROWS)["late"]
    assert [(x["leg"], x["rotation"], x["accumulated"], x["since_previous"]) for x in late] == [
        (2, 1, 125, 355),
        (5, 3, 130, None),
    ]
    assert late[0] == {
        "address": "flights/aircraft:N1",
        "leg": 2,
        "rotation": 1,
        "flight": "UA7",
        "origin": "JFK",
        "dest": "LGA",
        "arr_delay": 45,
        "accumulated": 125,
        "since_previous": 355,
    }


def test_totals_by_hand():
    """Every figure of an aircraft, an airport and a carrier."""
    results = plain.compute(ROWS)
    assert totals_of(results, "flights/aircraft:N1") == {
        "address": "flights/aircraft:N1",
        "legs": 5,
        "diverted": 1,
        "cancelled": 1,
        "rotations": 3,
        "late_legs": 2,
        "rotation_minutes": 660,
        "logged": 9,
        "logged_minutes": 266 + 195,
        "explained": 3,
        "open_cases": 0,
    }
    assert totals_of(results, "flights/airport:JFK") == {
        "address": "flights/airport:JFK",
        "departures": 5,
        "departure_minutes": 266,
        "arrivals": 0,
        "arrival_minutes": 0,
        "cancelled": 2,
        "worst_delay": 121,
    }
    assert totals_of(results, "flights/carrier:UA") == {
        "address": "flights/carrier:UA",
        "legs": 5,
        "diverted": 1,
        "cancelled": 1,
        "miles": 500,
        "departure_minutes": 266,
        "arrival_minutes": 195,
        "questions": 3,
        "answers": 3,
        "carried_minutes": 65,
        "own_minutes": 191,
    }
    assert len(results["totals"]) == 1 + 3 + 2


def test_the_command_writes_what_it_computes(tmp_path, capsys):
    """One file for each egress; a missing input is one line and an exit code."""
    source = tmp_path / "flights.csv"
    source.write_text("\n".join([",".join(ROWS[0]), *(",".join(row.values()) for row in ROWS)]) + "\n")
    assert plain.main([str(source), "--out", str(tmp_path / "plain")]) == 0
    written = [json.loads(line) for line in (tmp_path / "plain" / "totals.jsonl").read_text().splitlines()]
    assert written == plain.compute(ROWS)["totals"]
    assert plain.main([str(tmp_path / "nothing.csv"), "--out", str(tmp_path)]) == 1
    assert "nothing.csv" in capsys.readouterr().err


# ---- the application against the plain program ----------------------------------------------------------------------------
def assert_confluent(rows, seed):
    world = World(app, STATES, seed)
    world.run(message for row in rows for message in messages_of(row))
    expected = plain.compute(rows)
    for egress, records in expected.items():
        comparison = compare(egress, world.published.get(egress, []), records, address="address")
        assert comparison.equal, comparison.differences


@pytest.mark.parametrize("seed", range(20))
def test_hand_made_rows_give_the_plain_result_in_any_interleaving(seed):
    """Confluent: order per aircraft, and sums, are all that counts."""
    assert_confluent(ROWS, seed)


@pytest.mark.parametrize("seed", range(5))
def test_real_flights_give_the_plain_result_in_any_interleaving(seed):
    """Four days of January, with cancellations, diversions and late rotations."""
    assert_confluent(list(islice(plain.read_rows(JANUARY), 3500)), seed)


def test_the_shipped_january_is_what_the_readme_of_the_data_says():
    """27,004 flights, none with an empty partition key, departures of one aircraft in order."""
    rows = list(plain.read_rows(JANUARY))
    assert len(rows) == 27_004
    assert all(row["tailnum"] for row in rows)
    unassigned = [row for row in rows if row["tailnum"] == "NA"]
    assert len(unassigned) == 155
    assert all(row["dep_time"] == "NA" for row in unassigned)
    last = {}
    for row in rows:
        for message in messages_of(row):
            if isinstance(message.value, Leg):
                assert last.get(message.id, 0) <= message.value.departed
                last[message.id] = message.value.departed
