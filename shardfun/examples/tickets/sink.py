"""A sink that writes to a database, exactly once: records and their number go into it in one transaction.

After a crash the shard does not know whether its last records arrived. The sink does: it says how many it holds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec

from shardfun.sinks import Egress

SCHEMA = """
CREATE TABLE IF NOT EXISTS history (partition INTEGER, number INTEGER, ticket TEXT, times INTEGER);
CREATE TABLE IF NOT EXISTS held (job TEXT, partition INTEGER, records INTEGER, PRIMARY KEY (job, partition));
"""


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of the sink.

    Args:
        path: the database; it is made if needed.
    """

    path: Path


class Row(msgspec.Struct):
    """One record as the function emits it."""

    ticket: str
    times: int


class History(Egress):
    """How often each ticket was opened, each time it is."""

    options = Options

    def open(self) -> int:
        """Connect, and say how many records are there."""
        self.database = sqlite3.connect(self.settings.path, timeout=30, isolation_level=None)
        self.database.executescript(SCHEMA)
        self.database.execute("PRAGMA synchronous = FULL")
        query = "SELECT records FROM held WHERE job = ? AND partition = ?"
        row = self.database.execute(query, (self.partition.job, self.partition.index)).fetchone()
        return 0 if row is None else row[0]

    def publish(self, records: Sequence[bytes], first: int) -> None:
        """Records and their number, in one transaction."""
        rows = [msgspec.json.decode(record, type=Row) for record in records]
        index = self.partition.index
        self.database.execute("BEGIN IMMEDIATE")
        try:
            self.database.executemany(
                "INSERT INTO history VALUES (?, ?, ?, ?)",
                [(index, number, row.ticket, row.times) for number, row in enumerate(rows, start=first)],
            )
            self.database.execute(
                "INSERT OR REPLACE INTO held VALUES (?, ?, ?)", (self.partition.job, index, first + len(rows))
            )
            self.database.execute("COMMIT")
        except BaseException:
            self.database.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Disconnect."""
        self.database.close()
