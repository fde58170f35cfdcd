"""What an option struct says about its fields: keys, defaults, units, choices.

The one place that takes annotations apart, so that reading a file and writing the reference cannot disagree about what a
setting is. Knows no values and no places.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from shardfun.config.units import Duration, Size

_PLAIN_NAMES: Final = types.MappingProxyType(
    {"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false"}
    | {"array": "a list", "list": "a list", "tuple": "a list", "object": "a table", "dict": "a table"}
)
_EXAMPLES: Final = ((str, "TEXT"), (int, 1), (float, 1.0), (list, ["TEXT"]), (tuple, ["TEXT"]))
_MISMATCH: Final = re.compile(r"Expected (?P<expected>.*?)(?:, got .*?)?(?: - at `(?P<place>.*)`)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One setting of a struct.

    Args:
        attribute: its name in Python.
        key: its name in the file.
        hint: its annotation, markers included.
        default: ``msgspec.NODEFAULT`` if it must be given.
    """

    attribute: str
    key: str
    hint: Any
    default: Any

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is msgspec.NODEFAULT

    @property
    def unit(self) -> Duration | Size | None:
        """The marker of a duration or a size; written as the class or as an instance with a range."""
        for _, metadata in self._parts():
            for marker in metadata:
                if marker is Duration or marker is Size:
                    return marker()
                if isinstance(marker, Duration | Size):
                    return marker
        return None

    @property
    def choices(self) -> tuple[Any, ...]:
        """All values of a ``Literal``; empty if other values are possible too."""
        literals = [get_args(kind) if get_origin(kind) is Literal else () for kind, _ in self._parts()]
        return tuple(value for values in literals for value in values) if all(literals) else ()

    @property
    def is_path(self) -> bool:
        """Whether the annotation is a ``pathlib.Path``."""
        return any(kind is Path for kind, _ in self._parts())

    @property
    def struct(self) -> type[msgspec.Struct] | None:
        """The struct of a nested section."""
        kinds = [kind for kind, _ in self._parts() if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]
        return kinds[0] if kinds else None

    @property
    def expected(self) -> str:
        """What a value has to be, for people."""
        match self.unit:
            case Duration():
                return 'a duration such as "200 ms"'
            case Size():
                return 'a size such as "64 MiB"'
            case None:
                pass
        if self.choices:
            return one_of(self.choices)
        if self.is_path:
            return "a path"
        return self._description or " or ".join(_plain_name(kind) for kind, _ in self._parts())

    def expected_by(self, error: msgspec.ValidationError) -> str:
        """What a value would have had to be, from the error it caused."""
        match = _MISMATCH.fullmatch(str(error))
        if match is None:
            return f"{self.expected} ({error})"
        if "matching regex" in match["expected"] and self._description:
            return self._description
        text = re.sub(r"`([^`]*)`", lambda quoted: _plain_names(quoted[1]), match["expected"])
        return text if match["place"] is None else f"{text} (at {match['place']})"

    @property
    def bounds(self) -> str:
        """The range of a number, for people; empty if it has none."""
        low = next((meta.ge for meta in self._metas() if meta.ge is not None), None)
        high = next((meta.le for meta in self._metas() if meta.le is not None), None)
        if low is None:
            return "" if high is None else f"at most {high}"
        return f"at least {low}" if high is None else f"{low} to {high}"

    @property
    def example(self) -> Any:
        """Some value of the right type."""
        kinds = [get_origin(kind) or kind for kind, _ in self._parts()]
        return next((value for kind, value in _EXAMPLES if kind in kinds), "TEXT")

    @property
    def _description(self) -> str:
        return next((meta.description for meta in self._metas() if meta.description), "")

    def _metas(self) -> Iterator[msgspec.Meta]:
        return (marker for _, markers in self._parts() for marker in markers if isinstance(marker, msgspec.Meta))

    def _parts(self) -> Iterator[tuple[Any, tuple[Any, ...]]]:
        return _parts(self.hint, ())


def fields_of(kind: type[msgspec.Struct]) -> list[FieldSpec]:
    """The fields of an option struct, in order."""
    hints = get_type_hints(kind, include_extras=True)
    return [
        FieldSpec(attribute=info.name, key=info.encode_name, hint=hints[info.name], default=_default(info))
        for info in msgspec.structs.fields(kind)
    ]


def one_of(values: tuple[Any, ...]) -> str:
    """``"a", "b" or "c"``."""
    *most, last = [f'"{value}"' if isinstance(value, str) else str(value) for value in values]
    return f"{', '.join(most)} or {last}" if most else last


def _default(info: msgspec.structs.FieldInfo) -> Any:
    return info.default if info.default_factory is msgspec.NODEFAULT else info.default_factory()


def _parts(hint: Any, metadata: tuple[Any, ...]) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """The alternatives of a union except ``None``, each with the markers that apply to it."""
    origin = get_origin(hint)
    if origin is Annotated:
        inner, *markers = get_args(hint)
        yield from _parts(inner, (*metadata, *markers))
    elif origin is Union or origin is types.UnionType:
        for part in get_args(hint):
            yield from _parts(part, metadata)
    elif hint is not type(None):
        yield hint, metadata


def _plain_name(kind: Any) -> str:
    name = getattr(get_origin(kind) or kind, "__name__", str(kind))
    return _PLAIN_NAMES.get(name, name)


def _plain_names(names: str) -> str:
    return " or ".join(_PLAIN_NAMES.get(name, name) for name in names.split(" | ") if name != "null")
