"""A source that polls a table: each row once, in the order of its number.

The position is the number of the last row. It is stored in the checkpoint together with what the row has caused, so after a crash
reading goes on behind the last row whose effects are kept. The table has to be append-only, and numbers may only become visible in
their order (in SQLite they do, since it has one writer at a time).
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import msgspec

from shardfun.sources import Ingress, IngressError


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of the source.

    Args:
        path: the database, with a table ``changes (number, ticket, open)``.
        until: the number of the last row; without it, the source waits for more rows for ever.
    """

    path: Path
    until: int | None = None


class Changes(Ingress):
    """The rows whose ticket belongs to this partition."""

    options = Options
    idle_s = 0.05

    def open(self, position: Any | None) -> None:
        """Connect; ``position`` is the number of the last row that was taken in."""
        path = self.settings.path
        if not path.exists():
            raise IngressError(f"ingress {self.name!r}: there is no database {path}; make it, or correct 'path'")
        self.database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        self.last = 0 if position is None else position

    def read(self, limit: int) -> list[tuple[int, dict[str, Any]]] | None:
        """The next rows. Those of other partitions are gone past."""
        if self.settings.until is not None and self.last >= self.settings.until:
            return None
        query = "SELECT number, ticket, open FROM changes WHERE number > ? ORDER BY number LIMIT ?"
        rows = self.database.execute(query, (self.last, limit)).fetchall()
        if rows:
            self.last = rows[-1][0]
        return [
            (number, {"ticket": ticket, "open": bool(is_open), "number": number})
            for number, ticket, is_open in rows
            if self.partition.owns(ticket)
        ]

    def close(self) -> None:
        """Disconnect."""
        self.database.close()
