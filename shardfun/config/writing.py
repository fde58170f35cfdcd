"""A configuration as the text of a TOML file: what ``load_config`` reads back as the same values.

Only settings that differ from their defaults are written, so that a person sees what is special about it. Every path is absolute, so
the file may lie anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, Final

import msgspec

from shardfun.config.fields import FieldSpec, fields_of
from shardfun.config.schema import Config
from shardfun.errors import ConfigurationError

_DOORS: Final = ("ingress", "egress")


def config_toml(config: Config) -> str:
    """The text.

    Raises:
        ConfigurationError: an option of an ingress or egress has a value that TOML has not.
    """
    lines = list(_settings(config, "", skipped=_DOORS))
    for spec in fields_of(Config):
        section = getattr(config, spec.attribute)
        if spec.struct is not None and spec.key not in _DOORS and section is not None and section != spec.default:
            lines += [f"[{spec.key}]", *_settings(section, spec.key)]
    for group in _DOORS:
        for name, entry in getattr(config, group).items():
            place = f"{group}.{name}"
            lines += [f"[{place}]", *_settings(entry, place, skipped=("options",)), *_settings(entry.options, place)]
    return "\n".join(lines) + "\n"


def _settings(struct: msgspec.Struct, place: str, skipped: tuple[str, ...] = ()) -> Iterator[str]:
    for spec in fields_of(type(struct)):
        value = getattr(struct, spec.attribute)
        if spec.attribute in skipped or value is None or (spec.struct is not None and not place):
            continue
        if spec.required or value != spec.default:
            try:
                yield f"{spec.key} = {_written(spec, value)}"
            except TypeError as error:
                raise ConfigurationError(f"{place}.{spec.key}: cannot be written into a configuration file: {error}") from error


def _written(spec: FieldSpec, value: Any) -> str:
    return _toml(value if spec.unit is None else spec.unit.show(value))


def _toml(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case Path():
            return _toml(str(value))
        case datetime() | date() | time():
            return value.isoformat()
        case list() | tuple():
            return f"[{', '.join(map(_toml, value))}]"
        case dict():
            pairs = [f"{_toml(str(key))} = {_toml(inner)}" for key, inner in value.items() if inner is not None]
            return f"{{ {', '.join(pairs)} }}"
        case msgspec.Struct():
            return _toml(msgspec.to_builtins(value, enc_hook=str))
        case _:
            msg = f"expected a text, number, date, list or table, got {type(value).__name__}"
            raise TypeError(msg)
