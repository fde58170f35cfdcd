"""What the commands ``send`` and ``ask`` share: which address, which message, and how the node gets to read it.

The message is encoded here, by the payload types of the application, which this process imports as the shards do. Only an
application inside a script (``__main__:app``) cannot be imported from elsewhere; a node that is embedded in that script reads JSON
itself.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from shardfun.errors import ConfigurationError, UnavailableError
from shardfun.intake.targets import Targets

STDIN: Final = "-"
MESSAGE_BYTES_MAX: Final = 1 << 20


class Outgoing(NamedTuple):
    """A message on its way to a node.

    Args:
        fields: those that ``SendQuestion`` and ``AskQuestion`` have in common.
        targets: the application's functions, if it can be imported here.
    """

    data_dir: Path
    fields: dict[str, Any]
    targets: Targets | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of both commands."""
    parser.add_argument("place", type=Path, metavar="CONFIG|DATA_DIR", help="the node's TOML file or its data directory")
    parser.add_argument("typename", metavar="TYPE", help="the function type, namespace/name")
    parser.add_argument("id", metavar="ID", help="the id of the address")
    parser.add_argument("message", metavar="JSON", help="the message; '-' reads it from standard input")
    parser.add_argument("--type", dest="payload_type", metavar="NAME", help="the message's type, if JSON could be of several")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def outgoing(options: argparse.Namespace) -> Outgoing:
    """The message that the command line describes.

    Raises:
        ConfigurationError: it is no JSON, or too long.
        ShardfunError: the application cannot be imported, has no such function, or takes no such message.
    """
    data_dir, reference = _node_of(options.place)
    body = _body(options.message)
    fields: dict[str, Any] = {"target": options.typename, "id": options.id, "payload_type": options.payload_type}
    if reference.startswith("__main__:"):
        return Outgoing(data_dir, fields | {"body": body}, None)
    from shardfun.sdk.importing import import_app, search_here

    search_here()
    targets = Targets.of(import_app(reference))
    name, payload = targets.from_json(options.typename, options.id, body, options.payload_type)
    return Outgoing(data_dir, fields | {"payload_type": name, "payload": payload}, targets)


def _node_of(place: Path) -> tuple[Path, str]:
    """The data directory, and the reference of the application."""
    if not place.is_dir():
        if not place.exists():
            raise ConfigurationError(f"{place}: expected a configuration file or a data directory, but there is no such file")
        from shardfun.config import load_config

        config = load_config(place)
        return config.data_dir, config.app
    from shardfun.state.directory import DataDirectory

    directory = DataDirectory(place.absolute())
    identity = directory.identity()
    if identity is None:
        raise UnavailableError(f"{place}: no node has run on this data directory")
    return directory.path, identity.app


def _body(text: str) -> Any:
    raw = sys.stdin.buffer.read(MESSAGE_BYTES_MAX + 1) if text == STDIN else os.fsencode(text)
    if len(raw) > MESSAGE_BYTES_MAX:
        raise ConfigurationError(f"message: expected at most {MESSAGE_BYTES_MAX} bytes of JSON, but it is longer")
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        hint = "; a text needs quotes inside those of the shell: '\"text\"'" if text != STDIN else ""
        raise ConfigurationError(f"message: expected JSON: {error}{hint}") from error
