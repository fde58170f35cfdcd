"""``shardfun ask``: send a message to a function of a running node, and print its reply."""

from __future__ import annotations

import argparse
from typing import Any, Final

import msgspec

TIMEOUT_DEFAULT_S: Final = 60.0
TIMEOUT_MAX_S: Final = 86_400.0

DESCRIPTION: Final = """\
Send a message to a function of a running node, wait for its reply (ctx.reply) and print it as JSON. The reply is final: a complete
checkpoint contains all that led to it. With --key the request can be repeated, also after a crash of anything: it is processed once,
and the reply is the same.
"""
EPILOG: Final = """\
examples:
  shardfun ask conf/shop.toml shop/cart c1 '{"show": true}'
  shardfun ask conf/shop.toml shop/cart c1 - --key order-17 --timeout 5 <order.json

Exit code 1 if there is no such function, the message does not fit or the key belongs to another request, 8 if no node runs there, too
many messages wait already, or there is no reply in time; the request then goes on, and asking again with its key gives the reply.
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to the parser of ``shardfun``."""
    from shardfun.cli.sending import add_arguments

    parser = subparsers.add_parser(
        "ask",
        help="send a message to a function of a running node, and print its reply",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_arguments(parser)
    parser.add_argument("--key", metavar="KEY", help="names the request: again with the same key, it gives the same reply")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=TIMEOUT_DEFAULT_S,
        metavar="SECONDS",
        help=f"how long to wait for the reply (default {TIMEOUT_DEFAULT_S:g})",
    )
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """Ask; returns the exit code.

    Raises:
        ShardfunError: there is no reply, and why.
    """
    from shardfun.cli.sending import outgoing
    from shardfun.model.questions import AskQuestion
    from shardfun.supervisor.ask import ask_for_reply
    from shardfun.supervisor.entrance import json_of

    message = outgoing(options)
    question = AskQuestion(**message.fields, key=options.key, timeout_s=options.timeout)
    answer = ask_for_reply(message.data_dir, question)
    reply = json_of(message.targets, answer)
    shown = {"type": answer.payload_type, "reply": reply} if options.json else reply
    print(msgspec.json.encode(shown).decode())
    return 0


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= TIMEOUT_MAX_S:
        raise argparse.ArgumentTypeError(f"expected seconds, more than 0 and at most {TIMEOUT_MAX_S:g}, got {text!r}")
    return value
