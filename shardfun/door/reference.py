"""The tables of ``docs/HTTP.md``: routes and problems. ``python -m shardfun.door.reference`` prints them; a test compares."""

from __future__ import annotations

import sys

from shardfun.door.openapi import OPERATIONS
from shardfun.door.problems import KINDS


def route_table() -> str:
    """All routes, with what they are for and what they answer when all is well."""
    lines = ["| method | path | what it does | answers |", "|---|---|---|---|"]
    for (method, path), operation in OPERATIONS.items():
        answers = ", ".join(map(str, operation.answers))
        lines.append(f"| {method} | `{path}` | {operation.summary} | {answers} |")
    return "\n".join(lines)


def problem_table() -> str:
    """All kinds of problems, by status."""
    lines = ["| status | type | when |", "|---|---|---|"]
    kinds = sorted(KINDS.values(), key=lambda kind: kind.status)
    return "\n".join([*lines, *(f"| {kind.status} | `{kind.urn}` | {kind.meaning} |" for kind in kinds)])


if __name__ == "__main__":
    sys.stdout.write(f"{route_table()}\n\n{problem_table()}\n")
