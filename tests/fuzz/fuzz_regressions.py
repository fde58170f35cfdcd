"""Inputs that a decoder once did not survive: ``regressions.toml``."""

from __future__ import annotations

import base64
import tomllib
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("regressions.toml")


class Regression(NamedTuple):
    """One input, for which target, and what was wrong."""

    name: str
    target: str
    data: bytes
    why: str


def regressions() -> list[Regression]:
    """All of them."""
    found = []
    for name, entry in tomllib.loads(FILE.read_text(encoding="utf-8")).items():
        [form] = {"hex", "base64", "text"} & entry.keys()
        match form:
            case "hex":
                data = bytes.fromhex(entry[form])
            case "base64":
                data = base64.b64decode(entry[form], validate=True)
            case _:
                data = entry[form].encode()
        found.append(Regression(name, entry["target"], data * entry.get("times", 1), entry["why"]))
    return found
