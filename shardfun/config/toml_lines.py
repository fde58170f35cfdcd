"""The line on which each key of a TOML text stands.

``tomllib`` gives values without places, and an error without a line is slow to act on. This scanner need not validate: either
``tomllib`` has accepted the text already, or it will refuse it. It only has to step over values without misreading what is inside.
Keys inside an inline table have no entry of their own; callers go up to the nearest ancestor that has one.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Final, NamedTuple

# The order matters: three quotes before one, and a comment only where no string has begun.
_TOKEN: Final = re.compile(
    r'''
      (?P<text>  """ (?: \\. | [^\\] )*? "{3,5}  |  \'\'\' .*? '{3,5}
               | "(?!"") (?: \\. | [^"\\] )* "  |  '(?!'') [^']* ' )
    | (?P<comment> \#[^\n]* )
    | (?P<newline> \n )
    | (?P<mark> [\[\]{}=.,] )
    | (?P<bare> [A-Za-z0-9_-]+ )
    | (?P<other> . )
    ''',
    re.VERBOSE | re.DOTALL,
)


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def key_lines(text: str) -> dict[tuple[str, ...], int]:
    """Key path to the 1-based line where it is first written, tables included.

    Args:
        text: valid TOML.
    """
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for statement in _statements(text):
        first = statement[0]
        is_header = first.text == "["
        key = _key(statement[1:] if is_header else statement)
        if is_header:
            table, path = key, key
        else:
            path = table + key
        for length in range(1, len(path) + 1):
            lines.setdefault(path[:length], first.line)
    return lines


def longest_key(text: str) -> int:
    """How many parts the longest dotted key has.

    Args:
        text: it may be no valid TOML. Then what is behind the first mistake may be left out, as a parser would.
    """
    longest = dots = 0
    for token in _tokens(text):
        if token.text == ".":
            dots += 1
            longest = max(longest, dots)
        elif token.kind in {"newline", "mark", "comment"}:
            dots = 0
        elif token.kind == "other" and not token.text.isspace() and token.text not in "+:":
            break  # it may be a string without an end: whoever goes on would look for the end again and again
    return longest + 1


def _statements(text: str) -> Iterator[list[_Token]]:
    """Header or ``key = value`` at a time, without blanks and comments. Newlines inside brackets do not end one."""
    statement: list[_Token] = []
    depth = 0
    for token in _tokens(text):
        if token.kind == "newline":
            if statement and depth == 0:
                yield statement
                statement = []
            continue
        if token.kind == "comment" or token.text.isspace():
            continue
        if token.kind == "mark":
            depth += (token.text in "[{") - (token.text in "]}")
        statement.append(token)
    if statement:
        yield statement


def _tokens(text: str) -> Iterator[_Token]:
    line = 1
    for match in _TOKEN.finditer(text):
        assert match.lastgroup is not None
        yield _Token(match.lastgroup, match.group(), line)
        line += match.group().count("\n")


def _key(tokens: list[_Token]) -> tuple[str, ...]:
    """The dotted key at the front: up to ``=`` or ``]``. A second ``[`` (array of tables) is stepped over."""
    parts: list[str] = []
    for token in tokens:
        if token.text in {"=", "]"}:
            break
        if token.kind == "bare":
            parts.append(token.text)
        elif token.kind == "text":
            parts.extend(tomllib.loads(f"{token.text} = 0"))
    return tuple(parts)
