"""``python -m shardfun.examples.tickets FILE``: make a database with 1000 changes of tickets, for ``conf/tickets.toml``."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

CHANGES = 1000
TICKETS = 40


def main(path: Path) -> None:
    """Write the database anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE changes (number INTEGER PRIMARY KEY, ticket TEXT, open INTEGER)")
    rows = [(f"ticket-{number * 7 % TICKETS}", number % 3 != 0) for number in range(CHANGES)]
    database.executemany("INSERT INTO changes (ticket, open) VALUES (?, ?)", rows)
    database.commit()
    database.close()
    print(f"{path}: {CHANGES} changes of {TICKETS} tickets")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
