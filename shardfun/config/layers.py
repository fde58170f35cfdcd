"""Settings from the file, the environment and the command line, laid over each other, each with the place it came from.

A wrong value is reported where it was written, not where it ended up: so every key remembers its place. What keys exist and
what their values mean is not known here, except that the names below ``ingress`` and ``egress`` are the user's.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from shardfun.model.cbor import shown

KeyPath: TypeAlias = tuple[str, ...]

ENVIRONMENT_PREFIX: Final = "SHARDFUN_"
LEVEL_SEPARATOR: Final = "__"
KEY_PARTS_MAX: Final = 32
DOORS: Final = ("ingress", "egress")
"""The sections in which the user names the tables."""


class Layers:
    """The merged settings.

    Args:
        values: the tables of the file; copied.
        source: how the file is called in messages.
        lines: line of each key of the file.
    """

    def __init__(self, values: Mapping[str, Any], source: str, lines: Mapping[KeyPath, int]) -> None:
        self.values: dict[str, Any] = _copied(values)
        self.problems: list[str] = []
        self._source = source
        self._places = {path: f"{source}:{line}" for path, line in lines.items()}
        self._texts: dict[KeyPath, str] = {}

    def place(self, path: KeyPath) -> str:
        """Where ``path``, or the nearest table around it that was written somewhere, was written."""
        for length in range(len(path), 0, -1):
            if path[:length] in self._places:
                return self._places[path[:length]]
        return self._source

    def text(self, path: KeyPath) -> str | None:
        """What was written, for a value from the environment or the command line: ``007`` may be meant as text."""
        return self._texts.get(path)

    def add_environment(self, environ: Mapping[str, str], known: Iterable[KeyPath]) -> None:
        """Lay ``SHARDFUN_A__B`` over the settings; a name in the environment is in capitals, with ``_`` for ``-``.

        A variable without ``__`` that is no setting and does not look like one is ignored: Kubernetes, for one, sets
        ``SHARDFUN_SERVICE_HOST`` in every container beside a service called shardfun.

        Args:
            environ: all variables; unrelated ones are ignored.
            known: paths of all settings that always exist.
        """
        names = {LEVEL_SEPARATOR.join(path).lower() for path in known}
        for variable in sorted(environ):
            if not variable.startswith(ENVIRONMENT_PREFIX):
                continue
            name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
            if name.count(LEVEL_SEPARATOR) >= KEY_PARTS_MAX:
                self.problems.append(f"environment variable {variable:.200}: no such setting")
                continue
            place = f"environment variable {variable}"
            if LEVEL_SEPARATOR in name or name in names:
                self._set(self._existing(tuple(name.split(LEVEL_SEPARATOR))), environ[variable], place)
            elif near := difflib.get_close_matches(name, names, n=1, cutoff=0.85):
                meant = ENVIRONMENT_PREFIX + near[0].upper()
                self.problems.append(f"{place}: no such setting; did you mean {meant}?")

    def add_overrides(self, overrides: Sequence[str]) -> None:
        """Lay ``a.b=c`` from the command line over the settings; later ones win."""
        for override in overrides:
            key, equals, text = override.partition("=")
            path = _key_path(key)
            if not equals or path is None:
                self.problems.append(f"--set {override:.200}: expected 'section.key=value', as in 'checkpoint.interval=500 ms'")
            else:
                self._set(path, text.strip(), f"--set {key.strip()}")

    def add_settings(self, settings: Mapping[str, Any], place: str) -> None:
        """Lay settings that a program gives over what is there: tables key by key, anything else as a whole."""
        self._merge(self.values, settings, (), place)

    def _merge(self, table: dict[str, Any], settings: Mapping[str, Any], path: KeyPath, place: str) -> None:
        for key, value in settings.items():
            inner = (*path, key)
            if isinstance(value, Mapping):
                if not isinstance(table.get(key), dict):
                    table[key] = {}
                    self._places[inner] = place
                self._merge(table[key], value, inner, place)
            else:
                table[key] = value
                self._forget_below(inner)
                self._places[inner] = place

    def _existing(self, path: KeyPath) -> KeyPath:
        """``path`` with the spelling that names of ingresses and egresses, and their keys, have in the file."""
        if path[0] not in DOORS:
            return path
        table: Any = self.values
        spelled: list[str] = []
        for part in path:
            same = [name for name in table if name.lower().replace("-", "_") == part] if isinstance(table, dict) else []
            spelled.append(same[0] if same else part)
            table = table.get(spelled[-1]) if isinstance(table, dict) else None
        return tuple(spelled)

    def _set(self, path: KeyPath, text: str, place: str) -> None:
        table = self.values
        for length, part in enumerate(path[:-1], 1):
            if part not in table:
                table[part] = {}
                self._places[path[:length]] = place
            if not isinstance(table[part], dict):
                self.problems.append(f"{place}: {'.'.join(path[:length])} is not a table, but the value {shown(table[part])}")
                return
            table = table[part]
        table[path[-1]] = _value(text)
        self._forget_below(path)
        self._places[path] = place
        self._texts[path] = text

    def _forget_below(self, path: KeyPath) -> None:
        for inner in [known for known in self._places if known[: len(path)] == path]:
            del self._places[inner]
            self._texts.pop(inner, None)


def _copied(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in table.items()}


def _key_path(key: str) -> KeyPath | None:
    """The parts of a dotted TOML key; ``None`` if it is none."""
    if key.count(".") >= KEY_PARTS_MAX:
        return None
    try:
        table: Any = tomllib.loads(f"{key.strip()} = 0")
    except (ValueError, RecursionError):
        return None
    path: list[str] = []
    while isinstance(table, dict):
        if len(table) != 1:
            return None
        [(part, table)] = table.items()
        path.append(part)
    return tuple(path)


def _value(text: str) -> Any:
    """As TOML if it is TOML, otherwise the text itself: nobody quotes ``200 ms`` for a shell and for TOML at once."""
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return table["value"] if table.keys() == {"value"} else text
