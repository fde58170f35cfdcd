"""Targets: arguments of the command line."""

from __future__ import annotations

import argparse
import contextlib
import io
from typing import Any

from fuzz_registry import Target
from fuzz_values import text_of

from shardfun.cli import ask, dead_letters, inspect, query, send, simulate
from shardfun.cli.sending import _body
from shardfun.errors import ConfigurationError


class UsageError(Exception):
    """What argparse has said before it ended the process."""


_COMMANDS = (ask, dead_letters, inspect, query, send, simulate)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="shardfun")
    commands = parser.add_subparsers(required=True, dest="command")
    for module in _COMMANDS:
        module.add_parser(commands)
    return parser


PARSER = _parser()


def _arguments(data: bytes) -> Any:
    """The arguments of a command, as the parser and what looks at them first take them."""
    said = io.StringIO()
    options, code = argparse.Namespace(), 0
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            PARSER.parse_args([text_of(part) for part in data.split(b"\0")], options)
    except SystemExit as error:
        code = error.code
        options.command = None
    assert code in {0, 2}
    assert "Traceback" not in said.getvalue()
    if options.command is None:
        raise UsageError(f"usage: {said.getvalue()[-200:]}")
    if options.command == "query":
        query._question(options)
    return vars(options)


def _message(data: bytes) -> Any:
    text = text_of(data)
    return _body(f" {text}" if text == "-" else text)


def _seeds(data: bytes) -> Any:
    return simulate._seeds(text_of(data))


def _address(data: bytes) -> Any:
    return inspect._address(text_of(data))


_ARGUMENTS = (
    b"query\0conf.toml\0shop/cart:42\0--part\0prices\0--limit\x0010",
    b"query\0conf.toml\0shop/cart\0--list\0--after\0aAAB",
    b"ask\0conf.toml\0shop/cart\x0042\0{}\0--timeout\x001.5\0--key\0k",
    b"send\0conf.toml\0shop/cart\x0042\0[1]\0--json",
    b"dead-letters\0list\0conf.toml\0--limit\x007",
    b"inspect\0data\0shop/cart:42\0--limit\x005",
    b"simulate\0--seed\x007",
)

TARGETS = (
    Target(
        "arguments",
        _arguments,
        (UsageError, ConfigurationError),
        lambda: _ARGUMENTS,
        words=(b"\0", b"--limit\0", b"--after\0", b"--part\0"),
    ),
    Target("message-argument", _message, (ConfigurationError,), lambda: [b'{"n":1}', b"[1,2.5,null]", b'"x"']),
    Target("seeds-argument", _seeds, (ConfigurationError,), lambda: [b"1:200", b"7:7"], message_max=100_000),
    Target("address-argument", _address, (ConfigurationError,), lambda: [b"shop/cart:42"]),
)
