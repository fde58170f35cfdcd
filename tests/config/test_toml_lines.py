"""Each key is found on its line, whatever stands around it."""

from __future__ import annotations

import time
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfun.config.toml_lines import key_lines, longest_key

_TRICKY = '''\
# comment = 1
app = "a # not a comment" # [not.a.table]
"quoted key" = 1
text = """
fake = 1
[fake]
\\""" still "" inside
""""
raw = \'\'\'
fake2 = 1\'\'\'
list = [ # [
  "]", { fake3 = 1 },
  [1, 2],
]
a.b . c = 1

[ingress."x.y"]
kind = 'file'
inline = { inner = 1 }
[[many]]
k = 1
[[many]]
k = 2
last = 2024-01-01T00:00:00Z'''


def test_tricky_text() -> None:
    assert tomllib.loads(_TRICKY)
    assert key_lines(_TRICKY) == {
        ("app",): 2,
        ("quoted key",): 3,
        ("text",): 4,
        ("raw",): 9,
        ("list",): 11,
        ("a",): 15,
        ("a", "b"): 15,
        ("a", "b", "c"): 15,
        ("ingress",): 17,
        ("ingress", "x.y"): 17,
        ("ingress", "x.y", "kind"): 18,
        ("ingress", "x.y", "inline"): 19,
        ("many",): 20,
        ("many", "k"): 21,
        ("many", "last"): 24,
    }


def test_empty() -> None:
    assert key_lines("") == {}
    assert key_lines("# only\n\n") == {}


_VALUES = st.sampled_from(
    [
        "1",
        "-0.5",
        "true",
        '"[x]"',
        "'''\n[y]\n'''",
        '"""\nz = 1\n"""',
        "[1, # ]\n 2]",
        "{ a = 1, b = [2] }",
        '"\\""',
        "1979-05-27",
        '"="',
    ]
)


@given(st.lists(st.tuples(st.booleans(), _VALUES), max_size=8))
def test_any_file(entries: list[tuple[bool, str]]) -> None:
    lines: list[str] = []
    expected: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, (opens_table, value) in enumerate(entries):
        if opens_table:
            table = (f"t{number}",)
            lines.append(f"[t{number}] # comment")
            expected[table] = len(lines)
        expected[(*table, f"k{number}")] = len(lines) + 1
        lines.extend(f"k{number} = {value}".split("\n"))
    text = "\n".join(lines)
    parsed: dict[str, Any] = tomllib.loads(text)
    found = key_lines(text)
    assert found == expected
    for path in found:
        inner: Any = parsed
        for part in path:
            inner = inner[part]


# ---- long keys -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", 1),
        ("a = 1.5", 2),
        ("a.b . \t'c.d'.\"e\" = 1", 4),
        ("[[a.b.c]]\nd.e = 1.5", 3),
        ("a = { b.c.d.e = 1 }", 4),
        ("a = [\n  '10.0.0.1', '10.0.0.2', 1.5, 2.5,\n { b.c.d = 1 } ]", 3),
        ("a = \"\"\"\nb.c.d.e\n\"\"\"\nb = '''\nc.d.e.f\n''' # a.b.c.d.e", 1),
        ("at = 1979-05-27T07:32:00.5+01:00\nb.c.d = 1", 3),
        ('b.c.d = 1\na = """\ne.f.g.h.i.j', 3),
    ],
)
def test_the_longest_key(text: str, parts: int) -> None:
    assert longest_key(text) == parts


@pytest.mark.parametrize("unit", ["a.", "[", '"', "'", '"""', "'''", '\\"', '"""x"\\', "#", "a.b\n", "a='\n", 'a="\\"\n'])
def test_whatever_a_text_is_its_keys_are_counted_at_once(unit: str) -> None:
    began = time.monotonic()
    longest_key(unit * (400_000 // len(unit)))
    assert time.monotonic() - began < 20.0, "some tenths of a second if it is linear, hours if it is not"
