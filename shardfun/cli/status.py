"""``shardfun status``: ask a running node how it is."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from shardfun.cli.places import data_directory_of

QUERY_TIMEOUT_S: Final = 2.0
PIPE_WIDTH: Final = 1000
"""Columns of a table that goes to no terminal: wide enough that nothing is cut."""

DESCRIPTION: Final = """\
Ask a running node how it is: what it has read and published, its last checkpoint, and each of its shards.

It is asked through its data directory, so it must run on this machine. Exit code 8 if no node runs there.
"""
EPILOG: Final = """\
examples:
  shardfun status conf/flights.toml
  shardfun status data/flights --json
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to the parser of ``shardfun``."""
    parser = subparsers.add_parser(
        "status",
        help="ask a running node how it is",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("place", type=Path, metavar="CONFIG|DATA_DIR", help="the node's TOML file or its data directory")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """Print the status; returns the exit code.

    Raises:
        UnavailableError: no node runs there, or it does not answer.
    """
    from shardfun.supervisor import query_status

    status = query_status(data_directory_of(options.place), QUERY_TIMEOUT_S)
    if options.json:
        print(msgspec.json.encode(status).decode())
        return 0
    from rich.console import Console

    from shardfun.cli.node_view import node_view

    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(node_view(status))
    return 0
