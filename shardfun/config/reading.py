"""From a table of plain values to an option struct, with every problem found and each at its place.

Works for any ``msgspec.Struct``: the sections of our schema and the options of kinds nobody here has heard of. Converting
field by field instead of the whole struct is what lets all problems be reported at once, each with its line.
"""

from __future__ import annotations

import math
import os.path
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from shardfun.config.fields import FieldSpec, fields_of
from shardfun.config.layers import KeyPath, Layers
from shardfun.errors import ConfigurationError
from shardfun.model.cbor import shown
from shardfun.telemetry.redaction import REDACTED, is_secret_key

SHOWN_VALUE_MAX: Final = 80
"""Characters of a wrong value that a message repeats."""

PATH_KEY: Final = "path"
"""A field of this name holds a path as text, or a list of them."""

StructT = TypeVar("StructT", bound=msgspec.Struct)


@dataclass(slots=True)
class Reader:
    """Reads tables of ``layers`` and collects problems.

    Args:
        layers: the merged settings.
        directory: absolute; relative paths are relative to it.
    """

    layers: Layers
    directory: Path
    problems: list[str] = field(default_factory=list)

    def problem(self, path: KeyPath, text: str) -> None:
        """Note what is wrong with the setting at ``path``."""
        self.problems.append(f"{self.layers.place(path)}: {'.'.join(path) or 'configuration'}: {text}")

    def struct(self, kind: type[StructT], table: Any, path: KeyPath, given: Mapping[str, Any] | None = None) -> StructT | None:
        """An instance of ``kind``, or ``None`` if there was a problem.

        Args:
            kind: an option struct.
            table: what stands at ``path``.
            path: the section.
            given: finished values by attribute; their keys in the table are not read.
        """
        if not self.is_table(table, path):
            return None
        before = len(self.problems)
        values = dict(given or {})
        fields = fields_of(kind)
        self.refuse_unknown(table, [spec.key for spec in fields], path)
        for spec in fields:
            if spec.attribute in values:
                continue
            place = (*path, spec.key)
            if spec.key in table:
                values[spec.attribute] = self._value(spec, table[spec.key], place)
            elif spec.required:
                self.problem(place, f"required, but missing: expected {spec.expected}")
        return self._built(kind, values, path) if len(self.problems) == before else None

    def is_table(self, table: Any, path: KeyPath) -> bool:
        """Whether there is a table at ``path``; notes it if not."""
        if not isinstance(table, dict):
            self.problem(path, f"expected a table [{'.'.join(path)}], got {_shown(table, path)}")
        return isinstance(table, dict)

    def refuse_unknown(self, table: Mapping[str, Any], known: list[str], path: KeyPath) -> None:
        """Note each key of ``table`` that is not in ``known``."""
        for key in table:
            if key not in known:
                self.problem((*path, key), f"no such setting; {_suggestion(key, known)}")

    def _built(self, kind: type[StructT], values: dict[str, Any], path: KeyPath) -> StructT | None:
        """Run the struct's own checks, which span fields; a problem that begins with a key belongs to its line."""
        try:
            return kind(**values)
        except ConfigurationError as error:
            problems = error.problems
        except (ValueError, TypeError) as error:
            problems = (str(error),)
        keys = {spec.key for spec in fields_of(kind)}
        for text in problems:
            key, _, rest = text.partition(": ")
            if rest and key in keys:
                self.problem((*path, key), rest)
            else:
                self.problem(path, text)
        return None

    def _value(self, spec: FieldSpec, value: Any, path: KeyPath) -> Any:
        if spec.struct is not None:
            return self.struct(spec.struct, value, path)
        # An override that reads as a number or a date where a text is expected was meant as it stands: try that too.
        written = self.layers.text(path)
        try:
            return self._converted(spec, value, path)
        except ValueError as error:
            if written is not None and not isinstance(value, str):
                try:
                    return self._converted(spec, written, path)
                except ValueError:
                    pass
            self.problem(path, str(error))
            return None

    def _converted(self, spec: FieldSpec, value: Any, path: KeyPath) -> Any:
        if spec.unit is not None:
            return spec.unit.read(value)
        if spec.is_path:
            return Path(self._absolute(value, path))
        if spec.choices and value not in spec.choices:
            near = get_close_matches(str(value), [str(choice) for choice in spec.choices], n=1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise ValueError(f"expected {spec.expected}, got {_shown(value, path)}{hint}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"expected a finite number, got {value}")
        try:
            converted = msgspec.convert(value, spec.hint)
        except msgspec.ValidationError as error:
            raise ValueError(f"expected {spec.expected_by(error)}, got {_shown(value, path)}") from error
        if spec.key == PATH_KEY and isinstance(converted, str):
            return self._absolute(converted, path)
        if spec.key == PATH_KEY and isinstance(converted, list | tuple):
            return type(converted)(self._absolute(one, path) for one in converted)
        return converted

    def _absolute(self, value: Any, path: KeyPath) -> str:
        if not isinstance(value, str) or not value or "\0" in value:
            raise ValueError(f"expected a path, got {_shown(value, path)}")
        # Not resolve(): a link in the path may be pointed elsewhere between two starts, on purpose.
        return os.path.normpath(self.directory / value)


def _suggestion(word: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?``, or what there is."""
    known = list(known)
    near = get_close_matches(word.lower(), known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known) or 'none'}"


def _shown(value: Any, path: KeyPath) -> str:
    if is_secret_key(path[-1]):
        return REDACTED
    try:
        text = repr(value) if not isinstance(value, bool) else str(value).lower()
    except ValueError:  # of an integer of thousands of digits
        text = shown(value)
    return text if len(text) <= SHOWN_VALUE_MAX else f"{text[:SHOWN_VALUE_MAX]}..."
