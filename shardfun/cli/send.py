"""``shardfun send``: send a message to a function of a running node."""

from __future__ import annotations

import argparse
from typing import Any, Final

import msgspec

DESCRIPTION: Final = """\
Send a message to a function of a running node. When the command returns, the message is on the disk and will be processed exactly
once, whatever fails. The message is JSON and must fit one of the function's payload types.
"""
EPILOG: Final = """\
examples:
  shardfun send conf/shop.toml shop/cart c1 '{"item": "book", "count": 2}'
  shardfun send conf/shop.toml shop/cart c1 - <message.json
  shardfun send data/shop shop/cart c1 '{"count": 2}' --type Remove

The application is imported from the current folder, PYTHONPATH or where it is installed, as for 'shardfun run'. Exit code 1 if there
is no such function or the message does not fit, 8 if no node runs there or too many messages wait already.
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to the parser of ``shardfun``."""
    from shardfun.cli.sending import add_arguments

    parser = subparsers.add_parser(
        "send",
        help="send a message to a function of a running node",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_arguments(parser)
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """Send it; returns the exit code.

    Raises:
        ShardfunError: it was not taken in.
    """
    from shardfun.cli.sending import outgoing
    from shardfun.model.questions import SendQuestion
    from shardfun.supervisor.ask import send_message

    message = outgoing(options)
    send_message(message.data_dir, SendQuestion(**message.fields))
    if options.json:
        print(msgspec.json.encode({"target": options.typename, "id": options.id, "durable": True}).decode())
    else:
        print(f"sent to {options.typename}:{options.id}")
    return 0
