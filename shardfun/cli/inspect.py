"""``shardfun inspect``: look at what a stopped node has stored. Shows what ``stored`` found."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shardfun.cli.figures import NOTHING, count, counted, size
from shardfun.cli.places import data_directory_of
from shardfun.cli.stored import Contents, Overview, StoredCheckpoint, StoredNode, StoredState, Timers
from shardfun.cli.stored_state import StoredCollection
from shardfun.errors import ConfigurationError, DefinitionError, StorageError
from shardfun.model.address import Address, parse_address
from shardfun.model.letters import DeadLetter

LETTERS_SHOWN: Final = 10
"""Dead letters in the overview, unless ``--limit`` says otherwise."""
ENTRIES_SHOWN: Final = 100
"""Entries of each map of an address, unless ``--limit`` says otherwise."""
PAYLOAD_SHOWN: Final = 400
PIPE_WIDTH: Final = 1000
EXIT_NOT_STORED: Final = 1

DESCRIPTION: Final = """\
Look at what a stopped node has stored, as of its newest complete checkpoint. Changes nothing and does not import the application.

While a node runs, only checkpoints and sizes can be shown: ask it with 'shardfun status'.
"""
EPILOG: Final = """\
examples:
  shardfun inspect data/flights                                   checkpoints, positions, sizes, dead letters
  shardfun inspect data/flights flights/aircraft:N14228           the state of one address
  shardfun inspect conf/flights.toml --dead-letters --json        all dead letters with their tracebacks
  shardfun inspect data/flights --timers --limit 20               the next messages to be sent, with their tokens

Exit code 1 if nothing is stored for ADDRESS.
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to the parser of ``shardfun``."""
    parser = subparsers.add_parser(
        "inspect",
        help="look at what a stopped node has stored",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("place", type=Path, metavar="DATA_DIR|CONFIG", help="the data directory, or the node's TOML file")
    parser.add_argument("address", nargs="?", metavar="ADDRESS", help="show the state of this address, namespace/name:id")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--dead-letters", action="store_true", help="show all dead letters, with payloads and tracebacks")
    parser.add_argument("--timers", action="store_true", help="show the messages that are to be sent later, the next first")
    parser.add_argument("--limit", type=_limit, metavar="N", help="show at most N: dead letters, timers, entries of a map")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """Print what was asked for; returns the exit code.

    Raises:
        ShardfunError: there is nothing to look at, it is in use, or damaged.
    """
    wanted = [options.address is not None, options.dead_letters, options.timers]
    if sum(wanted) > 1:
        raise ConfigurationError("inspect: expected one of ADDRESS, --dead-letters and --timers, got more")
    address = None if options.address is None else _address(options.address)
    node = StoredNode(data_directory_of(options.place))
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, emoji=False, markup=False)
    if address is not None:
        entries = ENTRIES_SHOWN if options.limit is None else options.limit
        return _show_state(console, node.state_of(address, entries), as_json=options.json)
    if options.dead_letters:
        with _telling_progress() as on_shard:
            contents = node.contents(options.limit, on_shard=on_shard)
        _show_letters(console, contents, as_json=options.json)
        return 0
    if options.timers:
        _show_timers(console, node.timers(options.limit), as_json=options.json)
        return 0
    return _show_overview(console, node, LETTERS_SHOWN if options.limit is None else options.limit, as_json=options.json)


def _limit(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number of dead letters, such as 20, got {text!r}")
    return int(text)


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except DefinitionError as error:
        raise ConfigurationError(str(error)) from error


@contextmanager
def _telling_progress() -> Iterator[Callable[[int], None]]:
    """A line that says which shard is read, while it is read, if there is a terminal."""
    with Console(stderr=True).status("reading the stores") as spinner:
        yield lambda shard: spinner.update(f"reading the store of shard {shard}")


# ---- one address ---------------------------------------------------------------------------------------------------------
def _show_state(console: Console, found: StoredState, *, as_json: bool) -> int:
    if as_json:
        _print_json(found)
    elif not found.exists:
        console.print(f"{found.address}: nothing is stored, as of checkpoint {found.checkpoint}", soft_wrap=True)
    else:
        where = f"(checkpoint {found.checkpoint}, shard {found.shard}, slot {found.slot})"
        console.print(f"{found.address}  {where}", soft_wrap=True)
        if found.state is not None:
            console.print(msgspec.json.format(msgspec.json.encode(found.state)).decode(), soft_wrap=True)
        for name, seconds in found.expires.items():
            console.print(f"{name or 'the instance'} expires {_time(seconds)}", soft_wrap=True)
        for collection in found.collections:
            _show_collection(console, collection)
    return 0 if found.exists else EXIT_NOT_STORED


def _show_collection(console: Console, found: StoredCollection) -> None:
    words = {"map": ("entry", "entries"), "buffer": ("element", "elements"), "registry": ("name", "names")}
    console.print()
    console.print(Text(f"{found.name}: {found.kind} of {counted(found.count, *words[found.kind])}", "bold"), soft_wrap=True)
    for item in found.items:
        expires = "" if item.expires is None else f"  expires {_time(item.expires)}"
        console.print(f"  {_json(item.key)}: {_json(item.value)}{expires}", soft_wrap=True)
    if found.count > len(found.items):
        console.print(f"  ... and {count(found.count - len(found.items))} more; --limit shows them", soft_wrap=True)


# ---- dead letters --------------------------------------------------------------------------------------------------------
def _show_letters(console: Console, contents: Contents, *, as_json: bool) -> None:
    if as_json:
        _print_json({"checkpoint": contents.checkpoint, "dead_letters": contents.dead_letters, "letters": contents.letters})
        return
    console.print(f"{counted(contents.dead_letters, 'dead letter')} as of checkpoint {contents.checkpoint}, the newest first")
    for letter in contents.letters:
        console.print()
        console.print(Text(f"{letter.target}: {letter.reason}", "bold"), soft_wrap=True)
        console.print(
            f"  {counted(letter.attempts, 'attempt')}, {_time(letter.time)}, after checkpoint {letter.checkpoint}, "
            f"from {letter.sender or 'an ingress'}",
            soft_wrap=True,
        )
        console.print(f"  {letter.payload_type} {_json(letter.payload)}", soft_wrap=True)
        for line in letter.traceback.splitlines():
            console.print(Text(f"  {line}", "dim"), soft_wrap=True)


# ---- timers --------------------------------------------------------------------------------------------------------------
def _show_timers(console: Console, found: Timers, *, as_json: bool) -> None:
    if as_json:
        _print_json(found)
        return
    console.print(f"{counted(found.timers, 'timer')} pending as of checkpoint {found.checkpoint}, the next first")
    table = _table("due", "target", "sender", "token", "message")
    for timer in found.pending:
        message = Text(f"{timer.payload_type} {_json(timer.payload)}")
        table.add_row(_time(timer.due), Text(timer.target), Text(timer.sender), Text(timer.token or NOTHING), message)
    if found.pending:
        _print_table(console, table)


# ---- overview ------------------------------------------------------------------------------------------------------------
def _show_overview(console: Console, node: StoredNode, letters: int, *, as_json: bool) -> int:
    """Show everything that can be read, then raise what prevented the rest."""
    overview = node.overview()
    contents: Contents | None = None
    problem: StorageError | None = None
    if not overview.in_use:
        try:
            with _telling_progress() as on_shard:
                contents = node.contents(letters, on_shard=on_shard)
        except StorageError as error:
            problem = error
    if as_json:
        described = None if contents is None else msgspec.to_builtins(contents)
        for letter in () if described is None else described["letters"]:
            del letter["traceback"]
        _print_json(msgspec.to_builtins(overview) | {"contents": described})
    else:
        _print_overview(console, overview)
        if contents is not None:
            _print_contents(console, contents)
    if problem is not None:
        raise problem
    return 0


def _print_overview(console: Console, overview: Overview) -> None:
    console.print(Text.assemble((overview.data_dir, "bold")), soft_wrap=True)
    incarnation = NOTHING if overview.incarnation is None else str(overview.incarnation)
    facts = f"{counted(overview.shards, 'shard')}  incarnation {incarnation}  job {overview.job}"
    console.print(f"{overview.app}  {facts}", soft_wrap=True)
    if overview.in_use:
        note = f"{overview.in_use}: its LevelDB is locked, so addresses and dead letters cannot be shown until it has stopped"
        console.print(Text(note, "yellow"), soft_wrap=True)
    table = _table("checkpoint", "time", "changes >", "size >", "")
    for checkpoint in overview.checkpoints:
        _add_checkpoint(table, checkpoint)
    if overview.checkpoints:
        _print_table(console, table)
    else:
        console.print("no complete checkpoint yet")
    if overview.positions:
        table = _table("ingress", "partition >", "position")
        for ingress, positions in overview.positions.items():
            for partition, position in enumerate(positions):
                table.add_row(Text(ingress), str(partition), Text(NOTHING if position is None else _json(position)))
        _print_table(console, table)
    table = _table("shard >", "LevelDB >", "deltas >", "size >")
    for files in overview.files:
        table.add_row(str(files.shard), size(files.leveldb_bytes), count(files.deltas), size(files.delta_bytes))
    _print_table(console, table)


def _add_checkpoint(table: Table, checkpoint: StoredCheckpoint) -> None:
    if checkpoint.damage:
        table.add_row(checkpoint.name, Text("damaged", "red"), NOTHING, NOTHING, Text(checkpoint.damage))
    else:
        table.add_row(checkpoint.name, _time(checkpoint.created_at), count(checkpoint.records), size(checkpoint.bytes), "")


def _print_contents(console: Console, contents: Contents) -> None:
    table = _table("function", "addresses >")
    for typename, addresses in contents.addresses.items():
        table.add_row(Text(typename), count(addresses))
    if contents.addresses:
        _print_table(console, table)
    if contents.timers:
        console.print(f"{counted(contents.timers, 'timer')} pending; which ones: --timers")
    if not contents.dead_letters:
        console.print("no dead letters")
        return
    more = contents.dead_letters - len(contents.letters)
    shown = f", the newest {count(len(contents.letters))}" if more else ""
    console.print(f"{counted(contents.dead_letters, 'dead letter')}{shown}; all with tracebacks: --dead-letters")
    if contents.letters:
        _print_table(console, _letter_table(contents.letters))


def _letter_table(letters: list[DeadLetter]) -> Table:
    table = _table("target", "attempts >", "time", "after checkpoint", "reason")
    for letter in letters:
        table.add_row(
            Text(letter.target),
            str(letter.attempts),
            _time(letter.time),
            letter.checkpoint,
            Text(" ".join(letter.reason.split())),
        )
    return table


# ---- printing ------------------------------------------------------------------------------------------------------------
def _table(*columns: str) -> Table:
    """A table without lines. A column whose name ends in ``>`` is of numbers."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column.removesuffix(" >"), justify="right" if column.endswith(">") else "left", overflow="fold")
    return table


def _print_table(console: Console, table: Table) -> None:
    console.print()
    console.print(table)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")


def _json(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= PAYLOAD_SHOWN else f"{text[:PAYLOAD_SHOWN]}... ({count(len(text))} characters)"


def _print_json(value: Any) -> None:
    print(msgspec.json.encode(value).decode())
