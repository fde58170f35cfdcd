"""The same results without shardfun: one thread, dictionaries and a loop over the file.

This is what the published records are compared with, so it must share no logic with the application: it imports only the
numbers in ``rules``. There are no messages here: an answer that always comes is simply counted.

    python -m shardfun.examples.flights.plain FILE --out FOLDER
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from shardfun.examples.flights.rules import LATE_ROTATION_MINUTES, QUESTIONED_DELAY_MINUTES, ROTATION_BREAK_MINUTES

Row = dict[str, str]
Figures = dict[str, int]
Record = dict[str, Any]

AIRCRAFT = ("legs", "diverted", "cancelled", "rotations", "late_legs", "rotation_minutes")
AIRCRAFT_ANSWERS = ("logged", "logged_minutes", "explained", "open_cases")
AIRPORT = ("departures", "departure_minutes", "arrivals", "arrival_minutes", "cancelled", "worst_delay")
CARRIER = ("legs", "diverted", "cancelled", "miles", "departure_minutes", "arrival_minutes")
CARRIER_ANSWERS = ("questions", "answers", "carried_minutes", "own_minutes")


class World:
    """Everything there is: three tables of figures, the last flight of each aircraft, and the late legs in file order."""

    def __init__(self) -> None:
        self.aircraft: dict[str, Figures] = {}
        self.airports: dict[str, Figures] = {}
        self.carriers: dict[str, Figures] = {}
        self.last_flight: dict[str, tuple[datetime, int]] = {}
        self.accumulated: dict[str, int] = {}
        self.late: list[Record] = []

    def take(self, row: Row) -> None:
        """One row of the file."""
        if row["dep_time"] == "NA":
            self._cancelled(row)
        else:
            self._flown(row)

    def _cancelled(self, row: Row) -> None:
        if row["tailnum"] != "NA":
            _figures(self.aircraft, row["tailnum"], AIRCRAFT + AIRCRAFT_ANSWERS)["cancelled"] += 1
            self.last_flight.pop(row["tailnum"], None)
        _figures(self.carriers, row["carrier"], CARRIER + CARRIER_ANSWERS)["cancelled"] += 1
        _figures(self.airports, row["origin"], AIRPORT)["cancelled"] += 1

    def _flown(self, row: Row) -> None:
        dep_delay = int(row["dep_delay"])
        arr_delay = None if row["arr_delay"] == "NA" else int(row["arr_delay"])
        carried = self._rotate(row, dep_delay, arr_delay)

        aircraft = self.aircraft[row["tailnum"]]
        carrier = _figures(self.carriers, row["carrier"], CARRIER + CARRIER_ANSWERS)
        origin = _figures(self.airports, row["origin"], AIRPORT)
        origin["departures"] += 1
        origin["departure_minutes"] += dep_delay
        origin["worst_delay"] = max(origin["worst_delay"], dep_delay)
        aircraft["logged"] += 1
        aircraft["logged_minutes"] += dep_delay
        carrier["legs"] += 1
        carrier["miles"] += int(row["distance"])
        carrier["departure_minutes"] += dep_delay
        if arr_delay is None:
            aircraft["diverted"] += 1
            carrier["diverted"] += 1
        else:
            destination = _figures(self.airports, row["dest"], AIRPORT)
            destination["arrivals"] += 1
            destination["arrival_minutes"] += arr_delay
            destination["worst_delay"] = max(destination["worst_delay"], arr_delay)
            aircraft["logged"] += 1
            aircraft["logged_minutes"] += arr_delay
            carrier["arrival_minutes"] += arr_delay
        if dep_delay >= QUESTIONED_DELAY_MINUTES:
            aircraft["explained"] += 1
            carrier["questions"] += 1
            carrier["answers"] += 1
            carrier["carried_minutes"] += carried
            carrier["own_minutes"] += dep_delay - carried

    def _rotate(self, row: Row, dep_delay: int, arr_delay: int | None) -> int:
        """Take the aircraft one leg further; return the minutes of delay that it brought along."""
        tail = row["tailnum"]
        aircraft = _figures(self.aircraft, tail, AIRCRAFT + AIRCRAFT_ANSWERS)
        departed = _scheduled(row) + timedelta(minutes=dep_delay)
        delay_after = dep_delay if arr_delay is None else arr_delay
        since_previous = None
        carried = 0
        if tail in self.last_flight:
            departed_before, delay_before = self.last_flight[tail]
            gap = (departed - departed_before) // timedelta(minutes=1)
            if gap < ROTATION_BREAK_MINUTES:
                since_previous = gap
                carried = max(0, min(dep_delay, delay_before))
        if since_previous is None:
            aircraft["rotations"] += 1
            self.accumulated[tail] = 0
        else:
            aircraft["rotation_minutes"] += since_previous
        self.last_flight[tail] = (departed, delay_after)
        self.accumulated[tail] = max(0, self.accumulated[tail] + delay_after)
        aircraft["legs"] += 1
        if self.accumulated[tail] >= LATE_ROTATION_MINUTES:
            aircraft["late_legs"] += 1
            self.late.append(
                {
                    "address": f"flights/aircraft:{tail}",
                    "leg": aircraft["legs"],
                    "rotation": aircraft["rotations"],
                    "flight": row["carrier"] + row["flight"],
                    "origin": row["origin"],
                    "dest": row["dest"],
                    "arr_delay": arr_delay,
                    "accumulated": self.accumulated[tail],
                    "since_previous": since_previous,
                }
            )
        return carried

    def totals(self) -> Iterator[Record]:
        """One record for each aircraft, airport and carrier."""
        for typename, table in (("aircraft", self.aircraft), ("airport", self.airports), ("carrier", self.carriers)):
            for id, figures in sorted(table.items()):
                yield {"address": f"flights/{typename}:{id}", **figures}


def _figures(table: dict[str, Figures], id: str, names: tuple[str, ...]) -> Figures:
    return table.setdefault(id, dict.fromkeys(names, 0))


def _scheduled(row: Row) -> datetime:
    hour, minute = divmod(int(row["sched_dep_time"]), 100)
    # Read by hand: 2400 is a time in this file, and not one for datetime.
    return datetime(int(row["year"]), int(row["month"]), int(row["day"])) + timedelta(hours=hour, minutes=minute)  # noqa: DTZ001  one clock


def compute(rows: Iterable[Row]) -> dict[str, list[Record]]:
    """The records of both egresses, by egress name."""
    world = World()
    for row in rows:
        world.take(row)
    return {"late": world.late, "totals": list(world.totals())}


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a CSV file, gzipped if its name ends so."""
    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as stream:
        yield from csv.DictReader(stream)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path, help="flights CSV, as tools/prepare_flights writes it")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where late.jsonl and totals.jsonl go")
    options = parser.parse_args(arguments)
    try:
        results = compute(read_rows(options.file))
        options.out.mkdir(parents=True, exist_ok=True)
        for egress, records in results.items():
            lines = "".join(json.dumps(record) + "\n" for record in records)
            (options.out / f"{egress}.jsonl").write_text(lines)
            print(f"{options.out / egress}.jsonl: {len(records)} records")
    except OSError as error:
        print(f"plain: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
