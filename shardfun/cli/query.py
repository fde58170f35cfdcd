"""``shardfun query``: look at the state of an address while the node runs, or list the ids of a function type."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from shardfun.cli.places import data_directory_of
from shardfun.errors import ConfigurationError, DefinitionError
from shardfun.model.address import ID_BYTES_MAX, check_typename, parse_address
from shardfun.model.questions import PAGE_DEFAULT, PAGE_MAX, Item, ListAnswer, ListQuestion, Part, StateAnswer, StateQuestion

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH: Final = 1000
VALUE_SHOWN: Final = 400
"""Characters of a value in a line."""
EXIT_NOTHING: Final = 1

DESCRIPTION: Final = """\
Look at the state of an address in a running node: its single values, and the beginning of its maps, buffers and registries.

It is as a message that is handled now would find it; a busy address is not waited for: what is shown is what is committed. With
'--at checkpoint' it is as of the last checkpoint, which is what a recovery would go back to.

With '--list' it lists the ids of a type that have something stored as of the last checkpoint, in an order of no meaning that stays
the same. Of a stopped node 'shardfun inspect' shows the same.
"""
EPILOG: Final = """\
examples:
  shardfun query conf/shop.toml shop/cart 42
  shardfun query conf/shop.toml shop/cart 42 --at checkpoint --json
  shardfun query conf/shop.toml shop/cart 42 --part prices --limit 1000
  shardfun query conf/shop.toml shop/cart 42 --part extra.by_day --all
  shardfun query conf/shop.toml shop/cart --list --all

Bytes are shown as {"base64": ...}. Exit code 1 if there is nothing for ID, or no such function or part; 8 if no node runs there.
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to the parser of ``shardfun``."""
    parser = subparsers.add_parser(
        "query",
        help="look at the state of an address while the node runs, or list ids",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("place", type=Path, metavar="CONFIG|DATA_DIR", help="the node's TOML file or its data directory")
    parser.add_argument("typename", metavar="TYPE", help="the function type, namespace/name; also namespace/name:id")
    parser.add_argument("id", nargs="?", metavar="ID", help="the id")
    parser.add_argument("--list", action="store_true", help="list the ids of TYPE")
    parser.add_argument(
        "--at", choices=("live", "checkpoint"), default="live", help="as of now (the default) or the last checkpoint"
    )
    parser.add_argument(
        "--part", metavar="NAME", help="only this map, buffer or registry; FIELD.NAME: what is registered in one"
    )
    parser.add_argument("--after", metavar="NEXT", help="go on where an earlier answer ended, as it told")
    parser.add_argument(
        "--limit",
        type=_limit,
        default=PAGE_DEFAULT,
        metavar="N",
        help=f"at most N ids or items, 1 to {PAGE_MAX} (default {PAGE_DEFAULT})",
    )
    parser.add_argument("--all", action="store_true", help="go on to the end, N at a time: with --list or --part")
    parser.add_argument("--json", action="store_true", help="print one JSON object (with --all, one a line for each N)")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """Print what was asked for; returns the exit code.

    Raises:
        ShardfunError: the command line is wrong, or the node does not run or cannot answer.
    """
    question = _question(options)
    data_dir = data_directory_of(options.place)
    if isinstance(question, ListQuestion):
        return _list(data_dir, question, options)
    return _state(data_dir, question, options)


def _limit(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= PAGE_MAX:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to {PAGE_MAX}, got {text!r}")
    return int(text)


def _question(options: argparse.Namespace) -> StateQuestion | ListQuestion:
    typename, id = options.typename, options.id
    try:
        if id is None and not options.list and ":" in typename:
            typename, id = parse_address(typename)
        check_typename(typename)
    except DefinitionError as error:
        raise ConfigurationError(f"query: {error}") from error
    if (id is None) != options.list:
        raise ConfigurationError("query: expected an ID, or --list to list them")
    if options.list:
        if options.part is not None or options.at != "live":
            raise ConfigurationError("query --list: expected no --part and no --at; ids are listed as of the last checkpoint")
        return ListQuestion(typename=typename, after=options.after, limit=options.limit)
    if not 1 <= len(id.encode(errors="replace")) <= ID_BYTES_MAX:
        raise ConfigurationError(f"query: expected an ID of 1 to {ID_BYTES_MAX} bytes")
    if options.part is None and (options.all or options.after is not None):
        raise ConfigurationError("query: --all and --after need --part or --list")
    return StateQuestion(target=typename, id=id, at=options.at, part=options.part, after=options.after, limit=options.limit)


# ---- ids -----------------------------------------------------------------------------------------------------------------
def _list(data_dir: Path, question: ListQuestion, options: argparse.Namespace) -> int:
    from shardfun.supervisor.ask import ask_list

    def pages() -> Iterator[ListAnswer]:
        asked = question
        while True:
            answer = ask_list(data_dir, asked)
            yield answer
            if answer.next is None or not options.all:
                return
            asked = msgspec.structs.replace(question, after=answer.next)

    for answer in pages():
        if options.json:
            _print_json(answer)
            continue
        for id in answer.ids:
            print(id if id.isprintable() else _json(id))
        if answer.next is not None and not options.all:
            print(f"there may be more; go on with: --after {answer.next}", file=sys.stderr)
    return 0


# ---- state ---------------------------------------------------------------------------------------------------------------
def _state(data_dir: Path, question: StateQuestion, options: argparse.Namespace) -> int:
    from shardfun.supervisor.ask import ask_state

    asked = question
    first: StateAnswer | None = None
    while True:
        answer = ask_state(data_dir, asked)
        if options.json:
            _print_json(answer)
        elif first is None:
            _show(answer, question, more=not options.all)
        else:
            _show_items(_console(), answer.parts[str(question.part)])
        first = first or answer
        if answer.next is None or not options.all:
            return 0 if first.exists else EXIT_NOTHING
        asked = msgspec.structs.replace(question, after=answer.next)


def _console() -> Console:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, emoji=False, markup=False)


def _show(answer: StateAnswer, question: StateQuestion, *, more: bool) -> None:
    from rich.text import Text

    console = _console()
    as_of = (
        f"as of checkpoint {answer.checkpoint}" if question.at == "checkpoint" else f"live; last checkpoint {answer.checkpoint}"
    )
    if not answer.exists:
        console.print(f"{answer.address}: there is nothing, everything is at its default ({as_of})", soft_wrap=True)
        return
    console.print(Text.assemble((answer.address, "bold"), f"  ({as_of})"), soft_wrap=True)
    if question.part is None:
        for name, value in answer.fields.items():
            expires = f"  expires {_time(answer.expires[name])}" if name in answer.expires else ""
            console.print(f"  {name}: {_json(value)}{expires}", soft_wrap=True)
        if "" in answer.expires:
            console.print(f"  the instance expires {_time(answer.expires[''])}", soft_wrap=True)
    for name, part in answer.parts.items():
        if question.part not in {None, name}:
            continue
        expires = f", expires {_time(answer.expires[name])}" if name in answer.expires else ""
        empty = ", empty" if not part.items and part.next is None else ""
        console.print(Text(f"{name}: {part.kind}{empty}{expires}", "bold"), soft_wrap=True)
        _show_items(console, part)
        if part.next is not None and more:
            console.print(f"  there may be more; go on with: --part {name} --after {part.next}", soft_wrap=True)


def _show_items(console: Console, part: Part) -> None:
    for item in part.items:
        console.print(f"  {_name(part, item)}: {_json(item.value)}{_expires(item)}", soft_wrap=True)


def _name(part: Part, item: Item) -> str:
    """The key of an item. A text is shown without quotation marks if it cannot be mistaken."""
    if part.kind == "registry" and item.key.isprintable():
        return str(item.key)
    return _json(item.key)


def _expires(item: Item) -> str:
    return "" if item.expires is None else f"  expires {_time(item.expires)}"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")


def _json(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= VALUE_SHOWN else f"{text[:VALUE_SHOWN]}... ({len(text):,} characters; --json shows all)"


def _print_json(value: Any) -> None:
    print(msgspec.json.encode(value).decode())
