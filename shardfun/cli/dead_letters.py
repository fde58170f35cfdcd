"""``shardfun dead-letters``: look at messages that were parked, send them again, or delete them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, assert_never

import msgspec

from shardfun.cli.figures import count, counted
from shardfun.cli.places import data_directory_of
from shardfun.errors import ConfigurationError, DefinitionError, UnavailableError
from shardfun.model.address import check_typename
from shardfun.model.letters import DeadLetter, parse_letter_name
from shardfun.model.questions import LETTERS_MAX, Action, LettersAnswer, LettersQuestion

if TYPE_CHECKING:
    from rich.console import Console

ANSWER_TIMEOUT_S: Final = 90.0
"""More than a node waits for a checkpoint, so that it is the node that says what is wrong."""
PIPE_WIDTH: Final = 1000
EXIT_NOT_ALL: Final = 1

DESCRIPTION: Final = """\
Look at dead letters: messages that could not be processed and were parked with the reason. Send them again, or delete them.

  list     one line for each, the newest first, with its KEY
  show     everything about the given ones: message, sender, reason, traceback
  replay   send the messages again, as from their senders, and delete the letters
  drop     delete them

A node that runs is asked, through its data directory. Of one that is stopped 'list' and 'show' read the store; 'replay' and 'drop'
need it to run. These two answer when a complete checkpoint holds what they did: then it has happened, exactly once.
"""
EPILOG: Final = """\
examples:
  shardfun dead-letters list conf/shop.toml
  shardfun dead-letters show conf/shop.toml 1.17-3-0
  shardfun dead-letters replay conf/shop.toml 1.17-3-0 1.17-4-1
  shardfun dead-letters replay conf/shop.toml --all --type shop/cart
  shardfun dead-letters drop conf/shop.toml --all --limit 100

A letter whose message has no place in the application any more, or which is a record of an ingress, is not sent but stays.
Exit code 1 if a KEY is not there or a letter was not sent, 8 if no node runs there.
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to the parser of ``shardfun``."""
    parser = subparsers.add_parser(
        "dead-letters",
        help="look at parked messages, send them again, or delete them",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("action", choices=("list", "show", "replay", "drop"), metavar="list|show|replay|drop")
    parser.add_argument("place", type=Path, metavar="CONFIG|DATA_DIR", help="the node's TOML file or its data directory")
    parser.add_argument("keys", nargs="*", metavar="KEY", help="which dead letters, as 'list' prints them: 1.17-3-0")
    parser.add_argument("--all", action="store_true", help="all of them instead of KEYs (of that type, if --type is given)")
    parser.add_argument("--type", dest="typename", metavar="T", help="only those whose target is of this type, namespace/name")
    parser.add_argument(
        "--limit", type=_limit, default=LETTERS_MAX, metavar="N", help=f"at most the newest N, 1 to {LETTERS_MAX} (the default)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """Do what was asked for; returns the exit code.

    Raises:
        ShardfunError: the command line is wrong, the node cannot do it, or its data cannot be read.
    """
    question = _question(options)
    data_dir = data_directory_of(options.place)
    answer = _running(data_dir, question) if _node_runs(data_dir) else _stopped(data_dir, question)
    if options.json:
        print(msgspec.json.encode(answer).decode())
    else:
        _show(answer, question)
    for key in answer.unknown:
        print(f"shardfun: {key}: no such dead letter", file=sys.stderr)
    return EXIT_NOT_ALL if answer.unknown or any(change.refused for change in answer.changes) else 0


def _limit(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= LETTERS_MAX:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to {LETTERS_MAX}, got {text!r}")
    return int(text)


def _question(options: argparse.Namespace) -> LettersQuestion:
    action: Action = options.action
    if action == "list":
        if options.keys:
            raise ConfigurationError("dead-letters list: expected no KEY; 'show' shows single dead letters")
    elif bool(options.keys) == options.all:
        raise ConfigurationError(f"dead-letters {action}: expected KEYs, or --all; 'list' prints the keys")
    if len(options.keys) > LETTERS_MAX:
        raise ConfigurationError(f"dead-letters {action}: expected at most {LETTERS_MAX} KEYs, got {len(options.keys)}")
    for key in options.keys:
        parse_letter_name(key)
    if options.typename is not None and not options.typename.startswith("ingress/"):
        try:
            check_typename(options.typename)
        except DefinitionError as error:
            raise ConfigurationError(f"--type: {error}") from error
    return LettersQuestion(action=action, keys=options.keys, typename=options.typename, limit=options.limit)


def _node_runs(data_dir: Path) -> bool:
    from shardfun.cli.store_view import is_locked

    return is_locked(data_dir / "lock", by_flock=True)


def _running(data_dir: Path, question: LettersQuestion) -> LettersAnswer:
    from shardfun.supervisor import ask_for_letters

    with _waiting("waiting for a checkpoint") as _:
        return ask_for_letters(data_dir, question, ANSWER_TIMEOUT_S)


def _stopped(data_dir: Path, question: LettersQuestion) -> LettersAnswer:
    if question.action in {"replay", "drop"}:
        msg = f"dead-letters {question.action}: no node runs on {data_dir}, and it has to; start it with 'shardfun run CONFIG'"
        raise UnavailableError(msg)
    from shardfun.cli.stored import StoredNode

    names = [parse_letter_name(key) for key in question.keys]
    with _waiting("reading the stores"):
        return StoredNode(data_dir).letters(names, question.typename, question.limit)


@contextmanager
def _waiting(text: str) -> Iterator[None]:
    """A line that says so, if there is a terminal."""
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


# ---- printing ------------------------------------------------------------------------------------------------------------
def _show(answer: LettersAnswer, question: LettersQuestion) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, emoji=False, markup=False)
    match question.action:
        case "list":
            _show_list(console, answer)
        case "show":
            _show_letters(console, answer)
        case "replay":
            _show_changes(console, answer, "sent again")
        case "drop":
            _show_changes(console, answer, "deleted")
        case _:
            assert_never(question.action)


def _show_list(console: Console, answer: LettersAnswer) -> None:
    from rich.table import Table
    from rich.text import Text

    more = answer.total - len(answer.letters)
    shown = f", the newest {count(len(answer.letters))} of them" if more else ""
    console.print(f"{counted(answer.total, 'dead letter')} as of checkpoint {answer.checkpoint}{shown}")
    if not answer.letters:
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("key", "time", "target", "message", "attempts", "reason"):
        table.add_column(column, justify="right" if column == "attempts" else "left", overflow="fold")
    for letter in answer.letters:
        cells = (letter.key, _time(letter.time), letter.target, letter.payload_type)
        table.add_row(*map(Text, cells), str(letter.attempts), Text(" ".join(letter.reason.split())))
    console.print(table)


def _show_letters(console: Console, answer: LettersAnswer) -> None:
    from rich.text import Text

    for number, letter in enumerate(answer.letters):
        if number:
            console.print()
        console.print(Text(f"{letter.key}  {letter.target}", "bold"), soft_wrap=True)
        for label, value in _described(letter):
            console.print(Text(f"  {label:<11}{value}"), soft_wrap=True)
        for line in letter.traceback.splitlines():
            console.print(Text(f"  {line}", "dim"), soft_wrap=True)


def _described(letter: DeadLetter) -> list[tuple[str, str]]:
    return [
        ("reason", " ".join(letter.reason.split())),
        ("sender", letter.sender or "none (an ingress)"),
        ("message", f"{letter.payload_type} {msgspec.json.encode(letter.payload).decode()}"),
        ("attempts", str(letter.attempts)),
        ("parked", f"{_time(letter.time)}, after checkpoint {letter.checkpoint}"),
    ]


def _show_changes(console: Console, answer: LettersAnswer, done_text: str) -> None:
    from rich.text import Text

    done = [change for change in answer.changes if not change.refused]
    for change in answer.changes:
        if change.refused:
            console.print(Text(f"{change.key}  {change.target}: not sent: {change.refused}", "red"), soft_wrap=True)
    left = answer.total - len(answer.changes)
    console.print(f"{counted(len(done), 'dead letter')} {done_text}, as of checkpoint {answer.checkpoint}")
    if left > 0:
        console.print(f"{count(left)} more fit; ask again for the next")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")
