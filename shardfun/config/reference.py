"""Write the commented reference of every setting: ``conf/shardfun.toml``.

Made from the schema, so that it cannot say something else than the code does. ``python -m shardfun.config.reference`` prints it;
a test compares the file with it. Prose is ``# text``; a setting with its default is ``#key = value``, without the blank.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any, Final

import msgspec

from shardfun.config.fields import FieldSpec, fields_of, one_of
from shardfun.config.kinds import Group, kind_names, load_kind
from shardfun.config.reading import PATH_KEY
from shardfun.config.schema import Config, EgressConfig, IngressConfig

GROUPS: Final[tuple[Group, ...]] = ("ingress", "egress")
LINE_WIDTH: Final = 110
REQUIRED: Final = "  # required"
NOT_SET: Final = "  # not set by default"

# What these are depends on the name of the file; for the reference that is "shardfun".
_NAMED_BY_FILE: Final = MappingProxyType({"name": "shardfun", "data_dir": "data/shardfun"})
_EXAMPLES: Final = MappingProxyType(
    {
        "app": "package.module:app",
        "file": "logs/node.log",
        "target": "namespace/name",
        "url": "https://example.org/hook",
        "ca_file": "certificates.pem",
    }
    | {"token_file": "http.token", "tls_certificate": "tls/certificate.pem", "tls_key": "tls/key.pem"}
)
_PATH_EXAMPLES: Final[MappingProxyType[Group, str]] = MappingProxyType(
    {"ingress": "data/records.jsonl", "egress": "data/results-{partition}.jsonl"}
)

_INTRODUCTION: Final = """\
Every setting of shardfun, with its default. Made by "python -m shardfun.config.reference".

Durations have a unit: us, ms, s, min, h, d. Sizes are a number of bytes or have a unit: B, KiB, MiB, GiB, TiB (powers of
1024), kB, MB, GB, TB (powers of 1000). Relative paths are relative to the folder of this file. In Python a duration is in
seconds and its attribute ends in _s (interval_s), a size is in bytes and its attribute ends in _bytes (cache_bytes).

A setting can also come from the environment (SHARDFUN_CHECKPOINT__INTERVAL="1 s") or, stronger, from the command line
(--set "checkpoint.interval=1 s"). An unknown setting is an error.
"""


def default_reference() -> str:
    """The whole file: all sections, and an example section of each kind of ingress and egress that comes with shardfun."""
    lines = [*_comment(_INTRODUCTION), ""]
    docs = _docs(Config)
    sections = []
    for spec in fields_of(Config):
        if spec.struct is not None and spec.key not in GROUPS:
            # a section that need not be there is not there either when this file is taken as it is
            sections.append((f"[{spec.key}]" if spec.default is not None else f"#[{spec.key}]", spec.struct))
        elif spec.key not in GROUPS:
            lines += _setting(spec, docs, "PATH")
    for header, kind in sections:
        lines += ["", *_comment(_summary(kind)), header, *_settings(kind)]
    for group in GROUPS:
        lines += _doors(group)
    return "\n".join(lines) + "\n"


def _settings(kind: type[msgspec.Struct], skipped: tuple[str, ...] = (), path: str = "PATH") -> Iterator[str]:
    """The settings of one struct.

    Args:
        kind: the struct.
        skipped: attributes that are left out.
        path: the example of a path.
    """
    docs = _docs(kind)
    for spec in fields_of(kind):
        if spec.attribute not in skipped:
            yield from _setting(spec, docs, path)


def _setting(spec: FieldSpec, docs: dict[str, str], path: str) -> Iterator[str]:
    prose = docs.get(spec.attribute, "")
    allowed = _allowed(spec)
    yield from _comment(f"{prose[:1].upper()}{prose[1:]} {allowed}".strip())
    if spec.key in _NAMED_BY_FILE:
        yield f"#{spec.key} = {_toml(_NAMED_BY_FILE[spec.key])}"
    elif spec.required:
        # The only setting that every file has to have is the one that is not commented out.
        yield f"{'' if spec.key == 'app' else '#'}{spec.key} = {_toml(_example(spec, path))}{REQUIRED}"
    elif spec.default is None:
        yield f"#{spec.key} = {_toml(_example(spec, path))}{NOT_SET}"
    else:
        yield f"#{spec.key} = {_toml(spec.default if spec.unit is None else spec.unit.show(spec.default))}"


def _doors(group: Group) -> Iterator[str]:
    """The settings that all kinds have stand with the first kind only."""
    entry: type[msgspec.Struct] = IngressConfig if group == "ingress" else EgressConfig
    shared = tuple(spec.attribute for spec in fields_of(entry))
    common = list(_settings(entry, ("kind", "options")))
    for name in kind_names(group):
        kind = load_kind(group, name)
        if not kind.__module__.startswith("shardfun."):
            continue
        yield ""
        yield from _comment(f"An {group} of kind {name!r}, under a name of your choice.")
        yield f"#[{group}.my-{name}]"
        yield f'#kind = "{name}"'
        yield from common
        common = []
        yield from _settings(kind.options, shared, _PATH_EXAMPLES[group])
    yield ""
    base = "shardfun.sources.Ingress" if group == "ingress" else "shardfun.sinks.Egress"
    yield from _comment(
        f'An {group} may also be a class of yours, a subclass of {base}: kind = "package.module:Class", with its options '
        "beside it. See docs/SOURCES_AND_SINKS.md."
    )


def _comment(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.strip().split("\n\n")):
        if number:
            yield "#"
        yield from textwrap.wrap(" ".join(paragraph.split()), LINE_WIDTH, initial_indent="# ", subsequent_indent="# ")


def _allowed(spec: FieldSpec) -> str:
    """Which values are allowed, if there are limits worth naming."""
    if spec.unit is not None:
        return f"({spec.unit.allowed})" if spec.unit.allowed else ""
    if spec.choices:
        return f"({one_of(spec.choices)})"
    return f"({spec.bounds})" if spec.bounds else ""


def _example(spec: FieldSpec, path: str) -> Any:
    if spec.key == PATH_KEY:
        return path
    if spec.key in _EXAMPLES:
        return _EXAMPLES[spec.key]
    return spec.choices[0] if spec.choices else spec.example


def _toml(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int():
            return f"{value:_}" if abs(value) >= 10_000 else str(value)
        case list() | tuple():
            return f"[{', '.join(map(_toml, value))}]"
        case float() | str():
            return json.dumps(value, ensure_ascii=False)
        case _:
            pairs = [f"{key} = {_toml(inner)}" for key, inner in msgspec.to_builtins(value).items()]
            return f"{{ {', '.join(pairs)} }}"


def _summary(kind: type) -> str:
    return (inspect.getdoc(kind) or "").partition("\n\n")[0]


def _docs(kind: type) -> dict[str, str]:
    """What is said about each attribute: in the text below it, or under ``Args`` of the class."""
    docs: dict[str, str] = {}
    arguments = (inspect.getdoc(kind) or "").partition("Args:\n")[2]
    for name, text in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", arguments, re.MULTILINE):
        docs[name] = text.replace("``None``", "not set").replace("``", "")
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(tree, ast.ClassDef)
    for statement, following in zip(tree.body, tree.body[1:], strict=False):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                docs[name] = text.replace("``None``", "not set").replace("``", "")
    return docs


if __name__ == "__main__":
    sys.stdout.write(default_reference())
