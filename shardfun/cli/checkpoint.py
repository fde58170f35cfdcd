"""``shardfun checkpoint``: take a checkpoint now, and wait until it is complete."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

import msgspec

from shardfun.cli.figures import duration
from shardfun.cli.places import data_directory_of

DESCRIPTION: Final = """\
Take a checkpoint of a running node and wait until it is complete. Whatever the node had done before you asked is then durable, and
its records are on their way to the egresses.
"""
EPILOG: Final = """\
examples:
  shardfun checkpoint conf/shop.toml
  shardfun checkpoint data/shop --json

Exit code 8 if no node runs there, or none was complete in time.
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to the parser of ``shardfun``."""
    parser = subparsers.add_parser(
        "checkpoint",
        help="take a checkpoint now, and wait until it is complete",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("place", type=Path, metavar="CONFIG|DATA_DIR", help="the node's TOML file or its data directory")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """Take one; returns the exit code.

    Raises:
        UnavailableError: no node runs there, or it could not in time.
    """
    from shardfun.supervisor.ask import take_checkpoint

    answer = take_checkpoint(data_directory_of(options.place))
    if options.json:
        print(msgspec.json.encode(answer).decode())
    else:
        print(f"checkpoint {answer.checkpoint} is complete, after {duration(answer.took_ms / 1000)}")
    return 0
